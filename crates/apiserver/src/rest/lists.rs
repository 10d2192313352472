//! Collections: lists, page by page, and where a watch begins.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Response;
use serde_json::{Value, json};

use super::handler::Job;
use super::negotiate::{self, Form};
use super::response::{self, Body};
use super::{table, watch};
use crate::object::Object;
use crate::selector::Selector;
use crate::status::Status;
use crate::watch::WatchStart;

impl Job<'_> {
    pub(super) fn list_or_watch(self) -> Result<Response<Body>, Status> {
        let form = negotiate::form(&self.parts.headers)?;
        let selector = self.selector()?;
        if !self.query.flag("watch") {
            return self.list(form, &selector);
        }
        let version = self.query.text("resourceVersion");
        let initial = self.query.text("sendInitialEvents");
        let start = match version {
            "" if initial == "false" => WatchStart::After(self.api.store.resource_version()),
            "" | "0" => WatchStart::State,
            _ if initial == "true" => WatchStart::State,
            text => WatchStart::After(text.parse().map_err(|_| {
                Status::bad_request(format!("resourceVersion: \"{text}\" is not one of this server's"))
            })?),
        };
        let cursor =
            crate::watch::Cursor::new(&self.api.store, &self.resource, self.namespace(), selector, start)?;
        let watch = watch::Settings {
            form,
            include_object: self.query.text("includeObject").to_owned(),
            bookmarks: self.query.flag("allowWatchBookmarks")
                && !self.query.text("allowWatchBookmarks").is_empty(),
            initial_bookmark: initial == "true",
            timeout_seconds: self.query.number("timeoutSeconds")?,
        };
        Ok(watch::answer(cursor, self.resource, watch, self.stopped))
    }

    fn list(&self, form: Form, selector: &Selector) -> Result<Response<Body>, Status> {
        let limit = self
            .query
            .number("limit")?
            .filter(|l| *l > 0)
            .and_then(|l| usize::try_from(l).ok())
            .unwrap_or(usize::MAX);
        let token = Continue::parse(self.query.text("continue"))?;
        if let Ok(asked) = self.query.text("resourceVersion").parse::<u64>()
            && asked > self.api.store.resource_version()
        {
            let why = format!(
                "Too large resource version: {asked}, current: {}",
                self.api.store.resource_version()
            );
            return Err(Status::new(504, "Timeout", why));
        }
        let after = token.as_ref().map(|t| (t.namespace.as_str(), t.name.as_str()));
        let mut page = self.api.list(&self.resource, self.namespace(), selector);
        if let Some(after) = after {
            page.objects.retain(|o| (&*o.namespace, &*o.name) > after);
        }
        let version = token.as_ref().map_or(page.resource_version, |t| t.resource_version);
        let remaining = page.objects.len().saturating_sub(limit);
        page.objects.truncate(limit);
        let next = page.objects.last().filter(|_| remaining > 0).map(|last| Continue {
            resource_version: version,
            namespace: last.namespace.to_string(),
            name: last.name.to_string(),
        });
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if let Some(next) = next {
            metadata["continue"] = json!(next.text());
            if selector.is_empty() {
                metadata["remainingItemCount"] = json!(remaining);
            }
        }
        Ok(response::json_bytes(200, self.list_body(form, &page.objects, metadata)))
    }

    pub(super) fn list_body(&self, form: Form, objects: &[Arc<Object>], metadata: Value) -> Vec<u8> {
        if form == Form::Table {
            let objects: Vec<&Object> = objects.iter().map(|o| &**o).collect();
            let table =
                table::table(&self.resource, &objects, self.query.text("includeObject"), Some(metadata));
            return table.to_string().into_bytes();
        }
        let (api_version, kind) = match form {
            Form::Metadata => ("meta.k8s.io/v1".to_owned(), "PartialObjectMetadataList".to_owned()),
            _ => (self.resource.api_version(), self.resource.list_kind.clone()),
        };
        let head =
            format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{metadata},"items":["#);
        let mut out = head.into_bytes();
        for (index, object) in objects.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            self.write_form(object, form, &mut out);
        }
        out.extend_from_slice(b"]}");
        out
    }
}

/// Where the next page of a list begins.
struct Continue {
    /// Of the first page: a watch from there misses nothing.
    resource_version: u64,
    namespace: String,
    name: String,
}

impl Continue {
    fn text(&self) -> String {
        let plain = format!("{}\0{}\0{}", self.resource_version, self.namespace, self.name);
        URL_SAFE_NO_PAD.encode(plain)
    }

    fn parse(text: &str) -> Result<Option<Self>, Status> {
        if text.is_empty() {
            return Ok(None);
        }
        let decoded = URL_SAFE_NO_PAD.decode(text).ok();
        let plain = decoded.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        let mut parts = plain.split('\0').map(str::to_owned);
        match (parts.next().and_then(|v| v.parse().ok()), parts.next(), parts.next()) {
            (Some(resource_version), Some(namespace), Some(name)) => {
                Ok(Some(Self { resource_version, namespace, name }))
            }
            _ => Err(Status::bad_request("continue key is not valid")),
        }
    }
}
