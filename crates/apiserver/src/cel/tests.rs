use proptest::prelude::*;
use serde_json::{Value, json};

use super::check::Tag;
use super::*;

fn run<'a>(program: &'a Program, object: &'a Value) -> Result<Val<'a>, Fault> {
    program.run(&[("self", Val::of(object, None))], &Budget::new(PER_CALL))
}

fn compile(source: &str) -> Result<Program, String> {
    Program::compile(source, &[("self", Kind::Plain(Tag::Dyn))], &Kind::Plain(Tag::Dyn))
}

fn holds(source: &str, object: &Value) -> bool {
    let program = compile(source).unwrap_or_else(|why| panic!("{source}: {why}"));
    match run(&program, object) {
        Ok(Val::Bool(is)) => is,
        other => panic!("{source}: {other:?}"),
    }
}

#[test]
fn expressions_mean_what_they_mean_in_kubernetes() {
    let object = json!({
        "name": "web-1", "hosts": ["a.example.com", "*.b"], "port": 8080, "labels": {"app": "web", "x.y/z": "1"},
        "items": [{"k": "a", "n": 1}, {"k": "b", "n": 2}], "nothing": null, "f": 1.5, "wait": "90s", "grüße": "straße",
    });
    for source in [
        // The language.
        "has(self.name) && !has(self.none) && !has(self.nothing) && has(self.labels.app)",
        "self.port == 8080 && self.port > 80 && self.port in [80, 8080] && 8080 == 8080.0 && 2u > 1",
        "self.port % 1000 == 80 && -self.port < 0 && 7 / 2 == 3 && self.f * 2.0 == 3.0",
        "self.none == 1 || true",
        "!(self.none == 1 && false)",
        "self.hosts[0] == 'a.example.com' && self.labels['x.y/z'] == '1' && 'app' in self.labels",
        "(has(self.none) ? self.none : 'd') == 'd'",
        "self.hosts.all(h, h.size() > 2) && self.hosts.exists(h, h.startsWith('*.')) && self.items.exists_one(i, i.n == 2)",
        "self.labels.all(k, k != '') && self.labels.exists(k, self.labels[k] == 'web')",
        "self.items.map(i, i.k) == ['a', 'b'] && self.items.filter(i, i.n > 1).size() == 1",
        "self.items.map(i, i.n > 1, i.k) == ['b'] && self.items.map(i, self.items.map(j, i.n * j.n)) == [[1, 2], [2, 4]]",
        "self.items.exists(i, i.none > 1 || i.n == 2)",
        "{'a': 1, 'b': [2]} == {'b': [2], 'a': 1} && [1, 2] + [3] == [1, 2, 3] && 'a' + 'b' == 'ab'",
        "type(self.port) == int && type('') == string && self.?none.orValue(3) == 3 && self[?'port'].hasValue()",
        "optional.of(1).value() == 1 && !optional.none().hasValue() && optional.none().or(optional.of(2)).value() == 2",
        "int('7') == 7 && string(7) == '7' && double('1.5') == 1.5 && bool('true') && uint(3) == 3u && dyn(1) == 1",
        // Strings.
        "self.name.matches('^[a-z]+-[0-9]+$') && matches(self.name, 'web') && self.name.contains('b-')",
        "self.name.split('-') == ['web', '1'] && 'a,b,c'.split(',', 2) == ['a', 'b,c'] && 'ab'.split('') == ['a', 'b']",
        "'aBc'.lowerAscii() == 'abc' && 'aBc'.upperAscii() == 'ABC' && ' a '.trim() == 'a' && 'abc'.charAt(1) == 'b'",
        "'hello'.substring(1) == 'ello' && 'hello'.substring(1, 3) == 'el' && 'hello'.indexOf('l') == 2",
        "'hello'.lastIndexOf('l') == 3 && 'hello'.indexOf('l', 3) == 3 && 'hello'.indexOf('z') == -1",
        "'aaa'.replace('a', 'b') == 'bbb' && 'aaa'.replace('a', 'b', 2) == 'bba' && ['a', 'b'].join('-') == 'a-b'",
        "'%s has %d of %.2f, %b'.format(['x', 3, 1.5, true]) == 'x has 3 of 1.50, 1' && '%s'.format([[1, 2]]) == '[1, 2]'",
        "'abc 123 456'.find('[0-9]+') == '123' && 'abc 123 456'.findAll('[0-9]+') == ['123', '456']",
        "size('grüße') == 5 && size(b'grüße') == 7 && 'straße'.substring(4, 5) == 'ß'",
        // Lists and sets.
        "[1, 2, 2].isSorted() && !['b', 'a'].isSorted() && [3, 1].min() == 1 && [3, 1].max() == 3 && [1, 2].sum() == 3",
        "[1, 2, 1].indexOf(1) == 0 && [1, 2, 1].lastIndexOf(1) == 2 && [1].indexOf(9) == -1 && size([]) == 0",
        "sets.contains([1, 2], [2]) && sets.intersects([1], [1, 3]) && sets.equivalent([1, 2], [2, 1, 1])",
        // Times.
        "duration(self.wait) == duration('1m30s') && duration('-5s') < duration('0s') && duration('1h').getMinutes() == 60",
        "timestamp('2026-01-02T03:04:05Z').getFullYear() == 2026 && timestamp('2026-01-02T00:00:00Z').getDayOfMonth() == 1",
        "timestamp('2026-01-02T00:00:00Z') - timestamp('2026-01-01T00:00:00Z') == duration('24h')",
        // Networks.
        "isURL('https://a.example:81/p?x=1&x=2') && !isURL('no url') && !isURL('') && isURL('/path')",
        "url('https://a.example:81/p?x=1&x=2').getScheme() == 'https' && url('https://[::1]:81/').getHostname() == '::1'",
        "url('https://a.example:81/p').getPort() == '81' && url('https://a.example:81/p?x=1&x=2').getQuery()['x'] == ['1', '2']",
        "isIP('10.0.0.1') && isIP('::1') && !isIP('10.0.0.256') && ip('127.0.0.1').isLoopback() && ip('::1').family() == 6",
        "ip.isCanonical('::1') && !ip.isCanonical('0:0::1') && ip('8.8.8.8').isGlobalUnicast()",
        "cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && !isCIDR('10.0.0.0/33')",
        "cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8') && cidr('::/0').prefixLength() == 0",
        // Quantities and formats.
        "quantity('1Gi').isGreaterThan(quantity('1G')) && quantity('100m').compareTo(quantity('0.1')) == 0 && isQuantity('2e3')",
        "quantity('1.5k').asInteger() == 1500 && quantity('2').add(quantity('500m')) == quantity('2.5') && !isQuantity('1x')",
        "!format.dns1123Label().validate('web-1').hasValue() && format.dns1123Label().validate('Web').hasValue()",
        "format.dns1123Label().validate('web') == null && format.named('uuid').value().validate('x').value().size() == 1",
    ] {
        assert!(holds(source, &object), "{source}");
    }
}

#[test]
fn what_cannot_be_done_is_said() {
    let object = json!({"a": "x", "n": 1, "list": [1]});
    for (source, why) in [
        ("self.none == 1", "no such key: none"),
        ("self.n / 0 == 1", "divide by zero"),
        ("9223372036854775807 + self.n == 1", "integer overflow"),
        ("self.list[3] == 1", "index out of bounds"),
        ("self.a > self.n", "no such overload"),
        ("self.a.size() == self.n && self.n", "no such overload"),
        ("duration(self.a) == duration('1s')", "invalid duration"),
        ("self.a.matches('(' + self.a)", "cannot be used"),
        ("optional.none().value() == 1", "dereference"),
        ("{'a': 1, self.a + 's': 2, 'xs': 3} == {}", "repeated"),
    ] {
        match run(&compile(source).unwrap_or_else(|error| panic!("{source}: {error}")), &object) {
            Err(Fault::Error(said)) => assert!(said.contains(why), "{source}: {said}"),
            other => panic!("{source}: {other:?}"),
        }
    }
}

#[test]
fn what_does_not_compile_is_said() {
    let schema = json!({"type": "object", "properties": {
        "name": {"type": "string"}, "port": {"type": "integer"}, "hosts": {"type": "array", "items": {"type": "string"}},
        "ref": {"type": "object", "properties": {"kind": {"type": "string"}}}, "any": {"x-kubernetes-int-or-string": true},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    }});
    let schema = crate::schema::Schema::compile(&schema).unwrap();
    let compile = |source: &str| {
        let variables = [("self", schema.kind()), ("oldSelf", schema.kind())];
        Program::compile(source, &variables, &Kind::Plain(Tag::Bool)).map(drop)
    };
    for source in [
        "self.name.size() > 0 && self.hosts.all(h, h.startsWith('a')) && self.ref.kind == oldSelf.ref.kind",
        "self.any == 1 || self.any == 'x'",
        "self.labels.all(k, self.labels[k].size() > 0)",
        "self.hosts.map(h, h.size()).sum() > 1",
    ] {
        assert_eq!(compile(source), Ok(()), "{source}");
    }
    for (source, why) in [
        ("", "empty"),
        ("self.name ==", "Syntax error"),
        ("self.nam == ''", "undefined field 'nam'"),
        ("self.ref.knd == ''", "undefined field 'knd'"),
        ("slef.name == ''", "undeclared reference to 'slef'"),
        ("self.name.sizze() == 1", "undeclared reference to 'sizze'"),
        (
            "self.port.startsWith('a')",
            "found no matching overload for 'startsWith' applied to '(int, string)'",
        ),
        ("self.name.startsWith()", "found no matching overload"),
        ("self.name > 1", "found no matching overload for '_>_' applied to '(string, int)'"),
        ("self.name == 1", "found no matching overload"),
        ("self.name && true", "found no matching overload"),
        ("self.name", "want bool"),
        ("self.name.all(c, c == 'a')", "cannot be range of a comprehension"),
        ("self.hosts.all(h, h > 1)", "found no matching overload"),
        ("self.name.matches('(')", "cannot be used"),
        ("self.name.matches('(a{1000}){1000}')", "cannot be used"),
        ("google.protobuf.Duration{seconds: 1} == self", "messages cannot be made"),
        ("authorizer.group('').check() == 1", "undeclared reference"),
    ] {
        let said = compile(source).unwrap_err();
        assert!(said.contains(why), "{source}: {said}");
    }
}

/// Expressions that want to hold the server up, or to kill it.
#[test]
fn hostile_expressions_end() {
    let object = json!({"list": vec!["aaaaaaaaaaaaaaaa"; 400], "text": "a".repeat(100_000)});
    let nested = |depth: usize| {
        let names: Vec<String> = (0..depth).map(|at| format!("v{at}")).collect();
        let body = "self.list.all(".to_owned() + &names.join(", self.list.all(") + ", true";
        body + &")".repeat(depth)
    };
    for source in [
        nested(8),
        "self.list.map(a, self.list.map(b, self.list.map(c, a + b + c))).size() > 0".into(),
        "self.list.all(a, self.list.all(b, self.text.matches(a + b + '(x+x+)+y') || true))".into(),
        "self.list.all(a, self.text.replace('a', self.text).size() > 0)".into(),
        "self.list.all(a, self.list.all(b, self.text == self.text))".into(),
        "self.list.all(a, self.list.all(b, self.list == self.list))".into(),
        "self.list.all(a, sets.contains(self.list, self.list))".into(),
        "self.list.exists(a, self.list.exists(b, self.list.exists(c, self.list.map(d, d + 'x') == [])))"
            .into(),
    ] {
        let program = compile(&source).unwrap();
        let done = run(&program, &object);
        assert!(matches!(done, Err(Fault::Cost | Fault::Error(_))), "{source}: {done:?}");
    }
    for source in [
        "(1+".repeat(3000) + "1" + &")".repeat(3000),
        "a(".repeat(3000) + "1" + &")".repeat(3000),
        "{1:".repeat(3000) + "1" + &"}".repeat(3000),
        "true?".repeat(2000) + "1" + &":1".repeat(2000),
        "(".repeat(7000),
        "1".to_owned() + &"+1".repeat(4000),
        "a".to_owned() + &".b".repeat(4000),
        "[".repeat(4000),
        "self".to_owned() + &".map(x, x)".repeat(1000),
        "x".repeat(20_000),
    ] {
        assert!(compile(&source).is_err(), "{}", &source[..20]);
    }
    // No more than a one, however it is wrapped.
    drop(compile(&("(".repeat(5000) + "1" + &")".repeat(5000))));
}

#[test]
fn the_named_formats_compile() {
    for signature in functions::SIGNATURES {
        let Some(name) = signature.name.strip_prefix("format.").filter(|name| *name != "named") else {
            continue;
        };
        let program = compile(&format!("format.{name}().validate('\\n').hasValue()")).unwrap();
        assert!(matches!(run(&program, &Value::Null), Ok(Val::Bool(true))), "{name}");
    }
}

proptest! {
    #[test]
    fn any_text_is_an_expression_or_an_error(text in "\\PC{0,60}") {
        let _ = compile(&text);
    }

    #[test]
    fn anything_that_compiles_has_a_value_or_a_fault(
        words in proptest::collection::vec(prop::sample::select(vec![
            "self", ".", "a", "(", ")", "[", "]", "?", ":", "&&", "==", "<", "+", "-", "1", "2.5", "'x'", "null", "!", ",",
            ".size()", ".all(v, ", ".map(v, ", "v", "has(", "in", "{", "}", ".split('')", ".format(", "duration('1s')", "%",
        ]), 1..14),
    ) {
        if let Ok(program) = compile(&words.concat()) {
            let object = json!({"a": [1, "x", {"a": null}]});
            let _ = run(&program, &object);
        }
    }
}
