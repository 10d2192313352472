//! Names by the node's own DNS server, where the system's resolver does not know the cluster's.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use tokio::net::UdpSocket;

use crate::transport::Resolver;

const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const TRIES: usize = 3;

/// A resolver that asks one server, for names as they are and, where they end in `svc`, with the cluster's suffix first.
pub fn by_server(server: SocketAddr) -> Resolver {
    std::sync::Arc::new(move |address| {
        Box::pin(async move {
            let (host, port) = split(&address)?;
            if let Ok(ip) = host.parse::<IpAddr>() {
                return Ok(SocketAddr::new(ip, port));
            }
            let mut failure = io::Error::other(format!("{host} does not resolve at {server}"));
            for name in candidates(host) {
                match lookup(server, &name).await {
                    Ok(Some(ip)) => return Ok(SocketAddr::new(ip, port)),
                    Ok(None) => {}
                    Err(error) => failure = error,
                }
            }
            Err(failure)
        })
    })
}

fn split(address: &str) -> io::Result<(&str, u16)> {
    address
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host.trim_matches(['[', ']']), port.parse().ok()?)))
        .ok_or_else(|| io::Error::other(format!("{address:?} is not of the form host:port")))
}

/// The forms that a pod's `resolv.conf` would try.
fn candidates(host: &str) -> Vec<String> {
    match host.ends_with(".svc") {
        true => vec![format!("{host}.cluster.local."), format!("{host}.")],
        false => vec![format!("{}.", host.trim_end_matches('.'))],
    }
}

async fn lookup(server: SocketAddr, name: &str) -> io::Result<Option<IpAddr>> {
    let name = Name::from_ascii(name).map_err(io::Error::other)?;
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, RecordType::A));
    let bytes = message.to_vec().map_err(io::Error::other)?;
    let local: IpAddr = if server.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
    let socket = UdpSocket::bind((local, 0)).await?;
    socket.connect(server).await?;
    let mut failure = io::Error::from(io::ErrorKind::TimedOut);
    for _ in 0..TRIES {
        match tokio::time::timeout(ANSWER_WITHIN, ask(&socket, &bytes, message.metadata.id)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => failure = error,
            Err(_) => {}
        }
    }
    Err(io::Error::new(failure.kind(), format!("DNS server {server}: {failure}")))
}

async fn ask(socket: &UdpSocket, query: &[u8], id: u16) -> io::Result<Option<IpAddr>> {
    socket.send(query).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let answer = Message::from_vec(&buffer[..length]).map_err(io::Error::other)?;
        if answer.metadata.id == id {
            return Ok(answer.answers.iter().find_map(|record| record.data.ip_addr()));
        }
    }
}
