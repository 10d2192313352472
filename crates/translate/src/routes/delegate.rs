//! Delegation: a root VirtualService's routes that another VirtualService spells out.

use std::collections::BTreeMap;

use lateen_api::kinds::virtual_service::{Headers, HttpMatchRequest, HttpRoute, StringMatch};

/// The delegate's routes under a root route: matches of both hold, the delegate's settings win. Routes whose matches
/// contradict the root's are left out; their number comes second.
pub(crate) fn merge(root: &HttpRoute, delegate: &[HttpRoute]) -> (Vec<HttpRoute>, usize) {
    let merged: Vec<_> = delegate.iter().filter_map(|route| merge_route(root, route)).collect();
    let lost = delegate.len() - merged.len();
    (merged, lost)
}

fn merge_route(root: &HttpRoute, delegate: &HttpRoute) -> Option<HttpRoute> {
    let mut route = delegate.clone();
    route.r#match = merge_matches(&root.r#match, &delegate.r#match)?;
    route.name = joined(&root.name, &delegate.name);
    fill(&mut route.rewrite, &root.rewrite);
    fill(&mut route.direct_response, &root.direct_response);
    fill(&mut route.timeout, &root.timeout);
    fill(&mut route.retries, &root.retries);
    fill(&mut route.fault, &root.fault);
    fill(&mut route.mirror, &root.mirror);
    fill(&mut route.mirror_percent, &root.mirror_percent);
    fill(&mut route.mirror_percentage, &root.mirror_percentage);
    fill(&mut route.cors_policy, &root.cors_policy);
    route.headers = merge_headers(root.headers.as_ref(), delegate.headers.as_ref());
    if route.mirrors.is_empty() {
        route.mirrors.clone_from(&root.mirrors);
    }
    Some(route)
}

fn fill<T: Clone>(own: &mut Option<T>, inherited: &Option<T>) {
    if own.is_none() {
        own.clone_from(inherited);
    }
}

fn joined(root: &str, delegate: &str) -> String {
    match (root.is_empty(), delegate.is_empty()) {
        (true, _) => delegate.to_owned(),
        (false, true) => root.to_owned(),
        (false, false) => format!("{root}-{delegate}"),
    }
}

fn merge_headers(root: Option<&Headers>, delegate: Option<&Headers>) -> Option<Headers> {
    let (Some(root), Some(delegate)) = (root, delegate) else { return delegate.or(root).cloned() };
    let mut merged = delegate.clone();
    for (own, inherited) in [(&mut merged.request, &root.request), (&mut merged.response, &root.response)] {
        match (own.as_mut(), inherited) {
            (Some(own), Some(inherited)) => {
                own.set = with(&inherited.set, &own.set);
                own.add = with(&inherited.add, &own.add);
                own.remove = inherited.remove.iter().chain(&own.remove).cloned().collect();
            }
            (None, inherited) => own.clone_from(inherited),
            (Some(_), None) => {}
        }
    }
    Some(merged)
}

fn with<V: Clone>(base: &BTreeMap<String, V>, over: &BTreeMap<String, V>) -> BTreeMap<String, V> {
    base.iter().chain(over).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Every pair of matches that can both hold; `None` when there are pairs and none can.
pub(crate) fn merge_matches(
    root: &[HttpMatchRequest],
    delegate: &[HttpMatchRequest],
) -> Option<Vec<HttpMatchRequest>> {
    if root.is_empty() {
        return Some(delegate.to_vec());
    }
    if delegate.is_empty() {
        return Some(root.to_vec());
    }
    let mut merged = Vec::new();
    for outer in root {
        for inner in delegate.iter().filter(|inner| !conflict(outer, inner)) {
            merged.push(merge_match(outer, inner));
        }
    }
    (!merged.is_empty()).then_some(merged)
}

fn merge_match(root: &HttpMatchRequest, delegate: &HttpMatchRequest) -> HttpMatchRequest {
    let mut both = delegate.clone();
    both.name = joined(&root.name, &delegate.name);
    fill(&mut both.uri, &root.uri);
    fill(&mut both.scheme, &root.scheme);
    fill(&mut both.method, &root.method);
    fill(&mut both.authority, &root.authority);
    both.headers = with(&root.headers, &delegate.headers);
    both.without_headers = with(&root.without_headers, &delegate.without_headers);
    both.query_params = with(&root.query_params, &delegate.query_params);
    both.source_labels = with(&root.source_labels, &delegate.source_labels);
    if both.port == 0 {
        both.port = root.port;
    }
    if both.gateways.is_empty() {
        both.gateways.clone_from(&root.gateways);
    }
    if both.source_namespace.is_empty() {
        both.source_namespace.clone_from(&root.source_namespace);
    }
    if both.stat_prefix.is_empty() {
        both.stat_prefix.clone_from(&root.stat_prefix);
    }
    both.ignore_uri_case |= root.ignore_uri_case;
    both
}

/// Whether no request can meet both, as far as Istio looks: a delegate may only narrow what its root matches.
pub(crate) fn conflict(root: &HttpMatchRequest, leaf: &HttpMatchRequest) -> bool {
    let texts = [
        (&root.uri, &leaf.uri),
        (&root.scheme, &leaf.scheme),
        (&root.method, &leaf.method),
        (&root.authority, &leaf.authority),
    ];
    let maps = [
        (&root.headers, &leaf.headers),
        (&root.without_headers, &leaf.without_headers),
        (&root.query_params, &leaf.query_params),
    ];
    root.ignore_uri_case != leaf.ignore_uri_case
        || texts.iter().any(|(root, leaf)| text_conflict(root.as_ref(), leaf.as_ref()))
        || maps
            .iter()
            .any(|(root, leaf)| root.iter().any(|(key, wanted)| text_conflict(Some(wanted), leaf.get(key))))
        || (root.port > 0 && leaf.port > 0 && root.port != leaf.port)
        || root
            .source_labels
            .iter()
            .any(|(key, value)| leaf.source_labels.get(key).is_some_and(|other| other != value))
        || (!root.source_namespace.is_empty()
            && !leaf.source_namespace.is_empty()
            && root.source_namespace != leaf.source_namespace)
}

fn text_conflict(root: Option<&StringMatch>, leaf: Option<&StringMatch>) -> bool {
    use StringMatch::{Exact, Prefix, Regex, Unset};
    match (root, leaf) {
        (None | Some(Unset), _) | (_, None | Some(Unset)) => false,
        (Some(Regex(_)), _) | (_, Some(Regex(_))) => true,
        (Some(Exact(root)), Some(Exact(leaf))) => root != leaf,
        (Some(Exact(_)), Some(Prefix(_))) => true,
        (Some(Prefix(root)), Some(Exact(leaf) | Prefix(leaf))) => !leaf.starts_with(root),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(uri: StringMatch) -> HttpMatchRequest {
        HttpMatchRequest { uri: Some(uri), ..Default::default() }
    }

    #[test]
    fn a_delegate_may_only_narrow() {
        let prefix = |text: &str| uri(StringMatch::Prefix(text.into()));
        let regex = |text: &str| uri(StringMatch::Regex(text.into()));
        assert!(!conflict(&prefix("/productpage"), &prefix("/productpage/v2")));
        assert!(conflict(&prefix("/productpage/v2"), &prefix("/productpage")));
        assert!(conflict(&regex("^/productpage"), &prefix("/productpage/v2")));
        assert!(!conflict(&HttpMatchRequest::default(), &regex("^/productpage")));
    }

    #[test]
    fn matches_multiply() {
        let header = |name: &str| HttpMatchRequest {
            headers: [(name.to_owned(), StringMatch::Exact("x".into()))].into(),
            ..Default::default()
        };
        let merged =
            merge_matches(&[header("a"), header("b")], &[uri(StringMatch::Prefix("/".into()))]).unwrap();
        assert_eq!(merged.len(), 2);
        assert!(merged.iter().all(|both| both.uri.is_some() && both.headers.len() == 1));
    }
}
