//! The client: HTTP/1 by hand (so that a scenario may send what it wants), HTTP/2 by a library, TLS below either.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{HandshakeKind, NamedGroup};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

use super::Problem;
use super::authority::{Authority, common_name, parts};
use super::call::{Call, Protocol};
use super::observe::Answer;

/// How long a client waits for anything more from its peer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A stream to a proxy, with or without TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection.
pub(crate) struct Connection {
    pub(crate) stream: BufReader<Box<dyn Stream>>,
    /// The client's own address, by which a log tells of the connection.
    pub(crate) own: Option<SocketAddr>,
    /// The common name of the certificate that the server showed.
    pub(crate) shown: Option<String>,
    /// TLS version, group of the key exchange, and kind of handshake.
    pub(crate) spoken: Option<String>,
}

/// Connects to a proxy as a call wants it.
pub(crate) struct Dialer<'a> {
    call: &'a Call,
    /// What it says in TLS, and to whom; none without TLS.
    secure: Option<(TlsConnector, ServerName<'static>)>,
}

impl<'a> Dialer<'a> {
    /// Of a call. What it does all resumes what it can, if the call wants it.
    pub(crate) fn of(call: &'a Call, authority: &Authority) -> Result<Self, Problem> {
        let secure = match &call.tls {
            None => None,
            Some(name) => {
                let told = if name.is_empty() { "no-name.test" } else { name };
                let server = told.to_owned().try_into().map_err(|_| format!("{name:?} is no server name"))?;
                let mut config = security(call, authority)?;
                config.enable_sni = !name.is_empty();
                Some((TlsConnector::from(Arc::new(config)), server))
            }
        };
        Ok(Self { call, secure })
    }

    /// One more connection.
    pub(crate) async fn connect(&self, to: SocketAddr) -> Result<Connection, Problem> {
        let tcp = dial(self.call, to).await?;
        let own = tcp.local_addr().ok();
        let Some((connector, server)) = &self.secure else {
            return Ok(Connection { stream: BufReader::new(Box::new(tcp)), own, shown: None, spoken: None });
        };
        let stream = connector.connect(server.clone(), tcp).await.map_err(|_| "tls".to_owned())?;
        let session = stream.get_ref().1;
        let shown = session.peer_certificates().and_then(<[_]>::first).map(common_name);
        let spoken = format!(
            "{:?} {:?} {:?}",
            session.protocol_version().unwrap_or(rustls::ProtocolVersion::Unknown(0)),
            session.negotiated_key_exchange_group().map_or(NamedGroup::Unknown(0), |group| group.name()),
            session.handshake_kind().unwrap_or(HandshakeKind::Full),
        );
        Ok(Connection { stream: BufReader::new(Box::new(stream)), own, shown, spoken: Some(spoken) })
    }
}

async fn dial(call: &Call, to: SocketAddr) -> Result<TcpStream, Problem> {
    let socket = TcpSocket::new_v4().map_err(|error| error.to_string())?;
    if let Some(last) = call.source {
        let source = SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0));
        socket.bind(source).map_err(|error| format!("{source}: {error}"))?;
    }
    let tcp = socket.connect(to).await.map_err(|error| format!("connect: {}", error.kind()))?;
    tcp.set_nodelay(true).map_err(|error| error.to_string())?;
    Ok(tcp)
}

fn security(call: &Call, authority: &Authority) -> Result<rustls::ClientConfig, Problem> {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    if let Some(cipher) = &call.cipher {
        provider.cipher_suites.retain(|suite| format!("{:?}", suite.suite()) == *cipher);
    }
    let versions: &[&rustls::SupportedProtocolVersion] = match call.version.as_deref() {
        None => rustls::ALL_VERSIONS,
        Some("1.2") => &[&rustls::version::TLS12],
        Some("1.3") => &[&rustls::version::TLS13],
        Some(other) => return Err(format!("tls:{other}: expected 1.2 or 1.3")),
    };
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anything));
    let mut config = match &call.certificate {
        Some(name) => {
            let (chain, key) = parts(&*authority.leaf(name)?)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = match call.protocol {
        Protocol::Http2 => vec![b"h2".to_vec()],
        Protocol::Http1 | Protocol::Http10 => vec![b"http/1.1".to_vec()],
        Protocol::Tcp => vec![],
    };
    if let Some(alpn) = &call.alpn {
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    }
    if !call.is("resume") {
        config.resumption = rustls::client::Resumption::disabled();
    }
    Ok(config)
}

/// Sends a call over a connection of HTTP/1 and reads its answer.
pub(crate) async fn http1(call: &Call, step: &str, connection: &mut Connection) -> Answer {
    let mut answer = Answer::over(connection);
    let (head, body) = request(call, step);
    let sent = connection.stream.write_all(head.as_bytes()).await;
    if !call.is("expect") && call.method != "CONNECT" && sent.is_ok() {
        // The answer may come, and the connection go, before all of the body is taken.
        let _ = connection.stream.write_all(body.as_bytes()).await;
    }
    if call.is("fin") && call.method != "CONNECT" {
        let _ = connection.stream.shutdown().await;
    }
    let reading = async {
        for _ in 1..call.answers {
            let mut before = Answer::default();
            read(call, &mut connection.stream, &mut before, "").await?;
            answer.before.push(format!("{} {}", before.status, before.body));
        }
        read(call, &mut connection.stream, &mut answer, &body).await
    };
    if let Err(end) = tokio::time::timeout(PATIENCE, reading).await.unwrap_or(Err("silent")) {
        answer.end = end.to_owned();
    }
    answer
}

/// The bytes of a call's head and body.
fn request(call: &Call, step: &str) -> (String, String) {
    if call.is("raw") {
        return (call.body.clone().unwrap_or_default().replace("$step", step), String::new());
    }
    let version = if call.protocol == Protocol::Http10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let target = if call.method == "CONNECT" { &call.authority } else { &call.path };
    let mut head = format!("{} {target} {version}\r\nx-step: {step}\r\n", call.method);
    let named = |name: &str| call.headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
    if !named("host") {
        head.push_str(&format!("host: {}\r\n", call.authority));
    }
    for (name, value) in &call.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = call.body.clone().unwrap_or_default();
    let body = match (call.is("chunked"), &call.body) {
        (true, _) => {
            head.push_str("transfer-encoding: chunked\r\n");
            let trailers: String =
                call.trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            format!("{:x}\r\n{body}\r\n0\r\n{trailers}\r\n", body.len())
        }
        (false, Some(_)) if !named("content-length") && call.method != "CONNECT" => {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
            body
        }
        _ => body,
    };
    if call.is("expect") {
        head.push_str("expect: 100-continue\r\n");
    }
    head.push_str("\r\n");
    (head, body)
}

type Reader = BufReader<Box<dyn Stream>>;

async fn read(call: &Call, stream: &mut Reader, answer: &mut Answer, body: &str) -> Result<(), &'static str> {
    loop {
        read_head(stream, answer).await?;
        match answer.status {
            100 => {
                answer.interim.push(100);
                stream.write_all(body.as_bytes()).await.map_err(|_| "closed")?;
            }
            102..200 if answer.status != 101 => answer.interim.push(answer.status),
            _ => break,
        }
    }
    let tunnel = answer.status == 101 || (call.method == "CONNECT" && answer.status == 200);
    if tunnel {
        return talk(call, stream, answer).await;
    }
    if call.method == "HEAD" || matches!(answer.status, 204 | 304) {
        return Ok(());
    }
    let header =
        |name: &str| answer.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    if header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        return read_chunks(stream, answer).await;
    }
    let mut body = Vec::new();
    let result = match header("content-length").and_then(|value| value.parse::<u64>().ok()) {
        Some(length) => {
            let read = stream.take(length).read_to_end(&mut body).await;
            if read.is_ok_and(|read| read as u64 == length) { Ok(()) } else { Err("truncated") }
        }
        None => {
            answer.until_close = true;
            stream.read_to_end(&mut body).await.map(drop).map_err(|_| "truncated")
        }
    };
    answer.body = String::from_utf8_lossy(&body).into_owned();
    result
}

/// After an upgrade: says `ping` (for CONNECT, what the call wants said), and reads that much back.
async fn talk(call: &Call, stream: &mut Reader, answer: &mut Answer) -> Result<(), &'static str> {
    let word = match &call.body {
        Some(body) if call.method == "CONNECT" => body.clone(),
        _ => "ping\n".to_owned(),
    };
    stream.write_all(word.as_bytes()).await.map_err(|_| "closed")?;
    if call.is("fin") {
        stream.shutdown().await.map_err(|_| "closed")?;
    }
    let mut bytes = Vec::new();
    let read = match call.is("fin") || call.is("hold") {
        true => stream.read_to_end(&mut bytes).await,
        false => stream.read_until(b'\n', &mut bytes).await,
    };
    answer.body = String::from_utf8_lossy(&bytes).into_owned();
    read.map(drop).map_err(|_| "closed")
}

async fn read_head(stream: &mut Reader, answer: &mut Answer) -> Result<(), &'static str> {
    let mut line = String::new();
    if !matches!(stream.read_line(&mut line).await, Ok(1..)) {
        return Err("closed");
    }
    let mut words = line.split_whitespace();
    answer.version = words.next().unwrap_or_default().to_owned();
    answer.status = words.next().and_then(|word| word.parse().ok()).ok_or("nonsense")?;
    answer.headers.clear();
    answer.names.clear();
    read_fields(stream, |name, value| {
        answer.names.push(name.to_owned());
        answer.headers.push((name.to_ascii_lowercase(), value.to_owned()));
    })
    .await
}

async fn read_fields(stream: &mut Reader, mut each: impl FnMut(&str, &str)) -> Result<(), &'static str> {
    loop {
        let mut line = String::new();
        if !matches!(stream.read_line(&mut line).await, Ok(1..)) {
            return Err("truncated");
        }
        match line.trim_end().split_once(':') {
            Some((name, value)) => each(name, value.trim()),
            None if line.trim().is_empty() => return Ok(()),
            None => return Err("nonsense"),
        }
    }
}

async fn read_chunks(stream: &mut Reader, answer: &mut Answer) -> Result<(), &'static str> {
    loop {
        let mut line = String::new();
        if !matches!(stream.read_line(&mut line).await, Ok(1..)) {
            return Err("truncated");
        }
        let size = usize::from_str_radix(line.trim(), 16).map_err(|_| "nonsense")?;
        if size == 0 {
            let trailers = &mut answer.trailers;
            return read_fields(stream, |name, value| {
                trailers.push((name.to_ascii_lowercase(), value.to_owned()));
            })
            .await;
        }
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).await.map_err(|_| "truncated")?;
        answer.body.push_str(&String::from_utf8_lossy(&chunk[..size]));
    }
}

/// Sends a call over a connection of its own of HTTP/2.
pub(crate) async fn http2(call: &Call, step: &str, connection: Connection) -> Answer {
    let mut answer = Answer { version: "HTTP/2".to_owned(), ..Answer::over(&connection) };
    let result = tokio::time::timeout(PATIENCE, exchange(call, step, connection, &mut answer)).await;
    if let Err(end) = result.unwrap_or(Err("silent")) {
        answer.end = end.to_owned();
    }
    answer
}

async fn exchange(
    call: &Call,
    step: &str,
    connection: Connection,
    answer: &mut Answer,
) -> Result<(), &'static str> {
    let io = TokioIo::new(connection.stream);
    let shake = hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut sender, driver) = shake.await.map_err(|_| "closed")?;
    tokio::spawn(driver);
    let scheme = if call.tls.is_some() { "https" } else { "http" };
    let mut request = hyper::Request::builder()
        .method(call.method.as_str())
        .uri(format!("{scheme}://{}{}", call.authority, call.path))
        .header("x-step", step);
    for (name, value) in &call.headers {
        request = request.header(name, value);
    }
    let data = Bytes::from(call.body.clone().unwrap_or_default());
    let mut trailers = http::HeaderMap::new();
    for (name, value) in &call.trailers {
        let name: http::HeaderName = name.parse().map_err(|_| "a trailer's name is none")?;
        trailers.append(name, value.parse().map_err(|_| "a trailer's value is none")?);
    }
    let body = match trailers.is_empty() {
        true => Full::new(data).boxed(),
        false => {
            let frames = [Frame::data(data), Frame::trailers(trailers)].map(Ok);
            BodyExt::boxed(StreamBody::new(futures::stream::iter(frames)))
        }
    };
    let request = request.body(body).map_err(|_| "the request cannot be made")?;
    let response = sender.send_request(request).await.map_err(|_| "closed")?;
    let (head, mut body) = response.into_parts();
    answer.status = head.status.as_u16();
    answer.headers = fields(&head.headers);
    while let Some(frame) = body.frame().await {
        match frame.map_err(|_| "truncated")?.into_data() {
            Ok(data) => answer.body.push_str(&String::from_utf8_lossy(&data)),
            Err(frame) => answer.trailers = frame.trailers_ref().map(fields).unwrap_or_default(),
        }
    }
    Ok(())
}

fn fields(map: &http::HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    map.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

/// Takes every certificate: the suite compares which one was shown.
#[derive(Debug)]
struct Anything;

impl rustls::client::danger::ServerCertVerifier for Anything {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.signature_verification_algorithms.supported_schemes()
    }
}
