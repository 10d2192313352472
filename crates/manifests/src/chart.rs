//! A Helm chart of an installation, from the same source as its manifests.

use serde_json::{Value, json};

use crate::{Installation, InstallationError, render};

/// What is rendered in the place of a value, and what Helm puts there.
const PLACEHOLDERS: &[(&str, &str, &str)] = &[
    ("hub", "lateen-chart.invalid/hub", "{{ .Values.global.hub }}"),
    ("tag", "lateen-chart-tag", "{{ .Values.global.tag }}"),
    ("namespace", "lateen-chart-namespace", "{{ .Release.Namespace }}"),
];

/// Behind the name of the injector's webhooks, which is plain in the usual namespace.
const SUFFIX: &str = "{{ if ne .Release.Namespace \"istio-system\" }}-{{ .Release.Namespace }}{{ end }}";

/// A file of a chart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChartFile {
    /// Its path in the chart.
    pub path: String,
    /// What it has.
    pub text: String,
}

/// The chart of the installation that these files and flags describe. The hub and tag of images are its values, the
/// namespace is the release's; everything else is as it was rendered.
///
/// # Errors
/// As [`Installation::build`] and [`render`].
pub fn chart(files: &[Value], sets: &[String]) -> Result<Vec<ChartFile>, InstallationError> {
    let plain = Installation::build(files, sets)?;
    let mut all = sets.to_vec();
    all.extend(PLACEHOLDERS.iter().map(|(key, placeholder, _)| format!("{key}={placeholder}")));
    let installation = Installation::build(files, &all)?;
    let injector = installation.revisioned("istio-sidecar-injector");
    let mut chart = vec![
        file("Chart.yaml", &description(&plain)),
        file("values.yaml", &json!({ "global": { "hub": plain.hub(), "tag": plain.tag() } })),
    ];
    for part in render(&installation)? {
        let (definitions, objects): (Vec<&Value>, Vec<&Value>) =
            part.objects.iter().partition(|object| object["kind"] == "CustomResourceDefinition");
        if !definitions.is_empty() {
            chart.push(ChartFile { path: "crds/istio.yaml".into(), text: documents(&definitions, None) });
        }
        let path = format!("templates/{}.yaml", part.part.label().to_lowercase());
        chart.push(ChartFile { path, text: documents(&objects, Some(&injector)) });
    }
    Ok(chart)
}

fn description(installation: &Installation) -> Value {
    json!({
        "apiVersion": "v2",
        "name": "lateen",
        "description": format!("The mesh, profile {}", installation.profile()),
        "type": "application",
        "version": env!("CARGO_PKG_VERSION"),
        "appVersion": installation.tag(),
    })
}

fn file(path: &str, value: &Value) -> ChartFile {
    ChartFile { path: path.to_owned(), text: crate::control_plane::yaml(value) }
}

/// The objects as templates, given the name of the injector's webhooks; else as they are.
fn documents(objects: &[&Value], injector: Option<&str>) -> String {
    let mut text = String::new();
    for object in objects {
        text.push_str("---\n");
        text.push_str(&crate::control_plane::yaml(object));
    }
    let Some(injector) = injector else {
        // What is no template only has the tag, in a label.
        return text.replace(PLACEHOLDERS[1].1, env!("CARGO_PKG_VERSION"));
    };
    // Braces of our own, in texts of ConfigMaps, are not Helm's.
    text = text.replace("{{", "{{ \"{{\" }}");
    text = text.replace(&format!("{injector}-{}", PLACEHOLDERS[2].1), &format!("{injector}{SUFFIX}"));
    for (_, placeholder, action) in PLACEHOLDERS {
        text = text.replace(placeholder, action);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_in_chart_is_the_installation() {
        let sets = ["profile=demo".to_owned()];
        let chart = chart(&[], &sets).unwrap();
        let filled = |text: &str| {
            let text = text.replace(SUFFIX, "").replace("{{ .Values.global.hub }}", "docker.io/istio");
            let text = text.replace("{{ .Values.global.tag }}", "1.26.0");
            text.replace("{{ .Release.Namespace }}", "istio-system").replace("{{ \"{{\" }}", "{{")
        };
        let templates = chart.iter().filter(|file| file.path.starts_with("templates/"));
        let got: Vec<Value> = templates
            .flat_map(|file| serde_saphyr::from_multiple::<Value>(&filled(&file.text)).unwrap())
            .filter(Value::is_object)
            .collect();
        let installation = Installation::build(&[], &sets).unwrap();
        let want: Vec<Value> = render(&installation)
            .unwrap()
            .into_iter()
            .flat_map(|part| part.objects)
            .filter(|object| object["kind"] != "CustomResourceDefinition")
            .collect();
        assert_eq!(got.len(), want.len());
        for (got, want) in got.iter().zip(&want) {
            assert_eq!(got, want);
        }
        assert!(chart.iter().all(|file| !file.text.contains("lateen-chart")), "a placeholder is left");
        let values = chart.iter().find(|file| file.path == "values.yaml").unwrap();
        assert!(values.text.contains("hub: docker.io/istio"));
    }
}
