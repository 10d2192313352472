//! What can be said about an expression before it has values: whether its names, functions and fields exist, and whether
//! the kinds of values fit, as far as they are known.

use std::collections::HashMap;
use std::fmt;

use cel::IdedExpr;
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, LiteralValue, SelectExpr, operators};
use regex::Regex;

use super::functions::{SIGNATURES, Signature};
use super::value::unescaped;
use crate::schema::Schema;

/// What a value is, without what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tag {
    /// Anything.
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Duration,
    Time,
    List,
    Map,
    Type,
    Optional,
    Url,
    Ip,
    Cidr,
    Quantity,
    Format,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(crate) enum Kind<'s> {
    Plain(Tag),
    List(Box<Kind<'s>>),
    /// From strings.
    Map(Box<Kind<'s>>),
    /// With the fields of a schema.
    Object(&'s Schema),
    /// As [`Kind::Object`], with type and metadata.
    Resource(&'s Schema),
    /// Of a resource: only its names may be asked for.
    Metadata,
}

impl<'s> Kind<'s> {
    fn tag(&self) -> Tag {
        match self {
            Self::Plain(tag) => *tag,
            Self::List(_) => Tag::List,
            Self::Map(_) | Self::Object(_) | Self::Resource(_) | Self::Metadata => Tag::Map,
        }
    }

    fn is_any(&self) -> bool {
        self.tag() == Tag::Dyn
    }

    /// Whether a value of this kind may be one of the other.
    pub(crate) fn may_be(&self, other: &Kind<'_>) -> bool {
        self.is_any() || other.is_any() || self.tag() == other.tag()
    }

    /// The kind of a field; `None` when there can be no such field.
    fn field(&self, name: &str) -> Option<Kind<'s>> {
        let of = |schema: &'s Schema| {
            schema.field(name).or_else(|| schema.field(&unescaped(name)?)).map(Schema::kind)
        };
        match (self, name) {
            (Self::Resource(_), "apiVersion" | "kind") => Some(Kind::Plain(Tag::Text)),
            (Self::Resource(_), "metadata") => Some(Kind::Metadata),
            (Self::Object(schema) | Self::Resource(schema), _) => of(schema),
            (Self::Map(value), _) => Some((**value).clone()),
            (Self::Metadata, "name" | "generateName") => Some(Kind::Plain(Tag::Text)),
            (Self::Metadata, _) => None,
            (Self::Plain(Tag::Optional), _) => Some(Kind::Plain(Tag::Optional)),
            (Self::Plain(Tag::Dyn | Tag::Map), _) => Some(Kind::Plain(Tag::Dyn)),
            (Self::Plain(_) | Self::List(_), _) => None,
        }
    }
}

impl fmt::Display for Kind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.tag() {
            Tag::Dyn => "dyn",
            Tag::Null => "null",
            Tag::Bool => "bool",
            Tag::Int => "int",
            Tag::Uint => "uint",
            Tag::Double => "double",
            Tag::Text => "string",
            Tag::Bytes => "bytes",
            Tag::Duration => "duration",
            Tag::Time => "timestamp",
            Tag::List => "list",
            Tag::Map => "map",
            Tag::Type => "type",
            Tag::Optional => "optional_type",
            Tag::Url => "net.URL",
            Tag::Ip => "net.IP",
            Tag::Cidr => "net.CIDR",
            Tag::Quantity => "kubernetes.Quantity",
            Tag::Format => "kubernetes.NamedFormat",
        })
    }
}

/// The type that a word means where there is no variable of that name.
pub(super) fn type_named(name: &str) -> Option<&'static str> {
    const TYPES: &[&str] =
        &["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];
    TYPES.iter().find(|known| **known == name).copied()
}

/// The function `ip.isCanonical` and the like, by the word before it.
pub(super) fn qualified(target: &IdedExpr, name: &str) -> Option<String> {
    match &target.expr {
        Expr::Ident(word) if matches!(word.as_str(), "ip" | "sets" | "optional" | "format") => {
            Some(format!("{word}.{name}"))
        }
        _ => None,
    }
}

/// Levels.
pub(super) fn depth(expression: &IdedExpr) -> usize {
    let (mut deepest, mut left) = (0, vec![(expression, 1)]);
    while let Some((one, level)) = left.pop() {
        deepest = deepest.max(level);
        left.extend(parts(one).into_iter().map(|part| (part, level + 1)));
    }
    deepest
}

/// Whether the name is in it.
pub(super) fn uses(expression: &IdedExpr, name: &str) -> bool {
    let mut left = vec![expression];
    while let Some(one) = left.pop() {
        if matches!(&one.expr, Expr::Ident(ident) if ident == name) {
            return true;
        }
        left.extend(parts(one));
    }
    false
}

fn parts(expression: &IdedExpr) -> Vec<&IdedExpr> {
    match &expression.expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
        Expr::Call(call) => call.target.iter().map(|target| &**target).chain(&call.args).collect(),
        Expr::Comprehension(of) => {
            vec![&of.iter_range, &of.accu_init, &of.loop_cond, &of.loop_step, &of.result]
        }
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Map(map) => map.entries.iter().flat_map(|entry| of_entry(&entry.expr)).collect(),
        Expr::Struct(of) => of.entries.iter().flat_map(|entry| of_entry(&entry.expr)).collect(),
    }
}

fn of_entry(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
        EntryExpr::StructField(field) => vec![&field.value],
    }
}

/// The kind of the value; compiles the patterns that are written in the expression.
pub(super) fn kind<'s>(
    expression: &IdedExpr,
    variables: &[(&'static str, Kind<'s>)],
    patterns: &mut HashMap<String, Regex>,
) -> Result<Kind<'s>, String> {
    let scope = variables.iter().map(|(name, kind)| ((*name).to_owned(), kind.clone())).collect();
    Checker { scope, patterns }.kind(expression)
}

struct Checker<'s, 'p> {
    scope: Vec<(String, Kind<'s>)>,
    patterns: &'p mut HashMap<String, Regex>,
}

type Checked<'s> = Result<Kind<'s>, String>;

fn plain<'s>(tag: Tag) -> Checked<'s> {
    Ok(Kind::Plain(tag))
}

impl<'s> Checker<'s, '_> {
    fn kind(&mut self, expression: &IdedExpr) -> Checked<'s> {
        match &expression.expr {
            Expr::Literal(literal) => plain(of_literal(literal)),
            Expr::Ident(name) => match self.variable(name) {
                Some(kind) => Ok(kind),
                None if type_named(name).is_some() => plain(Tag::Type),
                None => Err(format!("undeclared reference to '{name}' (in container '')")),
            },
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => {
                let kinds: Result<Vec<Kind<'s>>, String> =
                    list.elements.iter().map(|one| self.kind(one)).collect();
                let mut kinds = kinds?.into_iter();
                let first = kinds.next().filter(|_| list.optional_indices.is_empty());
                let common = first.filter(|first| kinds.all(|other| other.tag() == first.tag()));
                Ok(Kind::List(Box::new(common.unwrap_or(Kind::Plain(Tag::Dyn)))))
            }
            Expr::Map(map) => {
                for part in map.entries.iter().flat_map(|entry| of_entry(&entry.expr)) {
                    self.kind(part)?;
                }
                plain(Tag::Map)
            }
            Expr::Comprehension(of) => self.comprehension(of),
            Expr::Struct(of) => Err(format!("messages cannot be made here ('{}')", of.type_name)),
            Expr::Unspecified => Err("a part of it is missing".into()),
        }
    }

    fn variable(&self, name: &str) -> Option<Kind<'s>> {
        self.scope.iter().rev().find(|(known, _)| known == name).map(|(_, kind)| kind.clone())
    }

    fn select(&mut self, select: &SelectExpr) -> Checked<'s> {
        let operand = self.kind(&select.operand)?;
        let Some(field) = operand.field(&select.field) else {
            return Err(match operand {
                Kind::Object(_) | Kind::Resource(_) | Kind::Metadata => {
                    format!("undefined field '{}'", select.field)
                }
                other => format!("type '{other}' does not support field selection"),
            });
        };
        if select.test { plain(Tag::Bool) } else { Ok(field) }
    }

    fn expect(&mut self, part: &IdedExpr, tag: Tag, operator: &str) -> Result<(), String> {
        let kind = self.kind(part)?;
        if kind.may_be(&Kind::Plain(tag)) { Ok(()) } else { Err(no_overload(operator, &[kind])) }
    }

    fn call(&mut self, call: &CallExpr) -> Checked<'s> {
        let name = call.func_name.as_str();
        match (name, call.args.as_slice()) {
            (operators::LOGICAL_AND | operators::LOGICAL_OR, args) => {
                args.iter().try_for_each(|part| self.expect(part, Tag::Bool, name))?;
                plain(Tag::Bool)
            }
            (operators::LOGICAL_NOT, [part]) => {
                self.expect(part, Tag::Bool, name)?;
                plain(Tag::Bool)
            }
            (operators::CONDITIONAL, [condition, yes, no]) => {
                self.expect(condition, Tag::Bool, name)?;
                let (yes, no) = (self.kind(yes)?, self.kind(no)?);
                if yes.tag() == no.tag() { Ok(yes) } else { plain(Tag::Dyn) }
            }
            (operators::NOT_STRICTLY_FALSE, [part]) => {
                self.kind(part)?;
                plain(Tag::Bool)
            }
            (operators::OPT_SELECT, [operand, _]) => {
                self.kind(operand)?;
                plain(Tag::Optional)
            }
            (operator, args) if operator.contains('_') || operator == operators::IN => {
                self.operator(operator, args)
            }
            _ => self.function(call),
        }
    }

    fn operator(&mut self, name: &str, args: &[IdedExpr]) -> Checked<'s> {
        let kinds: Result<Vec<Kind<'s>>, String> = args.iter().map(|one| self.kind(one)).collect();
        let kinds = kinds?;
        let refused = || Err(no_overload(name, &kinds));
        let number = |tag| matches!(tag, Tag::Int | Tag::Uint | Tag::Double);
        match (name, kinds.as_slice()) {
            (operators::EQUALS | operators::NOT_EQUALS, [a, b]) => {
                let free = |kind: &Kind<'s>| matches!(kind.tag(), Tag::Null | Tag::Optional);
                let fits = a.may_be(b) || free(a) || free(b) || number(a.tag()) && number(b.tag());
                if fits { plain(Tag::Bool) } else { refused() }
            }
            (
                operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS,
                [a, b],
            ) => {
                let ordered = |kind: &Kind<'s>| {
                    number(kind.tag())
                        || matches!(
                            kind.tag(),
                            Tag::Dyn | Tag::Bool | Tag::Text | Tag::Bytes | Tag::Duration | Tag::Time
                        )
                };
                let fits = a.may_be(b) || number(a.tag()) && number(b.tag());
                if fits && ordered(a) && ordered(b) { plain(Tag::Bool) } else { refused() }
            }
            (operators::ADD, [Kind::List(_) | Kind::Plain(Tag::List), Kind::List(_)]) => Ok(kinds[1].clone()),
            (operators::ADD, [a, b]) if (a.tag(), b.tag()) == (Tag::Time, Tag::Duration) => plain(Tag::Time),
            (operators::SUBSTRACT, [a, b]) if (a.tag(), b.tag()) == (Tag::Time, Tag::Duration) => {
                plain(Tag::Time)
            }
            (operators::SUBSTRACT, [a, b]) if (a.tag(), b.tag()) == (Tag::Time, Tag::Time) => {
                plain(Tag::Duration)
            }
            (
                operators::ADD
                | operators::SUBSTRACT
                | operators::MULTIPLY
                | operators::DIVIDE
                | operators::MODULO,
                [a, b],
            ) => match (a.tag(), b.tag()) {
                (Tag::Dyn, other) | (other, Tag::Dyn) => {
                    plain(if other == Tag::List { Tag::List } else { Tag::Dyn })
                }
                (a, b) if a == b && (number(a) || name == operators::ADD) => plain(a),
                (Tag::Duration, Tag::Duration) => plain(Tag::Duration),
                (Tag::Duration, Tag::Time) => plain(Tag::Time),
                _ => refused(),
            },
            (operators::NEGATE, [a]) if a.is_any() || number(a.tag()) => Ok(a.clone()),
            (operators::INDEX, [of, _]) => match of {
                Kind::List(inner) | Kind::Map(inner) => Ok((**inner).clone()),
                other if matches!(other.tag(), Tag::Dyn | Tag::List | Tag::Map | Tag::Optional) => {
                    plain(Tag::Dyn)
                }
                _ => refused(),
            },
            (operators::OPT_INDEX, _) => plain(Tag::Optional),
            (operators::IN, [_, among]) if matches!(among.tag(), Tag::Dyn | Tag::List | Tag::Map) => {
                plain(Tag::Bool)
            }
            _ => refused(),
        }
    }

    fn function(&mut self, call: &CallExpr) -> Checked<'s> {
        let written = call.func_name.as_str();
        let named = call.target.as_ref().and_then(|target| qualified(target, written));
        let named = named.filter(|_| !call.target.as_ref().is_some_and(|target| self.is_variable(target)));
        let target = match (&call.target, &named) {
            (Some(target), None) => Some(self.kind(target)?),
            _ => None,
        };
        let name = named.as_deref().unwrap_or(written);
        let args: Result<Vec<Kind<'s>>, String> = call.args.iter().map(|one| self.kind(one)).collect();
        let args = args?;
        let known: Vec<&Signature> = SIGNATURES.iter().filter(|one| one.name == name).collect();
        if known.is_empty() {
            return Err(format!("undeclared reference to '{name}' (in container '')"));
        }
        let fits = |one: &&&Signature| {
            let on = match &target {
                None => one.on.is_empty(),
                Some(kind) => !one.on.is_empty() && (kind.is_any() || one.on.contains(&kind.tag())),
            };
            on && (one.least..=one.most).contains(&args.len())
        };
        let Some(signature) = known.iter().find(fits) else {
            let all: Vec<Kind<'s>> = target.into_iter().chain(args).collect();
            return Err(no_overload(name, &all));
        };
        if matches!(name, "matches" | "find" | "findAll") {
            self.keep_pattern(if target.is_some() { call.args.first() } else { call.args.get(1) })?;
        }
        match (name, &target) {
            ("split" | "findAll", _) => Ok(Kind::List(Box::new(Kind::Plain(Tag::Text)))),
            ("min" | "max" | "sum", Some(Kind::List(item))) => Ok((**item).clone()),
            _ => plain(signature.gives),
        }
    }

    fn is_variable(&self, expression: &IdedExpr) -> bool {
        matches!(&expression.expr, Expr::Ident(name) if self.variable(name).is_some())
    }

    fn keep_pattern(&mut self, argument: Option<&IdedExpr>) -> Result<(), String> {
        if let Some(Expr::Literal(LiteralValue::String(text))) = argument.map(|argument| &argument.expr) {
            let compiled = super::pattern(text.inner())?;
            self.patterns.insert(text.inner().to_owned(), compiled);
        }
        Ok(())
    }

    fn comprehension(&mut self, of: &ComprehensionExpr) -> Checked<'s> {
        if of.iter_var2.is_some() {
            return Err(
                "comprehensions with two variables are not supported by Lateen's embedded API server".into(),
            );
        }
        let range = self.kind(&of.iter_range)?;
        let item = match &range {
            Kind::List(item) => (**item).clone(),
            Kind::Map(_) => Kind::Plain(Tag::Text),
            other if matches!(other.tag(), Tag::Dyn | Tag::List | Tag::Map) => Kind::Plain(Tag::Dyn),
            other => {
                let why = "cannot be range of a comprehension (must be list, map, or dynamic)";
                return Err(format!("expression of type '{other}' {why}"));
            }
        };
        let depth = self.scope.len();
        let start = self.kind(&of.accu_init)?;
        self.scope.push((of.accu_var.clone(), start));
        self.scope.push((of.iter_var.clone(), item));
        self.kind(&of.loop_cond)?;
        let gathered = self.kind(&of.loop_step)?;
        self.scope.truncate(depth);
        self.scope.push((of.accu_var.clone(), gathered));
        let result = self.kind(&of.result);
        self.scope.truncate(depth);
        result
    }
}

fn no_overload(name: &str, kinds: &[Kind<'_>]) -> String {
    let listed: Vec<String> = kinds.iter().map(Kind::to_string).collect();
    format!("found no matching overload for '{name}' applied to '({})'", listed.join(", "))
}

fn of_literal(literal: &LiteralValue) -> Tag {
    match literal {
        LiteralValue::Boolean(_) => Tag::Bool,
        LiteralValue::Bytes(_) => Tag::Bytes,
        LiteralValue::Double(_) => Tag::Double,
        LiteralValue::Int(_) => Tag::Int,
        LiteralValue::Null => Tag::Null,
        LiteralValue::String(_) => Tag::Text,
        LiteralValue::UInt(_) => Tag::Uint,
    }
}
