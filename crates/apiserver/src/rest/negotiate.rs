//! Which form of the answer a client accepts.

use http::HeaderMap;
use http::header::ACCEPT;

use crate::status::Status;

/// Form of an answer that holds objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// The objects.
    Plain,
    /// `meta.k8s.io/v1 Table`, for printing.
    Table,
    /// Only the metadata.
    Metadata,
}

/// One entry of an `Accept` header.
struct Entry<'a> {
    media: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl Entry<'_> {
    fn parameter(&self, name: &str) -> &str {
        self.parameters.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }
}

fn entries(headers: &HeaderMap) -> Vec<Entry<'_>> {
    let texts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| text.split(','))
        .map(|entry| {
            let mut parts = entry.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            Entry { media, parameters: parts.filter_map(|part| part.split_once('=')).collect() }
        })
        .collect()
}

/// The first acceptable form; without an `Accept` header the plain one.
pub(super) fn form(headers: &HeaderMap) -> Result<Form, Status> {
    let entries = entries(headers);
    if entries.is_empty() {
        return Ok(Form::Plain);
    }
    let known = |entry: &Entry<'_>| {
        if !matches!(entry.media, "application/json" | "application/*" | "*/*" | "") {
            return None;
        }
        match (entry.parameter("as"), entry.parameter("v")) {
            ("", _) => Some(Form::Plain),
            ("Table", "v1") => Some(Form::Table),
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "v1") => Some(Form::Metadata),
            _ => None,
        }
    };
    entries.iter().find_map(known).ok_or_else(|| {
        let why = "only the following media types are accepted: application/json, application/json;as=Table;v=v1;g=meta.k8s.io";
        Status::new(406, "NotAcceptable", why)
    })
}

/// Whether aggregated discovery is wanted, and in which version.
pub(super) fn aggregated(headers: &HeaderMap) -> Option<&'static str> {
    entries(headers).iter().find_map(|entry| match (entry.parameter("as"), entry.parameter("v")) {
        ("APIGroupDiscoveryList", "v2") => Some(Some("v2")),
        ("APIGroupDiscoveryList", "v2beta1") => Some(Some("v2beta1")),
        ("APIGroupDiscoveryList", _) => None,
        _ if entry.media == "application/json" || entry.media == "*/*" => Some(None),
        _ => None,
    })?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_acceptable_form_wins() {
        let form_of = |accept: &str| {
            let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
            form(&headers).map_err(|s| s.code)
        };
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(form_of(kubectl), Ok(Form::Table));
        assert_eq!(form_of("application/vnd.kubernetes.protobuf,application/json"), Ok(Form::Plain));
        assert_eq!(
            form_of("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"),
            Ok(Form::Metadata)
        );
        assert_eq!(form_of("*/*"), Ok(Form::Plain));
        assert_eq!(form_of("application/vnd.kubernetes.protobuf"), Err(406));
        let headers = HeaderMap::from_iter([(
            ACCEPT,
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
                .parse()
                .unwrap(),
        )]);
        assert_eq!(aggregated(&headers), Some("v2"));
    }
}
