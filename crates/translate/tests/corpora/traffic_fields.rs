//! What becomes of each field of the traffic kinds, found out by setting it: docs/traffic.md.
//!
//! A probe sets one field in an object that is fine without. If validation refuses it, or what proxies get is another, that
//! is the answer; our own proxy's is what it would refuse or leave without effect of what is new. `UPDATE_DOCS=1` writes
//! the page, without it the page has to be current.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use lateen_api::{Document, Kind, Severity, parse_yaml, validate};
use lateen_route::{compile_cluster, compile_endpoints, compile_listener, compile_routes};
use lateen_translate::{Proxy, Resource, Resources, generate};
use serde_json::{Value, json};

use crate::world::snapshot;

fn file(name: &str) -> String {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpora"));
    std::fs::read_to_string(folder.join(name)).unwrap()
}

const KINDS: [Kind; 6] = [
    Kind::VirtualService,
    Kind::DestinationRule,
    Kind::Gateway,
    Kind::ServiceEntry,
    Kind::WorkloadEntry,
    Kind::Sidecar,
];

/// What becomes of a field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    /// Proxies get something else.
    Works(Ours),
    /// Validation refuses it.
    Refused(String),
    /// Nothing changes, but its author is told.
    Told(String),
    /// Nothing changes.
    Silent,
}

/// What our proxy makes of what is new.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Ours {
    Works,
    WithoutEffect(String),
    Refuses(String),
}

struct Probe {
    base: String,
    pointer: String,
    value: Value,
    beside: BTreeMap<String, Value>,
}

impl Probe {
    /// The field's path, as the schema has it.
    fn field(&self) -> String {
        let mut path = String::new();
        for part in self.pointer.trim_start_matches('/').split('/') {
            match part.parse::<usize>() {
                Ok(_) => path.push_str("[]"),
                Err(_) if path.is_empty() => path.push_str(part),
                Err(_) => {
                    path.push('.');
                    path.push_str(part);
                }
            }
        }
        path
    }

    /// The same below another place, if it is below `from`.
    fn moved(&self, from: &(String, String), to: &(String, String)) -> Option<Self> {
        let below = |pointer: &str| Some(format!("{}{}", to.1, pointer.strip_prefix(from.1.as_str())?));
        (self.base == from.0).then_some(())?;
        let pointer = below(&self.pointer).filter(|_| {
            self.pointer.strip_prefix(from.1.as_str()).is_some_and(|rest| rest.starts_with('/'))
        })?;
        let beside =
            self.beside.iter().map(|(at, value)| (below(at).unwrap_or_else(|| at.clone()), value.clone()));
        Some(Self { base: to.0.clone(), pointer, value: self.value.clone(), beside: beside.collect() })
    }
}

struct Table {
    bases: BTreeMap<String, (Kind, Value)>,
    probes: Vec<Probe>,
}

fn table() -> Table {
    let read: Value = serde_saphyr::from_str(&file("traffic_fields.yaml")).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let kind = |name: &str| KINDS.into_iter().find(|kind| kind.name() == name).unwrap();
    let bases = read["bases"].as_object().unwrap().iter();
    let of = |(name, base): (&String, &Value)| {
        (name.clone(), (kind(base["kind"].as_str().unwrap()), base["spec"].clone()))
    };
    let bases: BTreeMap<String, (Kind, Value)> = bases.map(of).collect();
    let mut probes: Vec<Probe> = read["probes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|probe| Probe {
            base: text(&probe[0]),
            pointer: text(&probe[1]),
            value: probe[2].clone(),
            beside: probe[3]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(at, v)| (at.clone(), v.clone()))
                .collect(),
        })
        .collect();
    let place = |value: &Value| (text(&value[0]), text(&value[1]));
    for copy in read["copies"].as_array().unwrap() {
        let from = place(&copy["from"]);
        let places = copy["to"].as_array().unwrap().iter().map(place);
        let copies: Vec<Probe> = places
            .flat_map(|to| probes.iter().filter_map(|probe| probe.moved(&from, &to)).collect::<Vec<_>>())
            .collect();
        // A port's settings lack some of a rule's.
        let bases: &BTreeMap<String, (Kind, Value)> = &bases;
        probes
            .extend(copies.into_iter().filter(|copy| schema_of(bases[&copy.base].0).contains(&copy.field())));
    }
    Table { bases, probes }
}

fn set(at: &mut Value, pointer: &str, value: Value) {
    let mut here = at;
    for part in pointer.trim_start_matches('/').split('/') {
        here = match part.parse::<usize>() {
            Ok(index) => {
                if !here.is_array() {
                    *here = json!([]);
                }
                let list = here.as_array_mut().unwrap();
                while list.len() <= index {
                    list.push(json!({}));
                }
                &mut list[index]
            }
            Err(_) => {
                if !here.is_object() {
                    *here = json!({});
                }
                here.as_object_mut().unwrap().entry(part).or_insert(Value::Null)
            }
        };
    }
    *here = value;
}

fn object(kind: Kind, spec: &Value) -> String {
    let info = kind.info();
    json!({"apiVersion": info.api_version(), "kind": info.name, "metadata": {"name": "probe", "namespace": "shop"}, "spec": spec})
        .to_string()
}

/// What validation warns of.
fn warnings(text: &str) -> BTreeSet<String> {
    let Some(Ok(Document::Istio(object))) = parse_yaml("probe", text).into_iter().next() else {
        return BTreeSet::new();
    };
    let problems = validate(&object);
    let warnings = problems.iter().filter(|problem| problem.severity == Severity::Warning);
    warnings.map(|problem| problem.message.clone()).collect()
}

/// What validation says against an object, if it does.
fn refusal(text: &str) -> Option<String> {
    let document = parse_yaml("probe", text).into_iter().next()?;
    match document {
        Err(error) => Some(error.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")),
        Ok(Document::Istio(object)) => {
            let broken = object.violations.iter().map(ToString::to_string);
            let problems = validate(&object);
            let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
            broken.chain(errors.map(|problem| problem.message.clone())).next()
        }
        Ok(_) => None,
    }
}

fn proxies() -> Vec<Proxy> {
    let sidecar = |name: &str, ip: &str, namespace: &str| {
        json!({"type": "sidecar", "id": format!("{name}.{namespace}"), "ipAddresses": [ip], "configNamespace": namespace,
            "labels": {"app": name}, "locality": {"region": "a", "zone": "x"}, "metadata": {"NAMESPACE": namespace}})
    };
    let gateway = json!({"type": "router", "id": "gw.shop", "ipAddresses": ["10.1.0.3"], "configNamespace": "shop",
        "labels": {"istio": "gw"}, "locality": {"region": "a", "zone": "x"}, "metadata": {"NAMESPACE": "shop"}});
    let all = [
        sidecar("client", "10.1.0.1", "shop"),
        sidecar("reviews", "10.1.0.2", "shop"),
        sidecar("client", "10.1.0.4", "elsewhere"),
        sidecar("other", "10.1.0.5", "shop"),
        gateway,
    ];
    all.iter().map(|json| Proxy::from_json(json).unwrap()).collect()
}

fn made(text: &str) -> Vec<Resources> {
    let world = snapshot(&format!("{}\n---\n{text}", file("traffic_world.yaml")), None);
    proxies().iter().map(|proxy| generate(&world, proxy)).collect()
}

/// The versions of all resources, and what is said of the probe.
fn seen(made: &[Resources]) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut versions, mut said) = (BTreeSet::new(), BTreeSet::new());
    for (index, resources) in made.iter().enumerate() {
        for (kind, list) in lists(resources) {
            for resource in list {
                versions.insert(format!("{index} {kind} {} {}", resource.name, resource.version));
                said.extend(resource.notes.iter().map(|note| note.text.clone()));
            }
        }
        said.extend(resources.notes.iter().map(|note| note.text.clone()));
        versions.insert(format!("{index} {:?}", resources.name_table));
    }
    (versions, said)
}

fn lists(made: &Resources) -> [(&'static str, &[Arc<Resource>]); 4] {
    [
        ("listener", &made.listeners),
        ("cluster", &made.clusters),
        ("routes", &made.routes),
        ("endpoints", &made.endpoints),
    ]
}

/// What our proxy would refuse, and what it would leave without effect.
fn ours(made: &[Resources]) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut refused, mut ignored) = (BTreeSet::new(), BTreeSet::new());
    for resources in made {
        for (kind, list) in lists(resources) {
            for resource in list {
                let any = &resource.any;
                let notes = match kind {
                    "listener" => compile_listener(&any.unpack().unwrap()).map(|compiled| compiled.notes),
                    "cluster" => compile_cluster(&any.unpack().unwrap()).map(|compiled| compiled.notes),
                    "routes" => compile_routes(&any.unpack().unwrap()).map(|compiled| compiled.notes),
                    _ => compile_endpoints(&any.unpack().unwrap()).map(|compiled| compiled.notes),
                };
                match notes {
                    Ok(notes) => ignored
                        .extend(notes.iter().map(|note| format!("{}: {}", last(&note.path), note.reason))),
                    Err(error) => {
                        refused.insert(format!("{}: {}", last(&error.path), error.reason));
                    }
                }
            }
        }
    }
    (refused, ignored)
}

/// The last word of a field's path.
fn last(field: &str) -> &str {
    field.rsplit('.').next().unwrap_or(field)
}

/// What was made of objects before.
type Known = HashMap<String, Vec<Resources>>;

fn answer(kind: Kind, base: &Value, probe: &Probe, known: &mut Known) -> Answer {
    let mut without = base.clone();
    for (pointer, value) in &probe.beside {
        set(&mut without, pointer, value.clone());
    }
    let mut with = without.clone();
    set(&mut with, &probe.pointer, probe.value.clone());
    let (without, with) = (object(kind, &without), object(kind, &with));
    if let Some(reason) = refusal(&with) {
        return Answer::Refused(reason);
    }
    let before = &*known.entry(without.clone()).or_insert_with(|| made(&without));
    let after = made(&with);
    let ((old, old_words), (new, new_words)) = (seen(before), seen(&after));
    if old == new {
        let (warned_before, warned) = (warnings(&without), warnings(&with));
        let mut words = warned.difference(&warned_before).chain(new_words.difference(&old_words));
        return words.next().map_or(Answer::Silent, |words| Answer::Told(words.clone()));
    }
    let ((refused_before, ignored_before), (refused, ignored)) = (ours(before), ours(&after));
    let refused = refused.difference(&refused_before).next().cloned();
    let ignored = ignored.difference(&ignored_before).next().cloned();
    Answer::Works(match (refused, ignored) {
        (Some(reason), _) => Ours::Refuses(reason),
        (None, Some(reason)) => Ours::WithoutEffect(reason),
        (None, None) => Ours::Works,
    })
}

/// The paths of all fields of a kind.
fn schema_of(kind: Kind) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    fields(&Value::Object((kind.info().schema)().0), "", &mut all);
    all
}

/// The paths of all fields below a schema that hold a value.
fn fields(schema: &Value, at: &str, out: &mut BTreeSet<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, schema) in properties {
            let at = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
            fields(schema, &at, out);
        }
    } else if schema["items"]["properties"].is_object() {
        fields(&schema["items"], &format!("{at}[]"), out);
    } else {
        out.insert(at.to_owned());
    }
}

fn page(answers: &BTreeMap<(usize, String), Answer>, remarks: &BTreeMap<String, String>) -> String {
    let count = |wanted: fn(&Answer) -> bool| answers.values().filter(|answer| wanted(answer)).count();
    let mut page = format!(
        "# Traffic kinds, field by field\n\n\
         What becomes of each field of VirtualService, DestinationRule, Gateway, ServiceEntry, WorkloadEntry and Sidecar. The table\n\
         is found out, not written: each field is set in an object that is fine without it, and what proxies get is compared\n\
         (`crates/translate/tests/corpora/traffic_fields.rs`; a test holds the page current, `UPDATE_DOCS=1` writes it).\n\n\
         - *works*: proxies get something else, and our proxy takes it; stock Envoy does as well.\n\
         - *stock Envoy only*: the control plane translates it, our proxy refuses it by name or leaves it without effect.\n\
         - *refused*: the object is refused when it is written, with this reason.\n\
         - *without effect*: it is accepted, as Istio accepts it, and changes nothing.\n\n\
         {} work, {} by stock Envoy only, {} refused, {} without effect.\n",
        count(|answer| *answer == Answer::Works(Ours::Works)),
        count(|answer| matches!(answer, Answer::Works(Ours::Refuses(_) | Ours::WithoutEffect(_)))),
        count(|answer| matches!(answer, Answer::Refused(_))),
        count(|answer| matches!(answer, Answer::Silent | Answer::Told(_))),
    );
    let mut kind = usize::MAX;
    for ((of, field), answer) in answers {
        if *of != kind {
            kind = *of;
            let _ = write!(page, "\n## {}\n\n| field | | |\n|---|---|---|\n", KINDS[kind].name());
        }
        let (word, mut text) = match answer {
            Answer::Works(Ours::Works) => ("works", String::new()),
            Answer::Works(Ours::Refuses(reason)) => {
                ("stock Envoy only", format!("our proxy refuses {reason}"))
            }
            Answer::Works(Ours::WithoutEffect(reason)) => {
                ("stock Envoy only", format!("our proxy: {reason}"))
            }
            Answer::Refused(reason) => ("refused", reason.clone()),
            Answer::Told(words) => ("without effect", words.clone()),
            Answer::Silent => ("without effect", String::new()),
        };
        if let Some(remark) =
            remarks.get(&format!("{} {field}", KINDS[kind].name())).filter(|_| text.is_empty())
        {
            text.clone_from(remark);
        }
        let text = text.replace('|', "\\|").replace('\n', " ");
        let _ = writeln!(page, "| `{field}` | {word} | {text} |");
    }
    page
}

#[test]
fn the_page_on_traffic_is_what_happens() {
    let table = table();
    let mut answers: BTreeMap<(usize, String), Answer> = BTreeMap::new();
    let mut known = Known::new();
    for probe in &table.probes {
        let (kind, base) = &table.bases[&probe.base];
        let at = KINDS.iter().position(|known| known == kind).unwrap();
        let answer = answer(*kind, base, probe, &mut known);
        // Of several probes of a field the one that shows most counts.
        let best = answers.entry((at, probe.field())).or_insert_with(|| answer.clone());
        if answer < *best {
            *best = answer;
        }
    }
    let mut missing = Vec::new();
    for (at, kind) in KINDS.iter().enumerate() {
        let all = schema_of(*kind);
        let probed: BTreeSet<String> =
            answers.keys().filter(|(of, _)| *of == at).map(|(_, field)| field.clone()).collect();
        missing.extend(all.difference(&probed).map(|field| format!("{}: no probe for {field}", kind.name())));
        missing.extend(probed.difference(&all).map(|field| format!("{}: no field {field}", kind.name())));
    }
    let remarks: BTreeMap<String, String> = serde_saphyr::from_str(&file("traffic_remarks.yaml")).unwrap();
    // Nothing is ignored in silence: a field without effect says why.
    let silent: Vec<String> = answers
        .iter()
        .filter(|(_, answer)| **answer == Answer::Silent)
        .map(|((at, field), _)| format!("{} {field}", KINDS[*at].name()))
        .filter(|field| !remarks.contains_key(field))
        .collect();
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/traffic.md"));
    let page = page(&answers, &remarks);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    assert!(silent.is_empty(), "without effect, and nobody says why:\n{}", silent.join("\n"));
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/traffic.md is out of date: run this test with UPDATE_DOCS=1");
}
