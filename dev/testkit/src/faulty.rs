//! An HTTP server that passes requests on, but for those that it was told to spoil: an API server on a bad day.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is answered with this code, and with `Retry-After` where there is one.
    Answer {
        /// The status code.
        code: u16,
        /// Seconds.
        retry_after: Option<u32>,
        /// The body.
        body: &'static str,
    },
    /// It is neither passed on nor answered.
    Hang,
    /// It is carried out, and never answered.
    AnswerLost,
    /// The connection ends.
    Reset,
}

/// Which requests are spoilt.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The method; `WRITE` is any but GET.
    pub method: &'static str,
    /// A part of the path.
    pub path: &'static str,
    /// How many of them pass first.
    pub pass: usize,
    /// How many are spoilt then.
    pub times: usize,
    /// What becomes of them.
    pub fault: Fault,
}

impl Rule {
    /// All requests of the method whose path contains this.
    pub fn all(method: &'static str, path: &'static str, fault: Fault) -> Self {
        Self { method, path, pass: 0, times: usize::MAX, fault }
    }

    fn is_for(&self, method: &str, path: &str) -> bool {
        (self.method == method || self.method == "WRITE" && method != "GET") && path.contains(self.path)
    }
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    spoilt: usize,
}

/// The server; it ends when it is dropped.
pub struct FaultyServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _runtime: tokio::runtime::Runtime,
}

impl FaultyServer {
    /// Starts on a free port of the loopback, before a server that speaks plain HTTP.
    ///
    /// # Panics
    /// When there is no free port.
    pub fn before(upstream: SocketAddr) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = shared.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(request, upstream, state.clone()));
                    let server = hyper::server::conn::http1::Builder::new();
                    // A connection that we spoil ends with an error.
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, state, _runtime: runtime }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Spoils by these rules from now on, the first that is for a request.
    pub fn set(&self, rules: Vec<Rule>) {
        *self.state.lock().unwrap() = State { rules, spoilt: 0 };
    }

    /// How many requests were spoilt since the rules were set.
    pub fn spoilt(&self) -> usize {
        self.state.lock().unwrap().spoilt
    }
}

type Answer = Response<Either<Incoming, Full<Bytes>>>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn answer(
    request: Request<Incoming>,
    upstream: SocketAddr,
    state: Arc<Mutex<State>>,
) -> Result<Answer, Failure> {
    let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    match fault(&state, request.method().as_str(), &path) {
        None => Ok(passed_on(request, upstream).await?.map(Either::Left)),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Reset) => Err("reset".into()),
        Some(Fault::AnswerLost) => {
            let answer = passed_on(request, upstream).await?;
            answer.into_body().collect().await?;
            std::future::pending().await
        }
        Some(Fault::Answer { code, retry_after, body }) => {
            let mut answer = Response::builder().status(code);
            if let Some(seconds) = retry_after {
                answer = answer.header("retry-after", seconds);
            }
            Ok(answer.body(Either::Right(Full::from(body)))?)
        }
    }
}

fn fault(state: &Mutex<State>, method: &str, path: &str) -> Option<Fault> {
    let mut state = state.lock().unwrap();
    let rule = state.rules.iter_mut().find(|rule| rule.is_for(method, path) && rule.times > 0)?;
    if rule.pass > 0 {
        rule.pass -= 1;
        return None;
    }
    rule.times -= 1;
    let fault = rule.fault.clone();
    state.spoilt += 1;
    Some(fault)
}

async fn passed_on(request: Request<Incoming>, upstream: SocketAddr) -> Result<Response<Incoming>, Failure> {
    let stream = TcpStream::connect(upstream).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}
