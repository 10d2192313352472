//! A small DNS client over UDP: A and AAAA, one server after the other, answers kept for as long as they say.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use lateen_route::cluster::DnsFamily;
use tokio::net::UdpSocket;
use tokio::time::Instant;

/// How long one server may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Answers kept.
const CACHE: usize = 4096;
/// How long a name without address is remembered.
const NEGATIVE: Duration = Duration::from_secs(1);

/// Why a name has no address.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum DnsError {
    /// It is no name.
    #[error("{0:?} is no DNS name")]
    Name(String),
    /// No server answered.
    #[error("no answer for {0} from {1:?}")]
    Silence(String, Vec<SocketAddr>),
    /// The server says that there is none.
    #[error("{0} has no address ({1})")]
    None(String, ResponseCode),
}

impl DnsError {
    /// Whether the server says that there is nothing, rather than that it cannot say.
    pub(crate) fn is_absence(&self) -> bool {
        matches!(self, Self::None(_, ResponseCode::NXDomain | ResponseCode::NoError))
    }
}

/// A name's addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The addresses, in the server's order.
    pub addresses: Vec<IpAddr>,
    /// How long they hold.
    pub ttl: Duration,
}

/// What was answered, and until when it holds.
type Kept = (Instant, Result<Answer, DnsError>);

/// Where names are looked up.
#[derive(Debug)]
pub(crate) struct Resolver {
    servers: Vec<SocketAddr>,
    family: DnsFamily,
    search: Vec<String>,
    cache: Mutex<HashMap<String, Kept>>,
}

impl Resolver {
    /// A resolver that asks `servers`, or the system's when there are none.
    pub(crate) fn new(servers: &[SocketAddr], family: DnsFamily) -> Self {
        let text =
            if servers.is_empty() { std::fs::read_to_string("/etc/resolv.conf") } else { Ok(String::new()) };
        let (found, search) = parse_resolv_conf(&text.unwrap_or_default());
        let servers = if servers.is_empty() { found } else { servers.to_vec() };
        Self { servers, family, search, cache: Mutex::default() }
    }

    /// Looks a name up.
    ///
    /// # Errors
    /// When it has no address, or nobody answers.
    pub(crate) async fn lookup(&self, name: &str) -> Result<Answer, DnsError> {
        if let Ok(ip) = name.parse() {
            return Ok(Answer { addresses: vec![ip], ttl: Duration::MAX });
        }
        if name == "localhost" {
            return Ok(Answer {
                addresses: vec![IpAddr::from([127, 0, 0, 1])],
                ttl: Duration::from_secs(60),
            });
        }
        if let Some((until, answer)) = self.cache.lock().unwrap_or_else(PoisonError::into_inner).get(name)
            && Instant::now() < *until
        {
            return answer.clone();
        }
        let answer = self.ask(name).await;
        let ttl = answer.as_ref().map_or(NEGATIVE, |answer| answer.ttl.max(NEGATIVE));
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= CACHE {
            cache.clear();
        }
        cache.insert(name.to_owned(), (Instant::now() + ttl, answer.clone()));
        answer
    }

    async fn ask(&self, name: &str) -> Result<Answer, DnsError> {
        let mut candidates = vec![name.to_owned()];
        if !name.contains('.') {
            candidates.extend(self.search.iter().map(|domain| format!("{name}.{domain}")));
        }
        let mut result = Err(DnsError::Name(name.to_owned()));
        for candidate in candidates {
            result = self.ask_families(&candidate).await;
            if result.is_ok() {
                break;
            }
        }
        result
    }

    async fn ask_families(&self, name: &str) -> Result<Answer, DnsError> {
        let (first, second) = match self.family {
            DnsFamily::V4Only => (RecordType::A, None),
            DnsFamily::V6Only => (RecordType::AAAA, None),
            DnsFamily::V4Preferred | DnsFamily::All => (RecordType::A, Some(RecordType::AAAA)),
            DnsFamily::Auto => (RecordType::AAAA, Some(RecordType::A)),
        };
        let answer = self.ask_type(name, first).await;
        match (answer, second) {
            (Ok(mut answer), Some(second)) if self.family == DnsFamily::All => {
                if let Ok(more) = self.ask_type(name, second).await {
                    answer.addresses.extend(more.addresses);
                }
                Ok(answer)
            }
            (Ok(answer), _) => Ok(answer),
            (Err(_), Some(second)) => self.ask_type(name, second).await,
            (Err(error), None) => Err(error),
        }
    }

    async fn ask_type(&self, name: &str, kind: RecordType) -> Result<Answer, DnsError> {
        let mut asked = Name::from_utf8(name).map_err(|_| DnsError::Name(name.to_owned()))?;
        asked.set_fqdn(true);
        let id = rand::random();
        let mut query = Message::new(id, MessageType::Query, OpCode::Query);
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(asked, kind));
        let bytes = query.to_vec().map_err(|_| DnsError::Name(name.to_owned()))?;
        for server in &self.servers {
            if let Ok(Ok(message)) = tokio::time::timeout(PATIENCE, exchange(*server, &bytes, id)).await {
                return read(name, kind, &message);
            }
        }
        Err(DnsError::Silence(name.to_owned(), self.servers.clone()))
    }
}

async fn exchange(server: SocketAddr, query: &[u8], id: u16) -> std::io::Result<Message> {
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match Message::from_vec(&buffer[..length]) {
            Ok(message) if message.metadata.id == id => return Ok(message),
            // Not ours, or noise.
            _ => {}
        }
    }
}

fn read(name: &str, kind: RecordType, message: &Message) -> Result<Answer, DnsError> {
    let mut ttl = u32::MAX;
    let mut addresses = Vec::new();
    for record in &message.answers {
        let ip: IpAddr = match &record.data {
            RData::A(a) if kind == RecordType::A => a.0.into(),
            RData::AAAA(aaaa) if kind == RecordType::AAAA => aaaa.0.into(),
            _ => continue,
        };
        ttl = ttl.min(record.ttl);
        addresses.push(ip);
    }
    if addresses.is_empty() {
        return Err(DnsError::None(name.to_owned(), message.metadata.response_code));
    }
    Ok(Answer { addresses, ttl: Duration::from_secs(ttl.into()) })
}

fn parse_resolv_conf(text: &str) -> (Vec<SocketAddr>, Vec<String>) {
    let mut servers = Vec::new();
    let mut search = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => {
                servers.extend(words.filter_map(|word| Some(SocketAddr::new(word.parse().ok()?, 53))));
            }
            Some("search" | "domain") => search = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    (servers, search)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_resolv_conf() {
        let (servers, search) =
            parse_resolv_conf("# x\nnameserver 10.96.0.10\nsearch a.svc b\noptions ndots:5\n");
        assert_eq!(servers, ["10.96.0.10:53".parse().unwrap()]);
        assert_eq!(search, ["a.svc", "b"]);
    }

    #[tokio::test]
    async fn addresses_need_no_server() {
        let resolver = Resolver::new(&["127.0.0.1:1".parse().unwrap()], DnsFamily::V4Only);
        assert_eq!(
            resolver.lookup("10.0.0.1").await.unwrap().addresses,
            ["10.0.0.1".parse::<IpAddr>().unwrap()]
        );
        assert!(resolver.lookup("bad..name").await.is_err());
    }
}
