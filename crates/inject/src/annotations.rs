//! The annotations by which a pod has its say.

use std::net::IpAddr;

use serde_json::{Map, Value};

use crate::InjectError;
use crate::quantity::{is_quantity, value};

/// Annotations that are amounts: request and limit of the processor, then of memory.
const AMOUNTS: [&str; 4] = [
    "sidecar.istio.io/proxyCPU",
    "sidecar.istio.io/proxyCPULimit",
    "sidecar.istio.io/proxyMemory",
    "sidecar.istio.io/proxyMemoryLimit",
];

/// Annotations that are numbers.
const NUMBERS: [&str; 3] = [
    "readiness.status.sidecar.istio.io/failureThreshold",
    "readiness.status.sidecar.istio.io/initialDelaySeconds",
    "readiness.status.sidecar.istio.io/periodSeconds",
];

/// A pod's annotations.
#[derive(Clone, Copy)]
pub(crate) struct Annotations<'a>(&'a Value);

impl<'a> Annotations<'a> {
    pub(crate) fn of(pod: &'a Value) -> Self {
        Self(&pod["metadata"]["annotations"])
    }

    /// The text of an annotation.
    pub(crate) fn text(self, name: &str) -> Option<&'a str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// The text of an annotation, else what holds without.
    pub(crate) fn or(self, name: &str, default: impl Into<String>) -> String {
        self.text(name).map_or_else(|| default.into(), str::to_owned)
    }

    /// An annotation that is true or false.
    pub(crate) fn flag(self, name: &'static str) -> Result<Option<bool>, InjectError> {
        match self.text(name) {
            None | Some("") => Ok(None),
            Some("true" | "True" | "TRUE" | "1" | "t" | "T") => Ok(Some(true)),
            Some("false" | "False" | "FALSE" | "0" | "f" | "F") => Ok(Some(false)),
            Some(other) => Err(bad(name, format!("{other:?}: write true or false"))),
        }
    }

    /// An annotation that is YAML or JSON.
    pub(crate) fn yaml(self, name: &'static str) -> Result<Option<Value>, InjectError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        serde_saphyr::from_str(text).map(Some).map_err(|error| bad(name, error.to_string()))
    }

    /// Volumes or mounts: a list of them with names, or an object by their names. Keys may be of any case, as Go's
    /// JSON reads them.
    pub(crate) fn named(self, name: &'static str, known: &[&str]) -> Result<Vec<Value>, InjectError> {
        let items = match self.yaml(name)? {
            None => return Ok(vec![]),
            Some(Value::Array(items)) => items,
            Some(Value::Object(items)) => items
                .into_iter()
                .map(|(name, mut item)| {
                    if let Some(item) = item.as_object_mut() {
                        item.insert("name".to_owned(), Value::String(name));
                    }
                    item
                })
                .collect(),
            Some(other) => return Err(bad(name, format!("{other}: write a list, or an object by name"))),
        };
        let read = |item: Value| match item {
            Value::Object(fields) => Ok(Value::Object(recased(fields, known))),
            other => Err(bad(name, format!("{other} is no object"))),
        };
        items.into_iter().map(read).collect()
    }

    /// Checks what goes into rules of the kernel, and what the API server would refuse without naming the annotation.
    pub(crate) fn check(self) -> Result<(), InjectError> {
        self.check_amounts()?;
        // Each with the name of the value that holds where the annotation is missing.
        for (name, value) in [
            ("traffic.sidecar.istio.io/includeOutboundIPRanges", "includeIPRanges"),
            ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "excludeIPRanges"),
        ] {
            let wildcard = value == "includeIPRanges";
            for range in self.parts(name) {
                if !(is_range(range) || wildcard && range == "*") {
                    let example = "such as 10.0.0.0/8";
                    return Err(bad(name, format!("{value}: {range:?} is no range of addresses, {example}")));
                }
            }
        }
        for (name, value) in [
            ("traffic.sidecar.istio.io/includeInboundPorts", "includeInboundPorts"),
            ("traffic.sidecar.istio.io/excludeInboundPorts", "excludeInboundPorts"),
            ("traffic.sidecar.istio.io/includeOutboundPorts", "includeOutboundPorts"),
            ("traffic.sidecar.istio.io/excludeOutboundPorts", "excludeOutboundPorts"),
        ] {
            let wildcard = value == "includeInboundPorts";
            for port in self.parts(name) {
                if !(port.parse::<u16>().is_ok() || wildcard && port == "*") {
                    return Err(bad(name, format!("{value}: {port:?} is no port")));
                }
            }
        }
        let name = "status.sidecar.istio.io/port";
        match self.text(name) {
            Some(port) if port.parse::<u16>().is_err() => Err(bad(name, format!("{port:?} is no port"))),
            _ => Ok(()),
        }
    }

    fn check_amounts(self) -> Result<(), InjectError> {
        for name in AMOUNTS {
            match self.text(name) {
                Some(amount) if !is_quantity(amount) => {
                    return Err(bad(name, format!("{amount:?} is no amount, such as 100m, 0.5 or 128Mi")));
                }
                _ => {}
            }
        }
        for (request, limit) in [(AMOUNTS[0], AMOUNTS[1]), (AMOUNTS[2], AMOUNTS[3])] {
            if let (Some(least), Some(most)) = (self.text(request), self.text(limit))
                && value(least) > value(most)
            {
                return Err(bad(request, format!("{least} is more than the limit, {most} ({limit})")));
            }
        }
        for name in NUMBERS {
            match self.text(name) {
                Some(number) if number.parse::<u32>().is_err() => {
                    return Err(bad(name, format!("{number:?} is no number")));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn parts(self, name: &str) -> impl Iterator<Item = &'a str> {
        let text = self.text(name).unwrap_or_default();
        text.split(',').map(str::trim).filter(|part| !part.is_empty())
    }
}

fn is_range(text: &str) -> bool {
    match text.split_once('/') {
        None => text.parse::<IpAddr>().is_ok(),
        Some((address, bits)) => match (address.parse::<IpAddr>(), bits.parse::<u8>()) {
            (Ok(IpAddr::V4(_)), Ok(bits)) => bits <= 32,
            (Ok(IpAddr::V6(_)), Ok(bits)) => bits <= 128,
            _ => false,
        },
    }
}

fn recased(fields: Map<String, Value>, known: &[&str]) -> Map<String, Value> {
    fields
        .into_iter()
        .map(|(key, value)| match known.iter().find(|name| name.eq_ignore_ascii_case(&key)) {
            Some(name) => ((*name).to_owned(), value),
            None => (key, value),
        })
        .collect()
}

pub(crate) fn bad(name: &'static str, message: impl Into<String>) -> InjectError {
    InjectError::Annotation { name, message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(name: &str, text: &str) -> Result<(), String> {
        let pod = json!({"metadata": {"annotations": {name: text}}});
        Annotations::of(&pod).check().map_err(|error| error.to_string())
    }

    #[test]
    fn amounts_that_are_none_are_refused_by_name() {
        assert_eq!(check("sidecar.istio.io/proxyCPU", "100m"), Ok(()));
        let error = check("sidecar.istio.io/proxyCPU", "100 m").unwrap_err();
        assert_eq!(
            error,
            "annotation sidecar.istio.io/proxyCPU: \"100 m\" is no amount, such as 100m, 0.5 or 128Mi"
        );
        assert!(check("sidecar.istio.io/proxyMemoryLimit", "lots").unwrap_err().contains("proxyMemoryLimit"));
        let number = "readiness.status.sidecar.istio.io/periodSeconds";
        assert!(check(number, "2").is_ok() && check(number, "two").unwrap_err().contains("periodSeconds"));
    }

    #[test]
    fn a_request_is_not_above_its_limit() {
        let of = |request: &str, limit: &str| {
            let pod = json!({"metadata": {"annotations": {AMOUNTS[2]: request, AMOUNTS[3]: limit}}});
            Annotations::of(&pod).check().map_err(|error| error.to_string())
        };
        assert_eq!(of("1024Mi", "1Gi"), Ok(()));
        assert!(of("2Gi", "1Gi").unwrap_err().contains("is more than the limit, 1Gi"));
    }
}
