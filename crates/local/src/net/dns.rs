//! The DNS server of a node: names of services and of the outside; other names as the machine itself resolves them.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::directory::{Answer, DirectoryHandle};

/// Seconds an answer may be kept: endpoints come and go.
const TTL: u32 = 5;
/// How long the machine's own resolver may take.
const FOREIGN: Duration = Duration::from_secs(4);
/// What fits into a datagram without EDNS.
const DATAGRAM: usize = 512;

/// The server's sockets.
pub(crate) struct Dns {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
}

impl Dns {
    /// Binds both sockets.
    ///
    /// # Errors
    /// An address that is taken.
    pub(crate) async fn bind(at: SocketAddr) -> io::Result<Self> {
        Ok(Self { udp: Arc::new(UdpSocket::bind(at).await?), tcp: TcpListener::bind(at).await? })
    }

    /// Serves until it is dropped.
    pub(crate) async fn run(self, directory: DirectoryHandle) {
        tokio::join!(datagrams(self.udp, directory.clone()), streams(self.tcp, directory));
    }
}

async fn datagrams(socket: Arc<UdpSocket>, directory: DirectoryHandle) {
    let mut buffer = vec![0; 4096];
    loop {
        let Ok((size, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let (query, socket, directory) = (buffer[..size].to_vec(), socket.clone(), directory.clone());
        tokio::spawn(async move {
            if let Some(reply) = reply(&query, &directory, true).await {
                // A client that has gone asks again, or not.
                let _ = socket.send_to(&reply, peer).await;
            }
        });
    }
}

async fn streams(listener: TcpListener, directory: DirectoryHandle) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let directory = directory.clone();
                let served = tokio::time::timeout(Duration::from_secs(30), stream_of(stream, directory));
                tokio::spawn(served);
            }
            Err(error) => {
                tracing::warn!(%error, "the DNS server cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn stream_of(mut stream: TcpStream, directory: DirectoryHandle) -> io::Result<()> {
    loop {
        let size = stream.read_u16().await?;
        let mut query = vec![0; usize::from(size)];
        stream.read_exact(&mut query).await?;
        let Some(reply) = reply(&query, &directory, false).await else { return Ok(()) };
        let Ok(size) = u16::try_from(reply.len()) else { return Ok(()) };
        stream.write_u16(size).await?;
        stream.write_all(&reply).await?;
    }
}

/// The answer to a message; none to what is no question.
async fn reply(query: &[u8], directory: &DirectoryHandle, datagram: bool) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    if query.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut response = Message::response(query.metadata.id, query.metadata.op_code);
    response.metadata.recursion_desired = query.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.add_queries(query.queries.iter().cloned());
    response.metadata.response_code = match (query.metadata.op_code, &query.queries[..]) {
        (OpCode::Query, [question]) => {
            let (code, records) = answer(question.name(), question.query_type(), directory).await;
            response.add_answers(records);
            code
        }
        (OpCode::Query, _) => ResponseCode::FormErr,
        _ => ResponseCode::NotImp,
    };
    let bytes = response.to_vec().ok()?;
    let fits = usize::from(query.edns.as_ref().map_or(512, |edns| edns.max_payload())).max(DATAGRAM);
    if datagram && bytes.len() > fits { response.truncate().to_vec().ok() } else { Some(bytes) }
}

async fn answer(name: &Name, kind: RecordType, directory: &DirectoryHandle) -> (ResponseCode, Vec<Record>) {
    let host = name.to_ascii();
    let found = directory.borrow().look_up(&host);
    let record = |data: RData| Record::from_rdata(name.clone(), TTL, data);
    match found {
        Answer::Addresses(addresses) if kind == RecordType::A => {
            let data = addresses.into_iter().map(|address| record(RData::A(A(address))));
            (ResponseCode::NoError, data.collect())
        }
        Answer::Addresses(_) => (ResponseCode::NoError, Vec::new()),
        Answer::Alias(target) => match Name::from_ascii(format!("{}.", target.trim_end_matches('.'))) {
            Ok(target) => {
                let mut records = vec![record(RData::CNAME(CNAME(target.clone())))];
                let outside = directory.borrow().outside(&target.to_ascii());
                match outside {
                    Some(address) if kind == RecordType::A => {
                        records.push(Record::from_rdata(target, TTL, RData::A(A(address))));
                    }
                    Some(_) => {}
                    None => records.extend(foreign(&target, kind).await.unwrap_or_default()),
                }
                (ResponseCode::NoError, records)
            }
            Err(_) => (ResponseCode::ServFail, Vec::new()),
        },
        Answer::Nothing => (ResponseCode::NXDomain, Vec::new()),
        Answer::Foreign => match foreign(name, kind).await {
            Some(records) => (ResponseCode::NoError, records),
            None => (ResponseCode::NXDomain, Vec::new()),
        },
    }
}

/// Addresses as this machine resolves the name.
async fn foreign(name: &Name, kind: RecordType) -> Option<Vec<Record>> {
    let host = name.to_ascii();
    let host = host.trim_end_matches('.').to_owned();
    let found = tokio::time::timeout(FOREIGN, tokio::net::lookup_host((host, 0))).await.ok()?.ok()?;
    let data = found.filter_map(|address| match (address.ip(), kind) {
        (IpAddr::V4(ip), RecordType::A) => Some(RData::A(A(ip))),
        (IpAddr::V6(ip), RecordType::AAAA) => Some(RData::AAAA(AAAA(ip))),
        _ => None,
    });
    let mut records: Vec<Record> = data.map(|data| Record::from_rdata(name.clone(), TTL, data)).collect();
    records.dedup();
    Some(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::directory::Directory;
    use hickory_proto::op::Query;
    use serde_json::json;
    use tokio::sync::watch;

    fn directory() -> DirectoryHandle {
        let service = json!({"metadata": {"name": "web", "namespace": "ns"},
            "spec": {"clusterIP": "127.210.0.20", "ports": [{"port": 80}]}});
        let service = Arc::new(serde_json::from_value(service).unwrap());
        watch::channel(Arc::new(Directory::new(&[service], &[]))).1
    }

    fn question(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::query();
        message.metadata.id = 7;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message.to_vec().unwrap()
    }

    async fn asked(name: &str, kind: RecordType) -> Message {
        let reply = reply(&question(name, kind), &directory(), true).await.unwrap();
        Message::from_vec(&reply).unwrap()
    }

    #[tokio::test]
    async fn services_have_addresses() {
        let message = asked("web.ns.svc.cluster.local.", RecordType::A).await;
        assert_eq!(message.metadata.id, 7);
        assert_eq!(message.answers[0].data, RData::A(A([127, 210, 0, 20].into())));
        let message = asked("web.ns.svc.cluster.local.", RecordType::AAAA).await;
        assert_eq!((message.metadata.response_code, message.answers.len()), (ResponseCode::NoError, 0));
        let message = asked("none.ns.svc.cluster.local.", RecordType::A).await;
        assert_eq!(message.metadata.response_code, ResponseCode::NXDomain);
    }

    #[tokio::test]
    async fn other_names_are_the_machines() {
        let message = asked("localhost.", RecordType::A).await;
        assert_eq!(message.answers[0].data, RData::A(A([127, 0, 0, 1].into())));
    }

    #[tokio::test]
    async fn both_transports_answer() {
        let dns = Dns::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (udp, tcp) = (dns.udp.local_addr().unwrap(), dns.tcp.local_addr().unwrap());
        let server = tokio::spawn(dns.run(directory()));
        let query = question("web.ns.svc.", RecordType::A);
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(&query, udp).await.unwrap();
        let mut buffer = [0; 512];
        let (size, _) = client.recv_from(&mut buffer).await.unwrap();
        assert_eq!(Message::from_vec(&buffer[..size]).unwrap().answers.len(), 1);
        let mut stream = TcpStream::connect(tcp).await.unwrap();
        stream.write_u16(u16::try_from(query.len()).unwrap()).await.unwrap();
        stream.write_all(&query).await.unwrap();
        let size = stream.read_u16().await.unwrap();
        assert!(size > 12);
        server.abort();
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            // Only what is no question for a foreign name: those would ask the machine's resolver.
            if Message::from_vec(&bytes).is_ok_and(|message| !message.queries.is_empty()) {
                return Ok(());
            }
            runtime.block_on(reply(&bytes, &directory(), true));
        }
    }
}
