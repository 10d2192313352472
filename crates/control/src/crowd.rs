//! How many there are of something at once: connections of an address, streams of a proxy. What is counted goes with
//! its [`Place`].

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts by key. Clones share the counts.
#[derive(Clone)]
pub(crate) struct Crowd<K> {
    most: usize,
    each: usize,
    inside: Arc<Mutex<Inside<K>>>,
}

struct Inside<K> {
    total: usize,
    by_key: HashMap<K, usize>,
}

/// One of those that are counted, as long as it lives.
pub(crate) struct Place<K: Hash + Eq> {
    key: K,
    inside: Arc<Mutex<Inside<K>>>,
}

/// Why nobody gets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// There are so many in all.
    All(usize),
    /// There are so many of that key.
    Key(usize),
}

impl<K: Hash + Eq + Clone> Crowd<K> {
    /// At most `most` in all, and `each` of one key.
    pub(crate) fn new(most: usize, each: usize) -> Self {
        let inside = Inside { total: 0, by_key: HashMap::new() };
        Self { most, each, inside: Arc::new(Mutex::new(inside)) }
    }

    /// Takes a place.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn enter(&self, key: K) -> Result<Place<K>, Full> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.total >= self.most {
            return Err(Full::All(self.most));
        }
        let count = inside.by_key.entry(key.clone()).or_insert(0);
        if *count >= self.each {
            return Err(Full::Key(self.each));
        }
        *count += 1;
        inside.total += 1;
        Ok(Place { key, inside: self.inside.clone() })
    }
}

impl<K: Hash + Eq> Drop for Place<K> {
    fn drop(&mut self) {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.total -= 1;
        if let Some(count) = inside.by_key.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                inside.by_key.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_limited_in_all_and_by_key_and_come_back() {
        let crowd = Crowd::new(3, 2);
        let first = crowd.enter("a").unwrap();
        let second = crowd.enter("a").unwrap();
        assert_eq!(crowd.enter("a").err(), Some(Full::Key(2)));
        let _third = crowd.enter("b").unwrap();
        assert_eq!(crowd.enter("c").err(), Some(Full::All(3)));
        drop(first);
        let _again = crowd.enter("a").unwrap();
        drop(second);
        let _other = crowd.enter("c").unwrap();
        assert_eq!(crowd.inside.lock().unwrap().by_key.len(), 3);
    }
}
