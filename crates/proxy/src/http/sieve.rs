//! Which headers may be there. A phase asks for dozens of headers that hardly any message has, and a lookup in a map hashes
//! the whole name: one look at the names that are there answers most of it.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The names of a map at one time, as bits; several names share one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sieve(u64);

impl Sieve {
    /// The names that are there now.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        Self(headers.keys().fold(0, |bits, name| bits | bit(name)))
    }

    /// Whether a header may be there; false is certain as long as none was added.
    #[inline]
    pub(crate) fn may_have(self, name: &HeaderName) -> bool {
        self.0 & bit(name) != 0
    }

    /// The value of a header.
    #[inline]
    pub(crate) fn get<'h>(self, headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
        if self.may_have(name) { headers.get(name) } else { None }
    }

    /// Removes a header.
    #[inline]
    pub(crate) fn remove(self, headers: &mut HeaderMap, name: &HeaderName) -> Option<HeaderValue> {
        if self.may_have(name) { headers.remove(name) } else { None }
    }
}

/// A name's bit, by its length and the bytes in which names differ most.
#[inline]
fn bit(name: &HeaderName) -> u64 {
    let bytes = name.as_str().as_bytes();
    let length = bytes.len();
    let at = |index: usize| u32::from(bytes.get(index).copied().unwrap_or_default());
    let mixed =
        (length as u32).wrapping_mul(31) ^ at(length / 2).wrapping_mul(7) ^ at(length.wrapping_sub(2));
    1 << (mixed % 64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_there_is_never_missed(names in prop::collection::vec("[a-z][a-z0-9-]{0,30}", 0..20), other in "[a-z-]{1,20}") {
            let mut headers = HeaderMap::new();
            for name in &names {
                headers.append(HeaderName::try_from(name).expect("a name"), HeaderValue::from_static("x"));
            }
            let sieve = Sieve::of(&headers);
            let other = HeaderName::try_from(other).expect("a name");
            prop_assert_eq!(sieve.get(&headers, &other), headers.get(&other));
            for name in &names {
                let name = HeaderName::try_from(name).expect("a name");
                prop_assert!(sieve.may_have(&name));
                let mut copy = headers.clone();
                sieve.remove(&mut copy, &name);
                prop_assert!(!copy.contains_key(&name));
            }
        }
    }
}
