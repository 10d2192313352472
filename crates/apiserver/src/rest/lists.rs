//! Collections: lists, page by page, and where a watch begins.

use std::sync::Arc;

use http::Response;
use serde_json::{Value, json};

use super::handler::Job;
use super::negotiate::{self, Form};
use super::response::{self, Body};
use super::versions::{Begin, Continue, Wanted};
use super::{table, watch};
use crate::object::Object;
use crate::selector::Selector;
use crate::status::Status;
use crate::store::Slice;

impl Job<'_> {
    pub(super) fn list_or_watch(self) -> Result<Response<Body>, Status> {
        let form = negotiate::form(&self.parts.headers)?;
        let selector = self.selector()?;
        if !self.query.flag("watch") {
            return self.list(form, &selector);
        }
        let begin = Begin::parse(&self.query, self.api.store.resource_version())?;
        let bookmarks = self.query.set("allowWatchBookmarks");
        let settings = watch::Settings {
            form,
            include_object: self.query.text("includeObject").to_owned(),
            bookmarks,
            initial_bookmark: begin.initial_events && bookmarks,
            timeout_seconds: self.query.number("timeoutSeconds")?,
        };
        let cursor = crate::watch::Cursor::new(
            &self.api.store,
            &self.resource,
            self.namespace(),
            selector,
            begin.start,
        );
        match cursor {
            Ok(cursor) => Ok(watch::answer(self.api.clone(), cursor, self.resource, settings, self.stopped)),
            // As Kubernetes: the watch begins, and tells at once that it cannot go on.
            Err(status) if status.is_expired() => Ok(watch::refusal(&status)),
            Err(status) => Err(status),
        }
    }

    fn list(&self, form: Form, selector: &Selector) -> Result<Response<Body>, Status> {
        let wanted = Wanted::parse(&self.query, self.api.store.resource_version())?;
        if wanted.is_whole() {
            let page = self.api.list(&self.resource, self.namespace(), selector);
            let metadata = json!({"resourceVersion": page.resource_version.to_string()});
            return Ok(response::json_bytes(200, self.list_body(form, &page.objects, metadata)));
        }
        let Wanted { at, ref after, seen, limit } = wanted;
        let after = after.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
        let slice = Slice { namespace: self.namespace(), at, after, limit };
        let page = self.api.page(&self.resource, selector, slice).map_err(|status| match after {
            Some(after) => Status::expired_list(Continue::newest(after).text()),
            None => status,
        })?;
        let mut metadata = json!({"resourceVersion": page.resource_version.to_string()});
        if let Some(last) = page.objects.last().filter(|_| page.more) {
            let seen = seen.map(|seen| seen + page.objects.len());
            let next = Continue {
                resource_version: Some(page.resource_version),
                seen,
                namespace: last.namespace.to_string(),
                name: last.name.to_string(),
            };
            metadata["continue"] = json!(next.text());
            if let Some(seen) = seen.filter(|_| selector.is_empty()) {
                metadata["remainingItemCount"] = json!(page.total.saturating_sub(seen));
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
