use proptest::prelude::*;
use serde_json::json;

use super::*;

fn schema() -> Schema {
    Schema::compile(&json!({
        "type": "object",
        "properties": {"spec": {
            "type": "object",
            "required": ["port"],
            "properties": {
                "port": {"type": "integer", "minimum": 1, "maximum": 65535},
                "mode": {"type": "string", "enum": ["A", "B"], "default": "A"},
                "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
                "target": {"x-kubernetes-int-or-string": true},
                "tags": {"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}}},
                "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "map": {"type": "object", "additionalProperties": {"type": "string"}},
            },
            "oneOf": [{"not": {"required": ["name"]}}, {"required": ["name"]}],
        }},
    }))
    .unwrap()
}

#[test]
fn unknown_fields_go_and_defaults_come() {
    let mut value = json!({
        "apiVersion": "x/v1", "kind": "K", "metadata": {"anything": 1},
        "spec": {"port": 1, "prot": 2, "tags": [{"k": "v", "z": 1}], "any": {"free": 1}, "map": {"a": "b"}},
    });
    let schema = schema();
    assert_eq!(schema.prune(&mut value), ["spec.prot", "spec.tags[0].z"]);
    schema.fill(&mut value);
    let spec = json!({"port": 1, "tags": [{"k": "v"}], "any": {"free": 1}, "map": {"a": "b"}, "mode": "A"});
    assert_eq!(value["spec"], spec);
    assert!(schema.causes(&value).is_empty());
}

#[test]
fn bad_values_are_named_by_their_path() {
    for (spec, field) in [
        (json!({}), "spec.port"),
        (json!({"port": 0}), "spec.port"),
        (json!({"port": "80"}), "spec.port"),
        (json!({"port": 1, "mode": "C"}), "spec.mode"),
        (json!({"port": 1, "name": "Abc"}), "spec.name"),
        (json!({"port": 1, "name": "abcdef"}), "spec.name"),
        (json!({"port": 1, "target": true}), "spec.target"),
        (json!({"port": 1, "map": {"a": 1}}), "spec.map.a"),
        (json!({"port": 1, "tags": [{"k": null}]}), "spec.tags[0].k"),
    ] {
        let causes = schema().causes(&json!({"spec": spec}));
        assert_eq!(causes.len(), 1, "{spec}: {causes:?}");
        assert_eq!(causes[0].field, field, "{spec}");
    }
}

proptest! {
    #[test]
    fn pruning_and_filling_are_idempotent(port in 0..9, extra in "[a-z]{1,6}", value in any::<u8>()) {
        let schema = schema();
        let mut object = json!({"spec": {"port": port, extra: value}});
        schema.prune(&mut object);
        schema.fill(&mut object);
        let once = object.clone();
        prop_assert!(schema.prune(&mut object).is_empty());
        schema.fill(&mut object);
        prop_assert_eq!(once, object);
    }
}
