//! What the answer of a service means.

use http::header::{CONTENT_LENGTH, HOST, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue};
use lateen_proto::Struct;
use lateen_proto::envoy::config::core::v3::HeaderValueOption;
use lateen_proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use lateen_proto::envoy::service::auth::v3::check_response::HttpResponse;
use lateen_proto::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse};

use super::AnswerRules;
use super::check::is_of_connection;
use crate::header_edits::AppendAction;
use crate::request::HeaderRef;

/// Names headers of the request that are to be removed.
const TO_REMOVE: &str = "x-envoy-auth-headers-to-remove";

/// What is to become of a request or a connection.
#[derive(Debug)]
pub enum Decision {
    /// It passes, changed so.
    Allow(Box<Changes>),
    /// It is answered so.
    Deny(Box<Denial>),
    /// The service has failed; how, in words.
    Fail(String),
}

/// Changes to a request that passes, and to its response.
#[derive(Debug, Default)]
pub struct Changes {
    /// Headers of the request, in the place of what is there.
    pub set: Vec<(HeaderRef, HeaderValue)>,
    /// Headers of the request whose value is added to the one that is there, if one is.
    pub append: Vec<(HeaderName, HeaderValue)>,
    /// Headers that the request loses.
    pub remove: Vec<HeaderName>,
    /// Parameters of the query that are set.
    pub query_set: Vec<(String, String)>,
    /// Parameters of the query that are removed.
    pub query_remove: Vec<String>,
    /// Headers of the response.
    pub response: Vec<(HeaderName, HeaderValue, AppendAction)>,
    /// What later filters may look at.
    pub metadata: Option<Struct>,
}

impl Changes {
    /// Whether the request is another one now.
    pub fn touch_request(&self) -> bool {
        !(self.set.is_empty()
            && self.append.is_empty()
            && self.remove.is_empty()
            && self.query_set.is_empty()
            && self.query_remove.is_empty())
    }

    /// The path with its query changed; `None` where nothing changes.
    pub fn path(&self, path: &str) -> Option<String> {
        if self.query_set.is_empty() && self.query_remove.is_empty() {
            return None;
        }
        let (bare, query) = path.split_once('?').unwrap_or((path, ""));
        let name = |pair: &str| pair.split('=').next().unwrap_or_default().to_owned();
        let replaced = |pair: &str| self.query_set.iter().any(|(key, _)| *key == name(pair));
        let removed = |pair: &str| self.query_remove.contains(&name(pair));
        let kept = query.split('&').filter(|pair| !pair.is_empty() && !replaced(pair) && !removed(pair));
        let mut pairs: Vec<String> = kept.map(str::to_owned).collect();
        pairs.extend(self.query_set.iter().map(|(key, value)| format!("{key}={value}")));
        Some(if pairs.is_empty() { bare.to_owned() } else { format!("{bare}?{}", pairs.join("&")) })
    }
}

/// The answer to what does not pass.
#[derive(Debug)]
pub struct Denial {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: bytes::Bytes,
    /// What logs may look at.
    pub metadata: Option<Struct>,
}

/// The decision of an HTTP service: 200 allows, a status from 500 on is its failure, any other is the client's answer.
pub fn of_http(status: u16, headers: &HeaderMap, body: bytes::Bytes, rules: &AnswerRules) -> Decision {
    match status {
        500.. => Decision::Fail(format!("it answered {status}")),
        200 => Decision::Allow(Box::new(changes(headers, rules))),
        status => {
            let mut told = HeaderMap::new();
            for (name, value) in headers.iter().filter(|(name, _)| goes_to_client(name, rules)) {
                told.append(name.clone(), value.clone());
            }
            Decision::Deny(Box::new(Denial { status, headers: told, body, metadata: None }))
        }
    }
}

fn changes(headers: &HeaderMap, rules: &AnswerRules) -> Changes {
    let mut changes = Changes::default();
    for (name, value) in headers {
        if is_of_connection(name) || *name == CONTENT_LENGTH {
            continue;
        }
        if name.as_str() == TO_REMOVE {
            let names = value.to_str().unwrap_or_default().split(',');
            changes.remove.extend(names.filter_map(|name| removable(name.trim())));
            continue;
        }
        if rules.to_upstream.take(name.as_str()) {
            changes.set.push((HeaderRef::Named(name.clone()), value.clone()));
        }
        if rules.append_to_upstream.take(name.as_str()) {
            changes.append.push((name.clone(), value.clone()));
        }
        if rules.to_client_on_success.take(name.as_str()) {
            changes.response.push((name.clone(), value.clone(), AppendAction::Append));
        }
    }
    changes
}

fn goes_to_client(name: &HeaderName, rules: &AnswerRules) -> bool {
    // Its length is told anew, with the body.
    if is_of_connection(name) || *name == CONTENT_LENGTH || *name == HOST {
        return false;
    }
    match &rules.to_client {
        None => true,
        Some(names) => *name == WWW_AUTHENTICATE || *name == LOCATION || names.take(name.as_str()),
    }
}

/// The decision of a gRPC service. What it says of headers that cannot be sent makes it a failure.
pub fn of_grpc(response: CheckResponse) -> Decision {
    let code = response.status.as_ref().map_or(0, |status| status.code);
    let metadata = response.dynamic_metadata;
    let decided = match (code, response.http_response) {
        (0, Some(HttpResponse::OkResponse(ok))) => allowed(ok, metadata),
        (0, _) => Ok(Decision::Allow(Box::new(Changes { metadata, ..Changes::default() }))),
        (_, Some(HttpResponse::DeniedResponse(denied))) => denial(denied, metadata),
        (_, Some(HttpResponse::ErrorResponse(_))) => Err("it told of an error of its own".to_owned()),
        (_, _) => denial(DeniedHttpResponse::default(), metadata),
    };
    decided.unwrap_or_else(Decision::Fail)
}

fn allowed(ok: OkHttpResponse, metadata: Option<Struct>) -> Result<Decision, String> {
    let mut changes = Changes { metadata: metadata.or(ok.dynamic_metadata), ..Changes::default() };
    for option in &ok.headers {
        let (name, value) = header(option)?;
        match (option.append, name) {
            (Some(true), HeaderRef::Named(name)) => changes.append.push((name, value)),
            (_, name) => changes.set.push((name, value)),
        }
    }
    changes.remove = ok.headers_to_remove.iter().filter_map(|name| removable(name)).collect();
    for option in &ok.response_headers_to_add {
        let (HeaderRef::Named(name), value) = header(option)? else { continue };
        changes.response.push((name, value, action(option)));
    }
    changes.query_set = ok.query_parameters_to_set.into_iter().map(|p| (p.key, p.value)).collect();
    changes.query_remove = ok.query_parameters_to_remove;
    Ok(Decision::Allow(Box::new(changes)))
}

fn denial(denied: DeniedHttpResponse, metadata: Option<Struct>) -> Result<Decision, String> {
    let code = denied.status.map_or(0, |status| status.code);
    let status = match u16::try_from(code) {
        Ok(0) => 403,
        Ok(code @ 200..=599) => code,
        _ => return Err(format!("it denied with {code}, which is no status")),
    };
    let mut headers = HeaderMap::new();
    for option in &denied.headers {
        let (HeaderRef::Named(name), value) = header(option)? else { continue };
        if !is_of_connection(&name) && name != CONTENT_LENGTH {
            headers.append(name, value);
        }
    }
    let body = denied.body.into_bytes().into();
    Ok(Decision::Deny(Box::new(Denial { status, headers, body, metadata })))
}

fn action(option: &HeaderValueOption) -> AppendAction {
    match (option.append, option.append_action()) {
        (Some(true), _) | (None, HeaderAppendAction::AppendIfExistsOrAdd) => AppendAction::Append,
        (Some(false), _) | (None, HeaderAppendAction::OverwriteIfExistsOrAdd) => AppendAction::Overwrite,
        (None, HeaderAppendAction::AddIfAbsent) => AppendAction::AddIfAbsent,
        (None, HeaderAppendAction::OverwriteIfExists) => AppendAction::OverwriteIfPresent,
    }
}

fn header(option: &HeaderValueOption) -> Result<(HeaderRef, HeaderValue), String> {
    let header = option.header.clone().unwrap_or_default();
    let name = HeaderRef::parse(&header.key).ok_or_else(|| format!("{:?} is no header name", header.key))?;
    let bytes = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
    let value = HeaderValue::from_bytes(bytes)
        .map_err(|_| format!("its value of header {:?} cannot be sent", header.key))?;
    Ok((name, value))
}

/// A header that may be removed: none of the head itself.
fn removable(name: &str) -> Option<HeaderName> {
    HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| *name != HOST)
}

#[cfg(test)]
mod tests {
    use lateen_proto::envoy::config::core::v3::HeaderValue as WireHeader;
    use lateen_proto::envoy::r#type::v3::HttpStatus;
    use lateen_proto::google::rpc::Status;

    use super::*;

    fn option(key: &str, value: &str, append: Option<bool>) -> HeaderValueOption {
        let header = WireHeader { key: key.into(), value: value.into(), ..Default::default() };
        HeaderValueOption { header: Some(header), append, ..Default::default() }
    }

    fn status(code: i32) -> Option<Status> {
        Some(Status { code, ..Default::default() })
    }

    #[test]
    fn a_grpc_services_word_is_taken_as_envoy_takes_it() {
        let ok = OkHttpResponse {
            headers: vec![option("x-a", "1", None), option("x-b", "2", Some(true))],
            headers_to_remove: vec!["x-c".into(), "Host".into(), ":path".into()],
            ..Default::default()
        };
        let response = CheckResponse {
            status: status(0),
            http_response: Some(HttpResponse::OkResponse(ok)),
            ..Default::default()
        };
        let Decision::Allow(changes) = of_grpc(response) else { panic!("allowed") };
        assert_eq!((changes.set.len(), changes.append.len(), changes.remove.len()), (1, 1, 1));
        let Decision::Deny(denial) = of_grpc(CheckResponse { status: status(7), ..Default::default() })
        else {
            panic!("denied")
        };
        assert_eq!((denial.status, denial.body.len()), (403, 0));
        let denied = DeniedHttpResponse { status: Some(HttpStatus { code: 99 }), ..Default::default() };
        let response = CheckResponse {
            status: status(7),
            http_response: Some(HttpResponse::DeniedResponse(denied)),
            ..Default::default()
        };
        assert!(matches!(of_grpc(response), Decision::Fail(_)), "no such status");
        let ok = OkHttpResponse { headers: vec![option("x-a", "a\r\nb: c", None)], ..Default::default() };
        let response = CheckResponse {
            status: status(0),
            http_response: Some(HttpResponse::OkResponse(ok)),
            ..Default::default()
        };
        assert!(matches!(of_grpc(response), Decision::Fail(_)), "a header that cannot be sent");
    }

    #[test]
    fn an_http_services_status_decides() {
        let rules = AnswerRules::default();
        let headers: HeaderMap = [
            (HeaderName::from_static("x-a"), HeaderValue::from_static("1")),
            (CONTENT_LENGTH, HeaderValue::from(3)),
        ]
        .into_iter()
        .collect();
        let Decision::Allow(changes) = of_http(200, &headers, "".into(), &rules) else { panic!("allowed") };
        assert!(!changes.touch_request() && changes.response.is_empty());
        let Decision::Deny(denial) = of_http(302, &headers, "abc".into(), &rules) else { panic!("denied") };
        assert_eq!((denial.status, denial.headers.len(), &*denial.body), (302, 1, &b"abc"[..]));
        assert!(matches!(of_http(503, &headers, "".into(), &rules), Decision::Fail(_)));
        assert!(matches!(of_http(201, &headers, "".into(), &rules), Decision::Deny(_)), "only 200 allows");
    }

    #[test]
    fn queries_are_changed_by_name() {
        let changes = Changes {
            query_set: vec![("a".into(), "2".into())],
            query_remove: vec!["b".into()],
            ..Changes::default()
        };
        assert_eq!(changes.path("/x?a=1&b=1&c=1").as_deref(), Some("/x?c=1&a=2"));
        assert_eq!(changes.path("/x").as_deref(), Some("/x?a=2"));
        assert_eq!(Changes::default().path("/x?a=1"), None);
    }
}
