//! Keeps the wanted keys fresh.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::fetch::{FetchError, Fetcher};

/// How many are fetched at a time.
const AT_ONCE: usize = 8;
/// The wait after a first failure; it doubles with every further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// What became of a fetch.
type Fetched = (String, Result<String, FetchError>);

/// An address whose keys are wanted.
#[derive(Debug)]
struct Entry {
    /// When it is to be fetched; none while it is.
    due: Option<Instant>,
    failures: u32,
    told: String,
}

/// Fetches what is wanted, again after `refresh`, sooner after a failure. Ends when nobody listens.
pub(crate) async fn keep(
    fetcher: Fetcher,
    refresh: Duration,
    mut wanted: watch::Receiver<BTreeSet<String>>,
    keys: mpsc::Sender<(String, String)>,
) {
    let fetcher = Arc::new(fetcher);
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    let mut running: JoinSet<Fetched> = JoinSet::new();
    loop {
        let now = Instant::now();
        for (uri, entry) in entries.iter_mut().filter(|(_, entry)| entry.due.is_some_and(|due| due <= now)) {
            entry.due = None;
            let (uri, fetcher, turns) = (uri.clone(), fetcher.clone(), turns.clone());
            running.spawn(async move {
                // Never closed: a failure to wait is no reason not to fetch.
                let _turn = turns.acquire().await;
                let result = fetcher.fetch(&uri).await;
                (uri, result)
            });
        }
        let next = entries.values().filter_map(|entry| entry.due).min();
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                let wanted = wanted.borrow_and_update();
                entries.retain(|uri, _| wanted.contains(uri));
                for uri in wanted.iter() {
                    let new = || Entry { due: Some(now), failures: 0, told: String::new() };
                    entries.entry(uri.clone()).or_insert_with(new);
                }
            }
            Some(done) = running.join_next(), if !running.is_empty() => {
                // A fetch that was cancelled with the runtime has no result.
                let Ok((uri, result)) = done else { continue };
                let Some(entry) = entries.get_mut(&uri) else { continue };
                entry.due = Some(Instant::now() + entry.finished(&uri, &result, refresh));
                if let Ok(text) = result
                    && keys.send((uri, text)).await.is_err()
                {
                    return;
                }
            }
            () = sleep_until(next) => {}
        }
    }
}

impl Entry {
    /// Says what is new, and how long to wait for the next fetch.
    fn finished(&mut self, uri: &str, result: &Result<String, FetchError>, refresh: Duration) -> Duration {
        match result {
            Ok(_) => {
                if std::mem::take(&mut self.failures) > 0 || self.told.is_empty() {
                    tracing::info!(target: "model", "keys of {uri} fetched");
                }
                self.told = "fetched".to_owned();
                refresh
            }
            Err(error) => {
                let words = error.to_string();
                if self.told != words {
                    tracing::warn!(
                        target: "model",
                        "keys of {uri} not fetched: {words}; those fetched before stay, without any its tokens are refused"
                    );
                    self.told = words;
                }
                let wait = FIRST_WAIT.saturating_mul(1 << self.failures.min(16));
                self.failures = self.failures.saturating_add(1);
                wait.min(refresh)
            }
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::Router;
    use axum::response::Redirect;
    use axum::routing::get;
    use tokio::net::TcpListener;

    use super::*;

    const KEYS: &str = r#"{"keys":[{"kty":"EC"}]}"#;

    /// A server of keys; every answer has a number.
    async fn server() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let keys = move || {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            async move { format!(r#"{{"keys":[{{"kty":"EC","kid":"{number}"}}]}}"#) }
        };
        let router = Router::new()
            .route("/keys", get(keys))
            .route("/same", get(|| async { KEYS }))
            .route("/away", get(|| async { Redirect::temporary("/same") }))
            .route("/round", get(|| async { Redirect::temporary("/round") }))
            .route("/large", get(|| async { "x".repeat(2 << 20) }))
            .route("/html", get(|| async { "<html>" }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        (address, count)
    }

    fn fetcher(allowed: &[&str]) -> Fetcher {
        let allowed = allowed.iter().map(|block| block.parse().unwrap()).collect();
        Fetcher { allowed, proxy: None, no_proxy: Vec::new(), dns: None, tls: Err("a test has none".into()) }
    }

    #[tokio::test]
    async fn keys_are_fetched_from_where_it_is_allowed() {
        let (address, _) = server().await;
        let ours = fetcher(&["127.0.0.0/8"]);
        let at = |path: &str| format!("http://{address}{path}");
        assert_eq!(ours.fetch(&at("/same")).await.unwrap(), KEYS);
        assert_eq!(ours.fetch(&at("/away")).await.unwrap(), KEYS);
        assert!(matches!(ours.fetch(&at("/round")).await, Err(FetchError::Redirects)));
        assert!(matches!(ours.fetch(&at("/large")).await, Err(FetchError::Body(_))));
        assert!(matches!(ours.fetch(&at("/html")).await, Err(FetchError::Keys(_))));
        assert!(matches!(ours.fetch(&at("/none")).await, Err(FetchError::Status(_))));
        assert!(matches!(ours.fetch("ftp://x/y").await, Err(FetchError::Address(_))));
        assert!(matches!(ours.fetch("http://u:p@127.0.0.1/y").await, Err(FetchError::Address(_))));
        assert!(matches!(ours.fetch(&format!("https://{address}/same")).await, Err(FetchError::Roots(..))));
        let strict = fetcher(&[]);
        assert!(matches!(strict.fetch(&at("/same")).await, Err(FetchError::Private(..))));
    }

    #[tokio::test]
    async fn wanted_keys_stay_fresh_and_others_are_let_go() {
        let (address, count) = server().await;
        let (want, wanted) = watch::channel(BTreeSet::new());
        let (keys, mut fetched) = mpsc::channel(4);
        tokio::spawn(keep(fetcher(&["127.0.0.0/8"]), Duration::from_millis(20), wanted, keys));
        let uri = format!("http://{address}/keys");
        want.send_replace(BTreeSet::from([uri.clone()]));
        for number in 0..3 {
            let next = tokio::time::timeout(Duration::from_secs(60), fetched.recv()).await.unwrap().unwrap();
            assert_eq!(next.0, uri);
            assert!(next.1.contains(&format!("\"{number}\"")), "{next:?}");
        }
        want.send_replace(BTreeSet::new());
        drop(fetched);
        drop(want);
        assert!(count.load(Ordering::SeqCst) >= 3);
    }
}
