//! CustomResourceDefinitions: checking one, and the rows of the catalog it stands for.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::catalog::priority;
use crate::jsonpath::JsonPath;
use crate::resource::{CustomVersion, Origin, PrinterColumn, Resource, ResourceName, Scale};
use crate::schema::Schema;
use crate::status::Cause;

/// The served versions of a definition, or what is wrong with it.
pub(crate) fn resources(definition: &Value) -> Result<Vec<Resource>, Vec<Cause>> {
    let spec = &definition["spec"];
    let mut causes = Vec::new();
    for path in ["group", "scope", "names.plural", "names.kind"] {
        let found = path.split('.').fold(spec, |at, step| &at[step]);
        if found.as_str().unwrap_or_default().is_empty() {
            causes.push(Cause::required(format!("spec.{path}"), ""));
        }
    }
    let scope = &spec["scope"];
    if scope.is_string() && !matches!(scope.as_str(), Some("Namespaced" | "Cluster")) {
        causes.push(Cause::not_supported("spec.scope", scope, &["Cluster".into(), "Namespaced".into()]));
    }
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if versions.iter().filter(|v| v["storage"] == true).count() != 1 {
        causes.push(Cause::invalid(
            "spec.versions",
            &spec["versions"],
            "must have exactly one version marked as storage version",
        ));
    }
    if spec["conversion"]["strategy"] == "Webhook" {
        causes.push(Cause::not_supported("spec.conversion.strategy", &json!("Webhook"), &["None".into()]));
    }
    let mut rows = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        match row(spec, version, &format!("spec.versions[{index}]")) {
            Ok(row) if version["served"] == true => rows.push(row),
            Ok(_) => {}
            Err(cause) => causes.push(cause),
        }
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let expected = format!("{}.{}", text(&spec["names"]["plural"]), text(&spec["group"]));
    if crate::object::name(definition) != expected {
        let why = format!("must be spec.names.plural+\".\"+spec.group ({expected})");
        causes.push(Cause::invalid("metadata.name", &definition["metadata"]["name"], why));
    }
    if crate::builtin::resources().iter().any(|r| r.name.as_str() == expected) {
        causes.push(Cause::forbidden("spec.group", "the resource is built in"));
    }
    rows.sort_by_key(|r| std::cmp::Reverse(priority(&r.version)));
    if causes.is_empty() { Ok(rows) } else { Err(causes) }
}

/// Fills in names and the status: every correct definition is established at once, since the server serves it from the
/// moment of the write.
pub(crate) fn complete(definition: &mut Value) {
    let names = crate::object::child_mut(definition, "spec").entry("names").or_insert_with(|| json!({}));
    let kind = names["kind"].as_str().unwrap_or_default().to_owned();
    if let Some(names) = names.as_object_mut() {
        names.entry("singular").or_insert_with(|| json!(kind.to_lowercase()));
        names.entry("listKind").or_insert_with(|| json!(format!("{kind}List")));
    }
    let names = names.clone();
    let spec = crate::object::child_mut(definition, "spec");
    spec.entry("conversion").or_insert_with(|| json!({"strategy": "None"}));
    let storage = spec["versions"].as_array().into_iter().flatten().find(|v| v["storage"] == true);
    let storage = storage.map(|v| v["name"].clone()).unwrap_or_default();
    let old = definition["status"].clone();
    let since = |kind: &str| {
        let conditions = old["conditions"].as_array().into_iter().flatten();
        let found = conditions.filter(|c| c["type"] == kind).find_map(|c| c["lastTransitionTime"].as_str());
        found.map_or_else(crate::api::now, str::to_owned)
    };
    let mut stored: Vec<Value> = old["storedVersions"].as_array().cloned().unwrap_or_default();
    if !stored.contains(&storage) {
        stored.push(storage);
    }
    definition["status"] = json!({
        "acceptedNames": names,
        "storedVersions": stored,
        "conditions": [
            {"type": "NamesAccepted", "status": "True", "reason": "NoConflicts", "message": "no conflicts found",
             "lastTransitionTime": since("NamesAccepted")},
            {"type": "Established", "status": "True", "reason": "InitialNamesAccepted",
             "message": "the initial names have been accepted", "lastTransitionTime": since("Established")},
        ],
    });
}

fn row(spec: &Value, version: &Value, path: &str) -> Result<Resource, Cause> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
    let names = &spec["names"];
    let (group, kind, name) = (text(&spec["group"]), text(&names["kind"]), text(&version["name"]));
    let singular =
        Some(text(&names["singular"])).filter(|s| !s.is_empty()).unwrap_or_else(|| kind.to_lowercase());
    let list_kind =
        Some(text(&names["listKind"])).filter(|s| !s.is_empty()).unwrap_or_else(|| format!("{kind}List"));
    let schema = Schema::compile(&version["schema"]["openAPIV3Schema"]).map_err(|bad| {
        Cause::invalid(format!("{path}.schema.openAPIV3Schema{}", bad.path), &bad.value, bad.why)
    })?;
    let deprecation = (version["deprecated"] == true).then(|| {
        let said = version["deprecationWarning"].as_str().map(str::to_owned);
        said.unwrap_or_else(|| format!("{group}/{name} {kind} is deprecated"))
    });
    let custom = CustomVersion { schema, columns: columns(version, path)?, deprecation };
    Ok(Resource {
        name: ResourceName::new(&group, &text(&names["plural"])),
        group,
        version: name,
        singular,
        kind,
        list_kind,
        short_names: list(&names["shortNames"]),
        categories: list(&names["categories"]),
        namespaced: spec["scope"] == "Namespaced",
        status: version["subresources"]["status"].is_object(),
        scale: scale(&version["subresources"]["scale"]),
        generation: true,
        origin: Origin::Custom(Arc::new(custom)),
    })
}

fn scale(value: &Value) -> Option<Scale> {
    let path = |key: &str| -> Option<Vec<String>> {
        Some(value[key].as_str()?.trim_start_matches('.').split('.').map(str::to_owned).collect())
    };
    Some(Scale {
        spec_replicas: path("specReplicasPath")?,
        status_replicas: path("statusReplicasPath")?,
        selector: path("labelSelectorPath"),
    })
}

fn columns(version: &Value, path: &str) -> Result<Vec<PrinterColumn>, Cause> {
    let given = version["additionalPrinterColumns"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut columns = Vec::new();
    for (index, column) in given.iter().enumerate() {
        let text = |key: &str| column[key].as_str().unwrap_or_default().to_owned();
        let at = format!("{path}.additionalPrinterColumns[{index}].jsonPath");
        let json_path =
            JsonPath::parse(&text("jsonPath")).map_err(|why| Cause::invalid(at, &column["jsonPath"], why))?;
        columns.push(PrinterColumn {
            name: text("name"),
            kind: text("type"),
            format: text("format"),
            description: text("description"),
            priority: column["priority"].as_i64().unwrap_or(0),
            json_path,
        });
    }
    if columns.is_empty() {
        // What Kubernetes shows for a definition without columns.
        columns.push(PrinterColumn {
            name: "Age".into(),
            kind: "date".into(),
            format: String::new(),
            description: "Time since the object was created".into(),
            priority: 0,
            json_path: JsonPath::parse(".metadata.creationTimestamp")
                .map_err(|why| Cause::invalid(path, &Value::Null, why))?,
        });
    }
    Ok(columns)
}
