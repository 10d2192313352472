//! Objects in the forms in which watches tell them: worked out once for all watches, not once for each.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::resource::Resource;

/// Bytes kept at most. Watches are told of a change at about the same time, so that little has to be kept.
const KEPT: usize = 4 << 20;
/// Entries kept at most.
const ENTRIES: usize = 512;

/// What was worked out last.
#[derive(Default)]
pub(crate) struct Rendered {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    entries: VecDeque<(Key, Bytes)>,
    bytes: usize,
}

/// A state of an object in one form.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    /// Of the object: no two states of any objects share it.
    pub(crate) resource_version: u64,
    /// In whose version it is told.
    pub(crate) resource: Arc<Resource>,
    /// Everything else that the form depends on.
    pub(crate) form: Form,
}

/// A form other than the object itself, which is kept as it is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Form {
    /// Converted to another version.
    Object,
    /// Its metadata.
    Metadata,
    /// A table, with this `includeObject`; its cells tell ages in seconds since this second.
    Table { include: String, second: i64 },
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.resource_version == other.resource_version
            && Arc::ptr_eq(&self.resource, &other.resource)
            && self.form == other.form
    }
}

impl Rendered {
    /// What `render` makes, or made for somebody else. Who asks for the same at the same time waits for the first.
    pub(crate) fn of(&self, key: Key, render: impl FnOnce() -> Vec<u8>) -> Bytes {
        let mut kept = self.kept.lock();
        if let Some((_, bytes)) = kept.entries.iter().rev().find(|(other, _)| *other == key) {
            return bytes.clone();
        }
        let bytes = Bytes::from(render());
        kept.bytes += bytes.len();
        kept.entries.push_back((key, bytes.clone()));
        while kept.entries.len() > ENTRIES || kept.bytes > KEPT && kept.entries.len() > 1 {
            let Some((_, oldest)) = kept.entries.pop_front() else { break };
            kept.bytes -= oldest.len();
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_worked_out_once() {
        let rendered = Rendered::default();
        let resource = Arc::new(crate::builtin::resources().remove(0));
        let key = |version, form| Key { resource_version: version, resource: resource.clone(), form };
        let mut worked = 0;
        for (version, form) in
            [(1, Form::Metadata), (1, Form::Metadata), (2, Form::Metadata), (1, Form::Object)]
        {
            let text = format!("{version} {form:?}");
            let bytes = rendered.of(key(version, form), || {
                worked += 1;
                text.clone().into_bytes()
            });
            assert_eq!(bytes, text);
        }
        assert_eq!(worked, 3);
        let large = |version| rendered.of(key(version, Form::Object), || vec![0; KEPT / 2]);
        (3..20).for_each(|version| assert_eq!(large(version).len(), KEPT / 2));
        assert!(rendered.kept.lock().bytes <= KEPT);
    }
}
