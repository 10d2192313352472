//! Lists page by page.

use super::Api;
use crate::resource::Resource;
use crate::selector::Selector;
use crate::status::Status;
use crate::store::{Page, Slice};

/// Objects that are looked at together where few may be selected.
const LEAST: usize = 256;

impl Api {
    /// The selected objects of a slice: as many as it allows where there are as many. Its `total` counts those that are
    /// not selected, too. Fails with 410 when the state asked for is no longer remembered.
    pub(crate) fn page(
        &self,
        resource: &Resource,
        selector: &Selector,
        slice: Slice<'_>,
    ) -> Result<Page, Status> {
        let forgotten =
            || Status::expired("The resourceVersion for the provided list is too old.".to_owned());
        let read = |slice: &Slice<'_>| self.store.page(&resource.name, slice).ok_or_else(forgotten);
        if selector.is_empty() {
            return read(&slice);
        }
        let mut after = slice.after.map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
        let (mut at, mut found, mut step) = (slice.at, Vec::new(), slice.limit.max(LEAST));
        loop {
            let after_now = after.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
            let page = read(&Slice { at, after: after_now, limit: step, ..slice })?;
            at = Some(page.resource_version);
            after = page.objects.last().map(|last| (last.namespace.to_string(), last.name.to_string()));
            found.extend(page.objects.into_iter().filter(|object| selector.matches(object, resource)));
            if found.len() > slice.limit || !page.more {
                let more = found.len() > slice.limit;
                found.truncate(slice.limit);
                return Ok(Page { objects: found, more, ..page });
            }
            step = step.saturating_mul(2);
        }
    }
}
