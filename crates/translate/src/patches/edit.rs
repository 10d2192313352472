//! What operations do to lists.

use lateen_api::kinds::envoy_filter::PatchOperation;
use lateen_proto::merge::{Lists, merge};
use lateen_proto::{Message, Name, rules};

use super::Patch;

/// What an edit did.
#[derive(Debug, Default)]
pub(crate) struct Edited {
    /// How many objects it changed, added or removed.
    pub(crate) count: usize,
    /// Why it left objects as they were that it was meant for.
    pub(crate) refused: Vec<String>,
}

impl Edited {
    /// Changed so many.
    pub(crate) fn count(count: usize) -> Self {
        Self { count, refused: Vec::new() }
    }

    /// Changed nothing, for a reason.
    pub(crate) fn refused(reason: impl Into<String>) -> Self {
        Self { count: 0, refused: vec![reason.into()] }
    }

    /// Adds what another edit did.
    pub(crate) fn add(&mut self, other: Self) {
        self.count += other.count;
        self.refused.extend(other.refused);
    }
}

impl<E: Into<String>> From<Result<usize, E>> for Edited {
    fn from(result: Result<usize, E>) -> Self {
        result.map_or_else(Self::refused, Self::count)
    }
}

/// A list under a patch.
pub(crate) struct ListEdit<'a, M> {
    /// The patch.
    pub(crate) patch: &'a Patch,
    /// Whether the patch says which items it means; else it means the list's end, or its beginning.
    pub(crate) picks: bool,
    /// Whether it means an item.
    pub(crate) wanted: &'a dyn Fn(&M) -> bool,
    /// Merges its value into an item.
    pub(crate) merge: &'a dyn Fn(&mut M, &M, Lists) -> Result<(), String>,
}

impl<M: Message + Name + Default + Clone> ListEdit<'_, M> {
    /// Does to the list what the patch says.
    pub(crate) fn apply(&self, list: &mut Vec<M>) -> Edited {
        if self.patch.operation == PatchOperation::Remove {
            let before = list.len();
            list.retain(|item| !(self.wanted)(item));
            return Edited::count(before - list.len());
        }
        let value: M = match self.patch.message() {
            Ok(value) => value,
            Err(reason) => return Edited::refused(reason),
        };
        let place = list.iter().position(self.wanted);
        let at = match (self.patch.operation, self.picks) {
            (PatchOperation::Add, _) | (PatchOperation::InsertAfter, false) => Some(list.len()),
            (PatchOperation::InsertBefore, false) | (PatchOperation::InsertFirst, false) => Some(0),
            (PatchOperation::InsertFirst, true) => place.map(|_| 0),
            (PatchOperation::InsertBefore, true) => place,
            (PatchOperation::InsertAfter, true) => place.map(|place| place + 1),
            (PatchOperation::Replace, _) => return self.replace(list, &value),
            (PatchOperation::Merge, _) => return self.merge_all(list, &value, Lists::Append),
            (PatchOperation::MergeAndReplaceList, _) => return self.merge_all(list, &value, Lists::Replace),
            (PatchOperation::Remove | PatchOperation::Invalid, _) => None,
        };
        let Some(at) = at else { return Edited::default() };
        list.insert(at, value);
        Edited::count(1)
    }

    fn replace(&self, list: &mut [M], value: &M) -> Edited {
        let mut count = 0;
        for item in list.iter_mut().filter(|item| (self.wanted)(item)) {
            item.clone_from(value);
            count += 1;
        }
        Edited::count(count)
    }

    /// Merges item by item: one that would become what Envoy refuses stays as it was.
    fn merge_all(&self, list: &mut [M], value: &M, lists: Lists) -> Edited {
        let mut edited = Edited::default();
        for item in list.iter_mut().filter(|item| (self.wanted)(item)) {
            let mut merged = item.clone();
            let done = (self.merge)(&mut merged, value, lists)
                .and_then(|()| rules::check(&merged).map_err(|violation| violation.to_string()));
            match done {
                Ok(()) => {
                    *item = merged;
                    edited.count += 1;
                }
                Err(reason) => edited.refused.push(reason),
            }
        }
        edited
    }
}

/// Merges a value in, as protobuf does and inside of what is packed.
pub(crate) fn plain<M: Message + Name + Default>(
    into: &mut M,
    value: &M,
    lists: Lists,
) -> Result<(), String> {
    merge(into, value, lists).map_err(|error| error.to_string())
}

/// How lists are merged by an operation.
pub(crate) fn lists(operation: PatchOperation) -> Lists {
    match operation {
        PatchOperation::MergeAndReplaceList => Lists::Replace,
        _ => Lists::Append,
    }
}
