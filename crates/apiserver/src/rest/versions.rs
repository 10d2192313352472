//! Which state a list shows and where a watch begins: `resourceVersion`, `resourceVersionMatch`, `continue`,
//! `sendInitialEvents` (<https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::request::Query;
use crate::status::{Cause, Status};
use crate::watch::WatchStart;

const MATCH: &str = "resourceVersionMatch";

/// Which part of which state a list shows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The state of exactly this resource version; `None` for the newest.
    pub(super) at: Option<u64>,
    /// Only what follows this namespace and name.
    pub(super) after: Option<(String, String)>,
    /// Objects in the pages before; `None` when they showed another state.
    pub(super) seen: Option<usize>,
    /// Objects at most.
    pub(super) limit: usize,
}

impl Wanted {
    /// `newest` is the server's resource version.
    pub(super) fn parse(query: &Query, newest: u64) -> Result<Self, Status> {
        let (text, token) = (query.text("resourceVersion"), query.text("continue"));
        let exactly = matching(query)?;
        if !query.text("sendInitialEvents").is_empty() {
            return Err(forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
        }
        let limit = query.number("limit")?.filter(|limit| *limit > 0);
        let limited = limit.is_some();
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        if !token.is_empty() {
            if !matches!(text, "" | "0") {
                let why = "specifying resource version is not allowed when using continue";
                return Err(Status::bad_request(why));
            }
            let token = Continue::parse(token)?;
            let after = Some((token.namespace, token.name));
            return Ok(Self { at: token.resource_version, after, seen: token.seen, limit });
        }
        let version = version(text)?.filter(|version| *version > 0);
        if let Some(asked) = version.filter(|asked| *asked > newest) {
            return Err(Status::too_large_version(asked, newest));
        }
        // A list in pages without a match is exact, as it was before there were matches.
        let exactly = exactly.unwrap_or(limited);
        Ok(Self { at: version.filter(|_| exactly), after: None, seen: Some(0), limit })
    }

    /// Everything, as it is now.
    pub(super) fn is_whole(&self) -> bool {
        self.at.is_none() && self.after.is_none() && self.limit == usize::MAX
    }
}

/// `Some(true)` for `Exact`, `Some(false)` for `NotOlderThan`.
fn matching(query: &Query) -> Result<Option<bool>, Status> {
    let (text, version) = (query.text(MATCH), query.text("resourceVersion"));
    if text.is_empty() {
        return Ok(None);
    }
    if version.is_empty() {
        return Err(forbidden(MATCH, "resourceVersionMatch is forbidden unless resourceVersion is provided"));
    }
    if !query.text("continue").is_empty() {
        return Err(forbidden(MATCH, "resourceVersionMatch is forbidden when continue is provided"));
    }
    match text {
        "NotOlderThan" => Ok(Some(false)),
        "Exact" if version == "0" => {
            let why = "resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"";
            Err(forbidden(MATCH, why))
        }
        "Exact" => Ok(Some(true)),
        other => {
            let allowed = ["Exact", "NotOlderThan"].map(str::to_owned);
            Err(options(Cause::not_supported(MATCH, &json!(other), &allowed)))
        }
    }
}

/// Where a watch begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Begin {
    pub(super) start: WatchStart,
    /// `sendInitialEvents`: a bookmark tells when the objects there were have been sent.
    pub(super) initial_events: bool,
}

impl Begin {
    /// `newest` is the server's resource version.
    pub(super) fn parse(query: &Query, newest: u64) -> Result<Self, Status> {
        let (text, initial) = (query.text("resourceVersion"), query.text("sendInitialEvents"));
        if !query.text("continue").is_empty() {
            return Err(forbidden("continue", "continue is forbidden for watch"));
        }
        match (initial, query.text(MATCH)) {
            ("", "") => {}
            ("", _) => {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                return Err(forbidden(MATCH, why));
            }
            (_, "NotOlderThan") => {}
            (_, "") => {
                let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
                return Err(forbidden(MATCH, why));
            }
            (_, other) => {
                let allowed = ["NotOlderThan".to_owned()];
                return Err(options(Cause::not_supported(MATCH, &json!(other), &allowed)));
            }
        }
        let initial_events = query.set("sendInitialEvents");
        let version = version(text)?.unwrap_or(0);
        let start = match version {
            _ if initial_events && version > newest => {
                return Err(Status::too_large_version(version, newest));
            }
            _ if initial_events => WatchStart::State,
            0 if !initial.is_empty() => WatchStart::After(newest),
            0 => WatchStart::State,
            version => WatchStart::After(version),
        };
        Ok(Self { start, initial_events })
    }
}

fn version(text: &str) -> Result<Option<u64>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    let why = || Status::bad_request(format!("resourceVersion: \"{text}\" is not one of this server's"));
    text.parse().map(Some).map_err(|_| why())
}

fn forbidden(field: &str, why: &str) -> Status {
    options(Cause::forbidden(field, why))
}

fn options(cause: Cause) -> Status {
    Status::invalid("meta.k8s.io", "ListOptions", "", vec![cause])
}

/// Where the next page of a list begins.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Continue {
    /// Of the first page: all pages show the same state, and a watch from there misses nothing. `None`: the newest.
    pub(super) resource_version: Option<u64>,
    /// Objects in the pages before, when they showed that state.
    pub(super) seen: Option<usize>,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Continue {
    /// The rest of a list, in the newest state.
    pub(super) fn newest((namespace, name): (&str, &str)) -> Self {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Self { resource_version: None, seen: None, namespace, name }
    }

    pub(super) fn text(&self) -> String {
        let number = |number: Option<u64>| number.map(|n| n.to_string()).unwrap_or_default();
        let seen = number(self.seen.map(|seen| seen as u64));
        let parts = [&number(self.resource_version), &seen, &self.namespace, &self.name];
        URL_SAFE_NO_PAD.encode(parts.map(String::as_str).join("\0"))
    }

    fn parse(text: &str) -> Result<Self, Status> {
        let read = || {
            let plain = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
            let parts: Vec<&str> = plain.split('\0').collect();
            let [version, seen, namespace, name] = parts.as_slice() else { return None };
            let optional = |text: &str| match text {
                "" => Some(None),
                text => text.parse::<u64>().ok().map(Some),
            };
            Some(Self {
                resource_version: optional(version)?,
                seen: optional(seen)?.map(usize::try_from).transpose().ok()?,
                namespace: (*namespace).to_owned(),
                name: (*name).to_owned(),
            })
        };
        read().ok_or_else(|| Status::bad_request("continue key is not valid"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn which_state_a_list_shows() {
        let at = |query: &str| Wanted::parse(&Query::parse(query), 10).map(|wanted| wanted.at);
        for (query, expected) in [
            ("", None),
            ("resourceVersion=0", None),
            ("resourceVersion=7", None),
            ("resourceVersion=7&limit=5", Some(7)),
            ("resourceVersion=7&limit=5&resourceVersionMatch=NotOlderThan", None),
            ("resourceVersion=7&resourceVersionMatch=Exact", Some(7)),
        ] {
            assert_eq!(at(query), Ok(expected), "{query}");
        }
        for (query, code) in [
            ("resourceVersion=11", 504),
            ("resourceVersion=x", 400),
            ("resourceVersionMatch=Exact", 422),
            ("resourceVersion=0&resourceVersionMatch=Exact", 422),
            ("resourceVersion=1&resourceVersionMatch=Older", 422),
            ("resourceVersion=1&sendInitialEvents=true", 422),
            ("continue=x", 400),
        ] {
            assert_eq!(at(query).map_err(|status| status.code), Err(code), "{query}");
        }
    }

    #[test]
    fn where_a_watch_begins() {
        let begin = |query: &str| Begin::parse(&Query::parse(query), 10).map(|begin| begin.start);
        let initial = "resourceVersionMatch=NotOlderThan&sendInitialEvents";
        for (query, expected) in [
            (String::new(), WatchStart::State),
            ("resourceVersion=0".into(), WatchStart::State),
            ("resourceVersion=7".into(), WatchStart::After(7)),
            (format!("{initial}=true&resourceVersion=7"), WatchStart::State),
            (format!("{initial}=false&resourceVersion=7"), WatchStart::After(7)),
            (format!("{initial}=false"), WatchStart::After(10)),
        ] {
            assert_eq!(begin(&query), Ok(expected), "{query}");
        }
        for (query, code) in [
            ("resourceVersionMatch=NotOlderThan".to_owned(), 422),
            ("sendInitialEvents=true".into(), 422),
            ("resourceVersionMatch=Exact&sendInitialEvents=true".into(), 422),
            ("continue=x".into(), 422),
            (format!("{initial}=true&resourceVersion=11"), 504),
        ] {
            assert_eq!(begin(&query).map_err(|status| status.code), Err(code), "{query}");
        }
    }

    proptest! {
        #[test]
        fn tokens_are_read_as_they_were_written(version in any::<Option<u64>>(), seen in any::<Option<u32>>(), name in "[a-z.-]{0,20}") {
            let seen = seen.map(|seen| seen as usize);
            let token = Continue { resource_version: version, seen, namespace: "default".into(), name };
            prop_assert_eq!(Continue::parse(&token.text()), Ok(token));
        }

        #[test]
        fn any_text_is_a_token_or_an_error(text in "\\PC{0,40}") {
            let _ = Continue::parse(&text);
        }
    }
}
