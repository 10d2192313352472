//! The pools of one worker.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use lateen_route::FastMap;
use tokio::time::Instant;

use super::pool::{Pool, Protocol};

/// What tells pools apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    /// The host.
    pub host: u64,
    /// The way of connecting: distinct for every version of a cluster's settings and secrets.
    pub way: u64,
    /// The priority, whose circuit breakers hold.
    pub priority: usize,
    /// The protocol, which may follow the client's.
    pub protocol: Protocol,
    /// The server name, where it follows the request's host.
    pub server_name: Option<Arc<str>>,
    /// Application protocols that a filter chose, joined by commas.
    pub alpn: Option<Arc<str>>,
    /// The client and where it connected to, where upstream is told of them.
    pub client: Option<(std::net::SocketAddr, std::net::SocketAddr)>,
}

/// Pools by key.
#[derive(Debug, Default)]
pub(crate) struct Pools(RefCell<FastMap<PoolKey, Rc<Pool>>>);

impl Pools {
    /// The pool of a key, made if it is the first time.
    pub(crate) fn of(&self, key: PoolKey, make: impl FnOnce() -> Rc<Pool>) -> Rc<Pool> {
        self.0.borrow_mut().entry(key).or_insert_with(make).clone()
    }

    /// Closes connections that are idle for too long, and forgets pools that are empty.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        self.0.borrow_mut().retain(|_, pool| pool.sweep(now));
    }

    /// Closes the connections of keys that `keep` refuses, once their exchanges are over.
    pub(crate) fn prune(&self, keep: &dyn Fn(&PoolKey) -> bool) {
        self.0.borrow_mut().retain(|key, pool| {
            let kept = keep(key);
            if !kept {
                pool.close();
            }
            kept
        });
    }
}
