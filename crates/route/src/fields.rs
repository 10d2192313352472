//! The one table of fields: what is supported, what is accepted without effect, what is refused.
//!
//! Each message is listed once with *all* its fields (the compiler checks that none is missing), so a field added by
//! a newer Envoy is a build error here rather than a setting that silently does nothing. The reference in the
//! documentation is generated from [`table`].

use std::collections::BTreeMap;

use crate::error::{CompileError, Cx};

mod cluster;
mod http;
mod listener;
mod route;
mod security;

/// What happens to a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It has Envoy's effect.
    Supported,
    /// It may be set and changes nothing.
    Ignored,
    /// A resource that sets it is rejected.
    Refused,
}

/// One field of one message.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The message's full name, as `envoy.config.route.v3.Route`.
    pub message: &'static str,
    /// The field's name in the proto.
    pub field: &'static str,
    /// What happens to it.
    pub class: Class,
    /// Why it is ignored or refused; empty for supported fields.
    pub reason: &'static str,
}

/// Every field of every message that the compilers read.
pub fn table() -> Vec<Row> {
    [listener::ROWS, http::ROWS, route::ROWS, cluster::ROWS, security::ROWS]
        .into_iter()
        .flat_map(|messages| messages.iter().flat_map(|rows| rows.iter().copied()))
        .collect()
}

/// A message with classified fields.
pub(crate) trait Fields {
    /// Refuses and notes what is set.
    fn check(&self, cx: &mut Cx<'_>) -> Result<(), CompileError>;
}

/// Whether a field differs from its default, that is, whether somebody set it.
pub(crate) trait Set {
    fn is_set(&self) -> bool;
}

impl<T> Set for Option<T> {
    fn is_set(&self) -> bool {
        self.is_some()
    }
}

impl<T> Set for Vec<T> {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}

impl<K, V> Set for BTreeMap<K, V> {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}

impl Set for String {
    fn is_set(&self) -> bool {
        !self.is_empty()
    }
}

macro_rules! plain {
    ($($kind:ty),*) => { $(impl Set for $kind {
        fn is_set(&self) -> bool {
            *self != <$kind>::default()
        }
    })* };
}
plain!(bool, i32, u32, i64, u64);

/// Lists messages with their fields; see the modules below for the form.
macro_rules! fields {
    ($( $message:path as $name:literal {
        supported: [$($supported:ident),* $(,)?],
        ignored: [$($ignored:ident = $ignored_why:literal),* $(,)?],
        refused: [$($refused:ident = $refused_why:literal),* $(,)?] $(,)?
    } )*) => {
        pub(super) const ROWS: &[&[super::Row]] = &[$(&[
            $(super::Row { message: $name, field: super::bare(stringify!($supported)), class: super::Class::Supported, reason: "" },)*
            $(super::Row { message: $name, field: super::bare(stringify!($ignored)), class: super::Class::Ignored, reason: $ignored_why },)*
            $(super::Row { message: $name, field: super::bare(stringify!($refused)), class: super::Class::Refused, reason: $refused_why },)*
        ]),*];
        $(impl super::Fields for $message {
            fn check(&self, cx: &mut crate::error::Cx<'_>) -> Result<(), crate::error::CompileError> {
                #[allow(unused_imports)]
                use super::Set as _;
                let _ = &cx;
                let Self { $($supported: _,)* $($ignored,)* $($refused,)* } = self;
                $(if $ignored.is_set() {
                    cx.note_at(super::bare(stringify!($ignored)), $ignored_why);
                })*
                $(if $refused.is_set() {
                    return Err(cx.refuse_at(super::bare(stringify!($refused)), concat!("is not supported: ", $refused_why)));
                })*
                Ok(())
            }
        })*
    };
}
use fields;

/// A field's name without Rust's raw marker.
pub(crate) const fn bare(name: &'static str) -> &'static str {
    match name.as_bytes() {
        [b'r', b'#', ..] => name.split_at(2).1,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_unique_and_explained() {
        let rows = table();
        assert!(rows.len() > 300, "{}", rows.len());
        let mut seen = std::collections::BTreeSet::new();
        for row in rows {
            assert!(seen.insert((row.message, row.field)), "{row:?} twice");
            assert_eq!(row.reason.is_empty(), row.class == Class::Supported, "{row:?}");
        }
    }
}
