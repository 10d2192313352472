//! Resources of one type, shared by all proxies that get the same.

use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use crate::Resource;

/// The resources of one type, in the order of their names, each name once.
#[derive(Debug)]
pub struct List {
    resources: Vec<Arc<Resource>>,
    stamp: u64,
    news: Option<News>,
}

/// What is different from the list that this one was built upon.
#[derive(Debug)]
struct News {
    since: u64,
    names: Arc<[Arc<str>]>,
}

impl Default for List {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl List {
    /// A list of these. Of several of one name the first counts.
    pub fn new(mut resources: Vec<Arc<Resource>>) -> Self {
        resources.sort_by(|a, b| a.name.cmp(&b.name));
        resources.dedup_by(|a, b| a.name == b.name);
        let mut hash = Xxh3::new();
        for resource in &resources {
            hash.update(resource.name.as_bytes());
            hash.update(&[0]);
            hash.update(resource.version.as_bytes());
            hash.update(&[0]);
        }
        Self { stamp: hash.digest(), resources, news: None }
    }

    /// A list of these that knows what is different from an older one; the older one itself when nothing is.
    pub fn upon(resources: Vec<Arc<Resource>>, older: &Arc<Self>) -> Arc<Self> {
        let mut list = Self::new(resources);
        if list.stamp == older.stamp {
            return older.clone();
        }
        let names = list.differing(older).into();
        list.news = Some(News { since: older.stamp, names });
        Arc::new(list)
    }

    /// Equal stamps mean equal names and versions.
    pub fn stamp(&self) -> u64 {
        self.stamp
    }

    /// The resources, by name.
    pub fn resources(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// The resource of a name.
    pub fn find(&self, name: &str) -> Option<&Arc<Resource>> {
        let at = self.resources.binary_search_by(|resource| (*resource.name).cmp(name)).ok()?;
        self.resources.get(at)
    }

    /// The names of resources that are new, changed or gone since an older list.
    pub fn since(&self, older: &Self) -> Arc<[Arc<str>]> {
        match &self.news {
            _ if self.stamp == older.stamp => Arc::default(),
            Some(news) if news.since == older.stamp => news.names.clone(),
            _ => self.differing(older).into(),
        }
    }

    fn differing(&self, older: &Self) -> Vec<Arc<str>> {
        let (mut new, mut old) = (self.resources.iter().peekable(), older.resources.iter().peekable());
        let mut names = Vec::new();
        loop {
            let (ours, theirs) = match (new.peek(), old.peek()) {
                (None, None) => return names,
                (Some(ours), None) => (Some(*ours), None),
                (None, Some(theirs)) => (None, Some(*theirs)),
                (Some(ours), Some(theirs)) => match ours.name.cmp(&theirs.name) {
                    std::cmp::Ordering::Less => (Some(*ours), None),
                    std::cmp::Ordering::Greater => (None, Some(*theirs)),
                    std::cmp::Ordering::Equal => (Some(*ours), Some(*theirs)),
                },
            };
            let same =
                matches!((ours, theirs), (Some(a), Some(b)) if Arc::ptr_eq(a, b) || a.version == b.version);
            if !same {
                names.extend(ours.or(theirs).map(|resource| resource.name.clone()));
            }
            if ours.is_some() {
                new.next();
            }
            if theirs.is_some() {
                old.next();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(entries: &std::collections::BTreeMap<u8, u8>) -> Vec<Arc<Resource>> {
        let resource = |(name, version): (&u8, &u8)| {
            Arc::new(Resource {
                name: name.to_string().into(),
                version: version.to_string().into(),
                any: Default::default(),
                notes: Vec::new(),
            })
        };
        entries.iter().map(resource).collect()
    }

    proptest! {
        #[test]
        fn what_differs_is_what_was_added_changed_or_removed(
            old in prop::collection::btree_map(0..20u8, 0..3u8, 0..12),
            new in prop::collection::btree_map(0..20u8, 0..3u8, 0..12),
        ) {
            let older = Arc::new(List::new(list(&old)));
            let newer = List::upon(list(&new), &older);
            let mut expected: Vec<String> =
                (0..20u8).filter(|name| old.get(name) != new.get(name)).map(|name| name.to_string()).collect();
            expected.sort();
            let names: Vec<String> = newer.since(&older).iter().map(ToString::to_string).collect();
            prop_assert_eq!(&names, &expected);
            prop_assert_eq!(newer.stamp() == older.stamp(), old == new);
            let walked: Vec<String> = List::new(list(&new)).since(&older).iter().map(ToString::to_string).collect();
            prop_assert_eq!(walked, expected);
        }
    }
}
