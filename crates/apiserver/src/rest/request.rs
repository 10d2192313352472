//! What a request asks for: its path and query.

use percent_encoding::percent_decode_str;

/// A path of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// A resource: one object, a collection, or a subresource of an object.
    Resource(Place),
    /// Everything else, as segments.
    Other(Vec<String>),
}

/// Where in the resources.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Place {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) plural: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) subresource: String,
    /// What follows the subresource.
    pub(super) rest: Vec<String>,
}

impl Address {
    pub(super) fn parse(path: &str) -> Self {
        let segments: Vec<String> = path
            .split('/')
            .filter(|segment| !segment.is_empty())
            .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
            .collect();
        match Self::place(&segments) {
            Some(place) => Self::Resource(place),
            None => Self::Other(segments),
        }
    }

    fn place(segments: &[String]) -> Option<Place> {
        let (group, version, rest) = match segments {
            [api, version, rest @ ..] if api == "api" => (String::new(), version, rest),
            [apis, group, version, rest @ ..] if apis == "apis" => (group.clone(), version, rest),
            _ => return None,
        };
        let place = Place { group, version: version.clone(), ..Place::default() };
        let (namespace, rest) = match rest {
            [] => return None,
            // A namespace itself, or one of its subresources.
            [word, _] if word == "namespaces" => ("", rest),
            [word, _, part] if word == "namespaces" && matches!(part.as_str(), "status" | "finalize") => {
                ("", rest)
            }
            [word, namespace, rest @ ..] if word == "namespaces" => (namespace.as_str(), rest),
            rest => ("", rest),
        };
        let at = |index: usize| rest.get(index).cloned().unwrap_or_default();
        Some(Place {
            namespace: namespace.to_owned(),
            plural: at(0),
            name: at(1),
            subresource: at(2),
            rest: rest.get(3..).unwrap_or_default().to_vec(),
            ..place
        })
    }
}

/// Query parameters.
#[derive(Debug, Clone, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        let decode =
            |part: &str| percent_decode_str(&part.replace('+', " ")).decode_utf8_lossy().into_owned();
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs
                .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
                .map(|(k, v)| (decode(k), decode(v)))
                .collect(),
        )
    }

    /// The first value of a parameter, or "".
    pub(super) fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// True for `true`, `1` and a parameter without value.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.0.iter().any(|(key, value)| {
            key == name && matches!(value.as_str(), "" | "1" | "t" | "T" | "true" | "True" | "TRUE")
        })
    }

    /// As [`Query::flag`], but without a value it is not set.
    pub(super) fn set(&self, name: &str) -> bool {
        self.flag(name) && !self.text(name).is_empty()
    }

    /// A number, `None` when the parameter is missing.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, crate::Status> {
        match self.text(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                crate::Status::bad_request(format!(
                    "query parameter {name}: \"{text}\" is not a non-negative number"
                ))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let place = |path: &str| match Address::parse(path) {
            Address::Resource(p) => {
                [p.group, p.version, p.namespace, p.plural, p.name, p.subresource].join("|")
            }
            Address::Other(segments) => format!("{segments:?}"),
        };
        for (path, expected) in [
            ("/api/v1/namespaces", "|v1||namespaces||"),
            ("/api/v1/namespaces/a", "|v1||namespaces|a|"),
            ("/api/v1/namespaces/a/finalize", "|v1||namespaces|a|finalize"),
            ("/api/v1/namespaces/a/pods", "|v1|a|pods||"),
            ("/api/v1/namespaces/a/pods/p/log", "|v1|a|pods|p|log"),
            ("/api/v1/pods", "|v1||pods||"),
            ("/apis/apps/v1/namespaces/a/deployments/d%41", "apps|v1|a|deployments|dA|"),
            ("/apis/apps/v1", r#"["apis", "apps", "v1"]"#),
            ("/version", r#"["version"]"#),
        ] {
            assert_eq!(place(path), expected, "{path}");
        }
        let query = Query::parse("watch&labelSelector=a%3Db%2Cc+in+(d)&limit=5&limit=x");
        assert!(query.flag("watch") && !query.flag("limit"));
        assert_eq!(query.text("labelSelector"), "a=b,c in (d)");
        assert_eq!(query.number("limit").unwrap(), Some(5));
    }
}
