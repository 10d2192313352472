use serde_json::json;

use super::*;

fn draft(name: &str, n: u64) -> Draft {
    Draft::new(
        json!({"metadata": {"namespace": "default", "name": name, "labels": {"app": name}}, "data": n}),
    )
}

#[tokio::test]
async fn writes_survive_and_preconditions_hold() {
    let dir = tempfile::tempdir().unwrap();
    let pods = ResourceName::from("pods");
    {
        let store = Store::open(dir.path()).unwrap();
        let created = store.write(&pods, Write::Create(draft("a", 1))).await.unwrap();
        assert_eq!(store.write(&pods, Write::Create(draft("a", 1))).await.unwrap_err(), Rejected::Exists);
        let update = |over| Write::Update { draft: draft("a", 2), over };
        store.write(&pods, update(created.resource_version)).await.unwrap();
        assert_eq!(
            store.write(&pods, update(created.resource_version)).await.unwrap_err(),
            Rejected::Modified
        );
        let gone = Write::Delete { namespace: "default".into(), name: "b".into(), over: 1 };
        assert_eq!(store.write(&pods, gone).await.unwrap_err(), Rejected::Gone);
        let (changes, upto) = store.changes(&pods, 0, 9).unwrap();
        assert_eq!((changes.len(), upto), (2, 2));
    }
    let store = reopen(dir.path());
    let object = store.get(&pods, "default", "a").unwrap();
    assert_eq!((object.resource_version, object.neutral().unwrap()["data"].clone()), (2, json!(2)));
    assert_eq!(object.labels.as_ref(), [("app".into(), "a".into())]);
    assert_eq!(store.resource_version(), 2);
    assert!(store.changes(&pods, 1, 9).is_none(), "what happened before the start is forgotten");
    assert!(store.changes(&pods, 2, 9).is_some());
}

#[tokio::test]
async fn owners_and_endings_are_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let pods = ResourceName::from("pods");
    let value = json!({"metadata": {
        "namespace": "default", "name": "a", "uid": "u1", "deletionTimestamp": "2026-01-01T00:00:00Z",
        "finalizers": ["example.com/x", "foregroundDeletion"],
        "ownerReferences": [{"uid": "u2", "blockOwnerDeletion": true}, {"uid": "u3"}, {"name": "of no uid"}],
    }});
    let written = {
        let store = Store::open(dir.path()).unwrap();
        store.write(&pods, Write::Create(draft("b", 1))).await.unwrap();
        store.write(&pods, Write::Create(Draft::new(value))).await.unwrap().ties.clone()
    };
    let owners: Vec<(&str, bool)> = written.owners.iter().map(|one| (&*one.uid, one.blocks)).collect();
    assert_eq!((&*written.uid, owners), ("u1", vec![("u2", true), ("u3", false)]));
    assert!(written.deleted && written.foreground);
    let store = reopen(dir.path());
    assert_eq!(store.get(&pods, "default", "a").unwrap().ties, written);
    assert_eq!(store.get(&pods, "default", "b").unwrap().ties, crate::object::Ties::default());
}

/// The writer thread closes the file when the last handle is gone, a moment later.
fn reopen(dir: &Path) -> Store {
    for _ in 0..6000 {
        match Store::open(dir) {
            Err(StoreError::InUse { .. }) => std::thread::sleep(std::time::Duration::from_millis(10)),
            other => return other.unwrap(),
        }
    }
    panic!("still in use");
}

#[tokio::test]
async fn concurrent_writers_share_commits_and_lists_page() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let pods = ResourceName::from("pods");
    let names: Vec<String> = (0..100).map(|i| format!("p{i:03}")).collect();
    let writes = names.iter().map(|name| store.write(&pods, Write::Create(draft(name, 0))));
    assert!(futures::future::join_all(writes).await.iter().all(Result::is_ok));
    let slice = Slice { namespace: Some("default"), at: None, after: None, limit: 30 };
    let page = store.page(&pods, &slice).unwrap();
    assert_eq!((page.objects.len(), page.total, page.more), (30, 100, true));
    let rest = Slice { namespace: None, after: Some(("default", "p029")), limit: usize::MAX, ..slice };
    let page = store.page(&pods, &rest).unwrap();
    assert_eq!((page.objects.len(), &*page.objects[0].name, page.more), (70, "p030", false));
    assert!(store.page(&pods, &Slice { namespace: Some("other"), ..slice }).unwrap().objects.is_empty());
    let beyond = Slice { namespace: Some("default"), after: Some(("other", "a")), ..slice };
    assert!(store.page(&pods, &beyond).unwrap().objects.is_empty());
}

/// What a list of a past state has to show: every state is noted when it is the newest.
#[tokio::test]
async fn pages_show_past_states() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let pods = ResourceName::from("pods");
    let mut states: Vec<(u64, Vec<(String, u64)>)> = Vec::new();
    for step in 0..60u64 {
        let name = format!("p{}", step * 7 % 10);
        let write = match store.get(&pods, "default", &name) {
            None => Write::Create(draft(&name, step)),
            Some(now) if step % 3 == 0 => {
                Write::Delete { namespace: "default".into(), name: name.into(), over: now.resource_version }
            }
            Some(now) => Write::Update { draft: draft(&name, step), over: now.resource_version },
        };
        store.write(&pods, write).await.unwrap();
        let all = store.list(&pods, None);
        let seen = all.objects.iter().map(|one| (one.name.to_string(), one.resource_version)).collect();
        states.push((all.resource_version, seen));
    }
    for (version, expected) in states {
        let (mut found, mut after) = (Vec::new(), None::<(String, String)>);
        loop {
            let last = after.as_ref().map(|(namespace, name)| (namespace.as_str(), name.as_str()));
            let slice = Slice { namespace: None, at: Some(version), after: last, limit: 3 };
            let page = store.page(&pods, &slice).unwrap();
            assert_eq!((page.total, page.resource_version), (expected.len(), version));
            found.extend(page.objects.iter().map(|one| (one.name.to_string(), one.resource_version)));
            if !page.more {
                break;
            }
            after = Some(("default".into(), found.last().unwrap().0.clone()));
        }
        assert_eq!(found, expected, "at {version}");
    }
    let forgotten = Slice { namespace: None, at: Some(1), after: None, limit: 3 };
    let names: Vec<String> = (0..1100).map(|step| format!("q{step}")).collect();
    let writes = names.iter().map(|name| store.write(&pods, Write::Create(draft(name, 0))));
    assert!(futures::future::join_all(writes).await.iter().all(Result::is_ok));
    assert!(store.page(&pods, &forgotten).is_none());
}

#[test]
fn a_state_of_another_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let database = redb::Database::create(dir.path().join("state.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(TableDefinition::<&str, u64>::new("meta")).unwrap().insert("format", 7).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = Store::open(dir.path()).err().unwrap().to_string();
    assert!(error.contains("format 7"), "{error}");
    std::fs::write(dir.path().join("state.redb"), "garbage").unwrap();
    assert!(Store::open(dir.path()).is_err());
}

use redb::TableDefinition;
