//! Rules of schemas (`x-kubernetes-validations`,
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules>).

use serde_json::Value;

use super::{Bad, ListKind, Schema};
use crate::cel::{Budget, Fault, Kind, Program, Tag, Val};
use crate::status::Cause;

/// What all rules of one object may cost.
const PER_OBJECT: u64 = 5_000_000;
/// A longer message is not the rule's to give.
const LONGEST_MESSAGE: usize = 5 << 10;

/// One rule.
#[derive(Debug)]
pub(crate) struct Rule {
    rule: Program,
    message: String,
    message_expression: Option<Program>,
    reason: Reason,
    /// Path below the rule's place, e.g. `.port`.
    field: String,
    /// It speaks of the state before, so it waits for one.
    transition: bool,
    /// `optionalOldSelf`: it does not wait.
    optional_old: bool,
}

#[derive(Debug, Clone, Copy)]
enum Reason {
    Invalid,
    Forbidden,
    Required,
    Duplicate,
}

impl Rule {
    /// `resource`: the schema is that of a whole object.
    pub(super) fn compile(source: &Value, schema: &Schema, resource: bool) -> Result<Self, Bad> {
        let bad =
            |field: &str, why: String| Bad { path: format!(".{field}"), value: source[field].clone(), why };
        let this = || if resource { Kind::Resource(schema) } else { schema.kind() };
        let optional_old = source["optionalOldSelf"] == true;
        let old = if optional_old { Kind::Plain(Tag::Optional) } else { this() };
        let variables = [("self", this()), ("oldSelf", old)];
        let compile = |field: &str, wanted: Tag| {
            let text = source[field].as_str().unwrap_or_default();
            Program::compile(text, &variables, &Kind::Plain(wanted))
                .map_err(|why| bad(field, format!("compilation failed: {why}")))
        };
        let rule = compile("rule", Tag::Bool)?;
        let has_message = !source["messageExpression"].is_null();
        let message_expression = has_message.then(|| compile("messageExpression", Tag::Text)).transpose()?;
        let reason = match source["reason"].as_str() {
            None | Some("" | "FieldValueInvalid") => Reason::Invalid,
            Some("FieldValueForbidden") => Reason::Forbidden,
            Some("FieldValueRequired") => Reason::Required,
            Some("FieldValueDuplicate") => Reason::Duplicate,
            Some(_) => {
                let why =
                    "want FieldValueInvalid, FieldValueForbidden, FieldValueRequired or FieldValueDuplicate";
                return Err(bad("reason", why.into()));
            }
        };
        let field = source["fieldPath"].as_str().unwrap_or_default().to_owned();
        if !field.is_empty() && !names_field(&field, schema) {
            return Err(bad("fieldPath", "must be the path of a field in the schema, such as .a.b".into()));
        }
        let transition = rule.uses("oldSelf");
        if optional_old && !transition {
            return Err(bad("optionalOldSelf", "may not be set if oldSelf is not used in rule".into()));
        }
        let message = source["message"].as_str().unwrap_or_default().trim().to_owned();
        if message.contains('\n') {
            return Err(bad("message", "must not contain line breaks".into()));
        }
        Ok(Self { rule, message, message_expression, reason, field, transition, optional_old })
    }

    fn cause(&self, message: String, kind: &'static str, path: &str) -> Cause {
        let field = format!("{path}{}", self.field);
        let field = field.strip_prefix('.').unwrap_or(&field).to_owned();
        let field = if field.is_empty() { "<nil>".to_owned() } else { field };
        let shown = Value::from(kind);
        match self.reason {
            Reason::Invalid => Cause::invalid(field, &shown, message),
            Reason::Forbidden => Cause::forbidden(field, &message),
            Reason::Required => Cause::required(field, &message),
            Reason::Duplicate => {
                Cause { reason: "FieldValueDuplicate", message: format!("Duplicate value: {shown}"), field }
            }
        }
    }

    fn message<'a>(&'a self, variables: &[(&'a str, Val<'a>)], budget: &Budget) -> String {
        let told = self.message_expression.as_ref().and_then(|told| match told.run(variables, budget) {
            Ok(Val::Text(text)) => Some(text.trim().to_owned()),
            _ => None,
        });
        let told =
            told.filter(|text| !text.is_empty() && text.len() <= LONGEST_MESSAGE && !text.contains('\n'));
        told.unwrap_or_else(|| self.plain_message())
    }

    fn plain_message(&self) -> String {
        if self.message.is_empty() {
            format!("failed rule: {}", self.rule.source().trim())
        } else {
            self.message.clone()
        }
    }
}

/// `.a['b'].c` below the schema.
fn names_field(path: &str, schema: &Schema) -> bool {
    let (mut rest, mut at) = (path, Some(schema));
    while !rest.is_empty() {
        let name;
        if let Some(after) = rest.strip_prefix("['") {
            let Some((quoted, after)) = after.split_once("']") else { return false };
            (name, rest) = (quoted, after);
        } else if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[']).unwrap_or(after.len());
            (name, rest) = after.split_at(end);
        } else {
            return false;
        }
        at = at.and_then(|schema| schema.field(name));
    }
    at.is_some()
}

impl Schema {
    /// What the rules say against the object. `old` is what it replaces. The rest of the schema holds.
    pub(crate) fn rule_causes(&self, value: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = Vec::new();
        if self.ruled {
            let mut walk = Walk { budget: Budget::new(PER_OBJECT), causes: &mut causes, over: false };
            walk.check(self, value, old, "");
        }
        causes
    }
}

struct Walk<'c> {
    budget: Budget,
    causes: &'c mut Vec<Cause>,
    /// Nothing more is looked at.
    over: bool,
}

impl Walk<'_> {
    fn check(&mut self, schema: &Schema, value: &Value, old: Option<&Value>, path: &str) {
        if !schema.ruled || self.over || value.is_null() {
            return;
        }
        // What did not change was let in before: only rules about the change are asked.
        let unchanged = old.is_some_and(|old| old == value);
        for rule in &schema.rules {
            if !self.over && (!unchanged || rule.transition) {
                self.ask(rule, schema, value, old, path);
            }
        }
        match value {
            Value::Object(map) => {
                for (name, inner) in map {
                    let Some(field) = schema.field(name) else { continue };
                    let before = old.and_then(|old| old.get(name)).filter(|old| !old.is_null());
                    let at =
                        if schema.names(name) { format!("{path}.{name}") } else { format!("{path}[{name}]") };
                    self.check(field, inner, before.filter(|_| !schema.is_whole()), &at);
                }
            }
            Value::Array(items) => {
                let Some(item) = schema.item() else { return };
                let before = old.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                for (index, inner) in items.iter().enumerate() {
                    let before = match schema.list() {
                        ListKind::Map(keys) => {
                            before.iter().find(|other| keys.iter().all(|key| other[key] == inner[key]))
                        }
                        ListKind::Atomic | ListKind::Set => None,
                    };
                    self.check(item, inner, before, &format!("{path}[{index}]"));
                }
            }
            _ => {}
        }
    }

    fn ask(&mut self, rule: &Rule, schema: &Schema, value: &Value, old: Option<&Value>, path: &str) {
        let before = old.map(|old| Val::of(old, Some(schema)));
        let before = match (before, rule.optional_old) {
            (before, true) => Some(Val::optional(before)),
            (None, false) if rule.transition => return,
            (before, false) => before,
        };
        let mut variables = vec![("self", Val::of(value, Some(schema)))];
        variables.extend(before.map(|before| ("oldSelf", before)));
        let kind = schema.type_name();
        match rule.rule.run(&variables, &self.budget) {
            Ok(Val::Bool(true)) => {}
            Ok(_) => {
                let message = rule.message(&variables, &self.budget);
                self.causes.push(rule.cause(message, kind, path));
            }
            Err(Fault::Error(why)) => {
                let why = format!("{why} evaluating rule: {}", rule.plain_message());
                self.causes.push(rule.cause(why, kind, path));
            }
            Err(Fault::Cost) => {
                self.over = true;
                let why = if self.budget.left() == 0 {
                    "validation failed due to running out of cost budget, no further validation rules will be run".into()
                } else {
                    format!(
                        "{}: call cost exceeds limit; no further validation rules will be run",
                        rule.plain_message()
                    )
                };
                self.causes.push(rule.cause(why, kind, path));
            }
        }
    }
}
