//! OpenAPI v3 schemas, structural as Kubernetes wants them.

use serde_json::{Map, Value, json};

use super::{Rule, json_name};

/// A schema under construction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schema(pub Map<String, Value>);

impl Schema {
    /// The schema of a JSON type.
    pub fn of(json_type: &str) -> Self {
        Self::default().with("type", json_type)
    }

    /// With the keyword `key`.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// With a description, unless it is empty.
    pub fn described(self, doc: &str) -> Self {
        let doc = doc.trim();
        if doc.is_empty() { self } else { self.with("description", doc) }
    }

    fn ruled(mut self, rules: &[Rule]) -> Self {
        for rule in rules {
            self.apply(rule);
        }
        self
    }

    fn apply(&mut self, rule: &Rule) {
        let (key, value): (&str, Value) = match rule {
            Rule::Required | Rule::SnakeCaseToo => return,
            Rule::Min(n) => ("minimum", json!(n)),
            Rule::Max(n) => ("maximum", json!(n)),
            Rule::MinLength(n) => ("minLength", json!(n)),
            Rule::MaxLength(n) => ("maxLength", json!(n)),
            Rule::MinItems(n) => ("minItems", json!(n)),
            Rule::MaxItems(n) => ("maxItems", json!(n)),
            Rule::MinEntries(n) => ("minProperties", json!(n)),
            Rule::MaxEntries(n) => ("maxProperties", json!(n)),
            Rule::Pattern(pattern) => ("pattern", json!(pattern)),
            Rule::Nullable => ("nullable", json!(true)),
            Rule::ListKey(key) => {
                self.0.insert("x-kubernetes-list-map-keys".to_owned(), json!([key]));
                ("x-kubernetes-list-type", json!("map"))
            }
            Rule::Each(rules) => return self.apply_each(rules),
            Rule::OneOf(fields) => return self.apply_one_of(fields),
            Rule::Cel { rule, message, .. } => {
                let entry = self.0.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
                if let Value::Array(list) = entry {
                    list.push(json!({"rule": rule, "message": message}));
                }
                return;
            }
        };
        self.0.insert(key.to_owned(), value);
    }

    fn apply_each(&mut self, rules: &[Rule]) {
        for key in ["items", "additionalProperties"] {
            if let Some(Value::Object(inner)) = self.0.remove(key) {
                self.0.insert(key.to_owned(), Schema(inner).ruled(rules).into());
            }
        }
    }

    /// `oneOf`, and none of them; a second group moves both below `allOf`.
    fn apply_one_of(&mut self, fields: &[&str]) {
        let required = |name: &&str| json!({"required": [json_name(name)]});
        let each: Vec<Value> = fields.iter().map(required).collect();
        let mut group = vec![json!({"not": {"anyOf": each}})];
        group.extend(each);
        let group = json!(group);
        if let Some(Value::Array(all)) = self.0.get_mut("allOf") {
            all.push(json!({"oneOf": group}));
        } else if let Some(first) = self.0.remove("oneOf") {
            self.0.insert("allOf".to_owned(), json!([{"oneOf": first}, {"oneOf": group}]));
        } else {
            self.0.insert("oneOf".to_owned(), group);
        }
    }
}

impl From<Schema> for Value {
    fn from(schema: Schema) -> Self {
        Value::Object(schema.0)
    }
}

/// One field of a message, or one variant of a oneof, as declared.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    /// The protobuf name.
    pub name: &'static str,
    /// What the documentation says.
    pub doc: &'static str,
    /// Its rules.
    pub rules: &'static [Rule],
    /// Its type's schema.
    pub schema: fn() -> Schema,
}

/// The values of an enum: JSON name, number.
pub type Variants = &'static [(&'static str, i64)];

/// The schema of a message.
pub fn message_schema(doc: &str, fields: &[Declared], rules: &[Rule]) -> Schema {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in fields {
        let name = json_name(field.name);
        let schema = (field.schema)().described(field.doc).ruled(field.rules);
        if field.rules.iter().any(|rule| matches!(rule, Rule::SnakeCaseToo)) {
            properties.insert(field.name.to_owned(), schema.clone().into());
        }
        if field.rules.iter().any(|rule| matches!(rule, Rule::Required)) {
            required.push(Value::String(name.clone()));
        }
        properties.insert(name, schema.into());
    }
    let mut schema = Schema::of("object").described(doc).with("properties", properties);
    if !required.is_empty() {
        schema = schema.with("required", required);
    }
    schema.ruled(rules)
}

/// The schema of a message that is one oneof.
pub fn oneof_schema(doc: &str, variants: &[Declared]) -> Schema {
    let names: Vec<&str> = variants.iter().map(|v| v.name).collect();
    let mut schema = message_schema(doc, variants, &[]);
    schema.apply_one_of(&names);
    schema
}

/// The schema of an enum.
pub fn string_enum(doc: &str, variants: Variants) -> Schema {
    let names: Vec<Value> = variants.iter().map(|(name, _)| json!(name)).collect();
    Schema::of("string").described(doc).with("enum", names)
}
