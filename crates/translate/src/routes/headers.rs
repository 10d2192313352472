//! Header operations of VirtualServices.

use lateen_api::kinds::virtual_service::Headers;
use lateen_proto::envoy::config::core::v3 as core;
use lateen_proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;

/// Header operations in Envoy's terms.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct HeaderEdits {
    /// Set and added to the request.
    pub(crate) request_add: Vec<core::HeaderValueOption>,
    /// Removed from the request.
    pub(crate) request_remove: Vec<String>,
    /// Set and added to the response.
    pub(crate) response_add: Vec<core::HeaderValueOption>,
    /// Removed from the response.
    pub(crate) response_remove: Vec<String>,
    /// What the request's host becomes: setting `:authority` or `host` is no header operation in Envoy.
    pub(crate) authority: Option<String>,
}

impl HeaderEdits {
    /// The edits that `headers` asks for.
    pub(crate) fn of(headers: Option<&Headers>) -> Self {
        let mut edits = Self::default();
        let Some(headers) = headers else { return edits };
        if let Some(request) = &headers.request {
            let host = |name: &str| name.eq_ignore_ascii_case("host") || name == ":authority";
            edits.authority = request.set.iter().find(|(name, _)| host(name)).map(|(_, value)| value.clone());
            let set = request.set.iter().filter(|(name, _)| !host(name));
            edits.request_add = additions(set, request.add.iter());
            edits.request_remove = request.remove.clone();
        }
        if let Some(response) = &headers.response {
            edits.response_add = additions(response.set.iter(), response.add.iter());
            edits.response_remove = response.remove.clone();
        }
        edits
    }

    /// These edits, then `more`.
    pub(crate) fn and(mut self, more: Self) -> Self {
        self.request_add.extend(more.request_add);
        self.request_remove.extend(more.request_remove);
        self.response_add.extend(more.response_add);
        self.response_remove.extend(more.response_remove);
        self.authority = more.authority.or(self.authority);
        self
    }
}

fn additions<'a>(
    set: impl Iterator<Item = (&'a String, &'a String)>,
    add: impl Iterator<Item = (&'a String, &'a String)>,
) -> Vec<core::HeaderValueOption> {
    let option = |action: HeaderAppendAction| {
        move |(name, value): (&'a String, &'a String)| core::HeaderValueOption {
            header: Some(core::HeaderValue {
                key: name.to_ascii_lowercase(),
                value: value.clone(),
                ..Default::default()
            }),
            append_action: action.into(),
            ..Default::default()
        }
    };
    let added = add.map(option(HeaderAppendAction::AppendIfExistsOrAdd));
    added.chain(set.map(option(HeaderAppendAction::OverwriteIfExistsOrAdd))).collect()
}
