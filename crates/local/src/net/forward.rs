//! Listeners at service addresses and node ports.

use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use rand::seq::IndexedRandom;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::directory::{Backends, DirectoryHandle, ServiceRef};
use super::relay;

/// How many endpoints are tried for one connection.
const TRIES: usize = 3;

/// An address of a service that cannot be listened at.
#[derive(Debug)]
pub(crate) struct Unbound {
    pub(crate) service: Arc<ServiceRef>,
    pub(crate) address: SocketAddrV4,
    pub(crate) error: io::Error,
}

struct Listener {
    backends: watch::Sender<Arc<Backends>>,
    task: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Keeps a listener at every address that has endpoints. What cannot be bound is told once per address.
pub(crate) async fn run(mut directory: DirectoryHandle, node: Ipv4Addr, failures: mpsc::Sender<Unbound>) {
    let mut listeners: BTreeMap<SocketAddrV4, Listener> = BTreeMap::new();
    let mut told: HashSet<SocketAddrV4> = HashSet::new();
    loop {
        let wanted = directory.borrow_and_update().listeners(node);
        listeners.retain(|address, _| wanted.contains_key(address));
        told.retain(|address| wanted.contains_key(address));
        for (address, backends) in wanted {
            if let Some(listener) = listeners.get(&address) {
                listener.backends.send_if_modified(|now| {
                    let differs = *now != backends;
                    *now = backends;
                    differs
                });
                continue;
            }
            match listen(address) {
                Ok(socket) => {
                    let (sender, watched) = watch::channel(backends);
                    let task = tokio::spawn(accept(socket, node, watched));
                    listeners.insert(address, Listener { backends: sender, task });
                }
                Err(error) if told.insert(address) => {
                    let service = backends.service.clone();
                    // Nobody to tell: the cluster is ending.
                    let _ = failures.send(Unbound { service, address, error }).await;
                }
                Err(_) => {}
            }
        }
        if directory.changed().await.is_err() {
            return;
        }
    }
}

/// A listening socket that may follow upon one that was closed a moment ago.
pub(super) fn listen(address: SocketAddrV4) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::V4(address).into())?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

async fn accept(listener: TcpListener, node: Ipv4Addr, backends: watch::Receiver<Arc<Backends>>) {
    loop {
        match listener.accept().await {
            Ok((client, peer)) => {
                let backends = backends.borrow().clone();
                tokio::spawn(forward(client, peer, node, backends));
            }
            Err(error) => {
                // Out of descriptors, most likely: give others the time to close some.
                tracing::warn!(%error, "a service address cannot accept");
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

async fn forward(client: TcpStream, peer: SocketAddr, node: Ipv4Addr, backends: Arc<Backends>) {
    let source = if backends.keeps_source { peer.ip() } else { IpAddr::V4(node) };
    match reach(&backends, peer.ip(), source).await {
        Some(upstream) => relay::splice(client, upstream).await,
        None => relay::reset(client),
    }
}

/// Connects to an endpoint, another one when the first does not answer.
pub(super) async fn reach(backends: &Backends, client: IpAddr, source: IpAddr) -> Option<TcpStream> {
    for endpoint in order(backends, client) {
        match relay::connect(endpoint, Some(source)).await {
            Ok(upstream) => return Some(upstream),
            Err(error) => tracing::debug!(%error, %endpoint, "an endpoint does not answer"),
        }
    }
    None
}

fn order(backends: &Backends, client: IpAddr) -> Vec<SocketAddr> {
    let endpoints = &backends.endpoints;
    if backends.sticky && !endpoints.is_empty() {
        let mut hasher = std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default().build_hasher();
        std::hash::Hash::hash(&client, &mut hasher);
        let at = usize::try_from(hasher.finish() % endpoints.len() as u64).unwrap_or(0);
        return vec![endpoints[at]];
    }
    endpoints.choose_multiple(&mut rand::rng(), TRIES).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::directory::Directory;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A service on a free port of 127.0.0.1 whose endpoint is at `port`.
    fn directory(at: u16, port: u16, ready: bool) -> Arc<Directory> {
        let service = json!({"metadata": {"name": "s", "namespace": "n"}, "spec": {"clusterIP": "127.0.0.1",
            "ports": [{"name": "tcp", "port": at}]}});
        let slice = json!({"metadata": {"name": "s", "namespace": "n", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv4", "ports": [{"name": "tcp", "port": port}],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": ready}}]});
        let service = Arc::new(serde_json::from_value(service).unwrap());
        Arc::new(Directory::new(&[service], &[Arc::new(serde_json::from_value(slice).unwrap())]))
    }

    async fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
    }

    async fn connect(port: u16) -> TcpStream {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            match TcpStream::connect(("127.0.0.1", port)).await {
                Ok(stream) => return stream,
                Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn bytes_and_resets_pass_and_without_endpoints_callers_are_refused() {
        let endpoint = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (at, port) = (free_port().await, endpoint.local_addr().unwrap().port());
        let (sender, handle) = watch::channel(directory(at, port, true));
        let (failures, _failed) = mpsc::channel(1);
        let forwarder = tokio::spawn(run(handle, Ipv4Addr::LOCALHOST, failures));

        let mut client = connect(at).await;
        let (mut server, _) = endpoint.accept().await.unwrap();
        client.write_all(b"ping").await.unwrap();
        let mut buffer = [0; 4];
        server.read_exact(&mut buffer).await.unwrap();
        server.write_all(b"pong").await.unwrap();
        client.read_exact(&mut buffer).await.unwrap();
        assert_eq!(&buffer, b"pong");
        relay::reset(server);
        let error = client.read(&mut buffer).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);

        sender.send_replace(directory(at, port, false));
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            match TcpStream::connect(("127.0.0.1", at)).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => break,
                _ => assert!(tokio::time::Instant::now() < deadline, "somebody still listens"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        forwarder.abort();
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_told() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = taken.local_addr().unwrap().port();
        let (_sender, handle) = watch::channel(directory(at, 1, true));
        let (failures, mut failed) = mpsc::channel(1);
        let forwarder = tokio::spawn(run(handle, Ipv4Addr::LOCALHOST, failures));
        let unbound = failed.recv().await.unwrap();
        assert_eq!((unbound.address.port(), &*unbound.service.name), (at, "s"));
        assert_eq!(unbound.error.kind(), io::ErrorKind::AddrInUse);
        forwarder.abort();
    }

    #[test]
    fn a_sticky_client_keeps_its_endpoint() {
        let endpoints: Vec<SocketAddr> = (1..=9).map(|port| ([127, 0, 0, 1], port).into()).collect();
        let service = Arc::new(ServiceRef { namespace: "n".into(), name: "s".into() });
        let backends = Backends { service, endpoints, sticky: true, keeps_source: true };
        let client = IpAddr::from([127, 0, 0, 9]);
        assert_eq!(order(&backends, client), order(&backends, client));
        assert_eq!(order(&Backends { sticky: false, ..backends }, client).len(), TRIES);
    }
}
