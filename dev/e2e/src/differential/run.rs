//! Lanes: each has a control plane, our proxy, a stock Envoy and workloads, and runs scenarios one after the other.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::Value;
use testkit::envoy::Envoy;

use super::authority::Authority;
use super::call::{Call, Protocol};
use super::client::{Dialer, http1, http2};
use super::configuration::{rebind, translate};
use super::judge::Pair;
use super::log::{Awaited, byte_lines, is_of_connection, length};
use super::names::{Names, Serving, serve};
use super::observe::{Answer, Observation};
use super::plane::Plane;
use super::scenario::{File, Kind, Pause, Scenario};
use super::subject::{Site, Subject, Who};
use super::workload::Workloads;
use super::world::Place;
use super::{DEADLINE, Problem};
use super::{tcp_client, tokens};

/// How long figures may take to agree.
const FIGURES: Duration = Duration::from_secs(3);
/// The port of a gateway that a call goes to when it names none.
const GATEWAY_PORT: u16 = 8080;
/// The port of the HTTP proxy in loopback isolation.
const HTTP_PROXY: u16 = 15007;

/// What came of a scenario.
#[derive(Debug)]
pub struct Verdict {
    /// `TOPIC / NAME`.
    pub scenario: String,
    /// What is wrong; empty when all is well.
    pub wrong: String,
    /// How long it took.
    pub took: Duration,
}

struct Lane {
    plane: Plane,
    ours: Subject,
    envoy: Subject,
    workloads: Workloads,
    names: Names,
    /// Another resolver, which configuration may name.
    elsewhere: Names,
    elsewhere_at: Ipv4Addr,
    _resolvers: [Serving; 2],
    authority: Arc<Authority>,
    kept: PathBuf,
    _lease: tokio::net::TcpListener,
    _folder: tempfile::TempDir,
}

/// Runs all scenarios in so many lanes; what failed leaves its configuration in a folder below `kept`.
///
/// # Errors
/// When a lane cannot be set up.
pub async fn run_all(
    files: Vec<(String, File)>,
    lanes: usize,
    envoy: &Envoy,
    kept: &Path,
) -> Result<Vec<Verdict>, Problem> {
    let all = files
        .into_iter()
        .flat_map(|(topic, file)| file.scenarios.into_iter().map(move |scenario| (topic.clone(), scenario)));
    let queue: Arc<Mutex<VecDeque<(String, Scenario)>>> = Arc::new(Mutex::new(all.collect()));
    let started = join_all((0..lanes).map(|_| Lane::start(envoy, kept))).await;
    let lanes: Vec<Lane> = started.into_iter().collect::<Result<_, _>>()?;
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = lanes.into_iter().map(|lane| async move {
        let mut verdicts = Vec::new();
        while let Some((topic, scenario)) = next() {
            let began = Instant::now();
            let wrong = lane.run(&topic, &scenario).await.err().unwrap_or_default();
            let scenario = format!("{topic} / {}", scenario.name);
            verdicts.push(Verdict { scenario, wrong, took: began.elapsed() });
        }
        verdicts
    });
    Ok(join_all(work).await.into_iter().flatten().collect())
}

impl Lane {
    async fn start(envoy: &Envoy, kept: &Path) -> Result<Self, Problem> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let authority = Arc::new(Authority::new(folder.path(), &["client", "mesh", "revoked"])?);
        let (lease, network) = lease().await?;
        let at = |last: u8| SocketAddr::from((Ipv4Addr::new(127, network, 0, last), 5353));
        let (names, elsewhere, resolver) = (Names::default(), Names::default(), at(1));
        let resolvers = [serve(resolver, names.clone()).await?, serve(at(2), elsewhere.clone()).await?];
        let node =
            |who: Who| format!("sidecar~127.{network}.0.1~{}.default~default.svc.cluster.local", who.name());
        let nodes = [node(Who::Ours), node(Who::Envoy)];
        let plane = Plane::start(&nodes, authority.clone()).await?;
        let start = |who: Who| {
            let third = if who == Who::Ours { 1 } else { 2 };
            let own = Ipv4Addr::new(127, network, third, 1);
            let site = Site { node: node(who), own, plane: plane.address(), resolver, folder: folder.path() };
            tokio::task::block_in_place(|| Subject::start(who, &site, envoy))
        };
        Ok(Self {
            ours: start(Who::Ours)?,
            envoy: start(Who::Envoy)?,
            workloads: Workloads::new([127, network, 3], authority.clone()),
            plane,
            names,
            elsewhere,
            elsewhere_at: Ipv4Addr::new(127, network, 0, 2),
            _resolvers: resolvers,
            authority,
            kept: kept.to_owned(),
            _lease: lease,
            _folder: folder,
        })
    }

    async fn run(&self, topic: &str, scenario: &Scenario) -> Result<(), Problem> {
        let result = self.try_run(scenario).await;
        let result = match result {
            Ok(()) => Ok(()),
            Err(wrong) => {
                let slug: String =
                    scenario.name.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
                let folder = self.kept.join(topic).join(slug);
                Err(format!(
                    "{wrong}\n    configuration: {}",
                    self.keep(&folder).unwrap_or_else(|error| error)
                ))
            }
        };
        let cleared = futures::try_join!(
            self.plane.publish(&self.ours.node, None),
            self.plane.publish(&self.envoy.node, None)
        );
        result.and(cleared.map(drop))
    }

    fn keep(&self, folder: &Path) -> Result<String, Problem> {
        let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
        std::fs::create_dir_all(folder).map_err(failed)?;
        for (who, subject) in [(Who::Ours, &self.ours), (Who::Envoy, &self.envoy)] {
            std::fs::write(folder.join(format!("{}.json", who.name())), subject.config_dump())
                .map_err(failed)?;
        }
        Ok(folder.display().to_string())
    }

    async fn try_run(&self, scenario: &Scenario) -> Result<(), Problem> {
        let place = Place::of(scenario.setting.world.as_ref(), &self.workloads, self.elsewhere_at).await?;
        let tokens = scenario.setting.tokens();
        let steps = scenario.steps(|text| tokens::filled(&place.filled(text), tokens))?;
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = place.names.clone();
        *self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner) = place.elsewhere.clone();
        let ready = |subject| self.configure(subject, scenario, &place);
        futures::try_join!(ready(&self.ours), ready(&self.envoy))?;
        let before = self.figures(scenario).await?;
        self.workloads.forget();
        let offsets = [&self.ours, &self.envoy].map(|subject| length(&subject.log));
        let mut answers = Vec::new();
        for (index, step) in steps.iter().enumerate() {
            match step {
                Ok(call) => {
                    let kind = scenario.setting.proxy.unwrap_or_default();
                    let go = |subject| self.call(subject, call, index, kind, &place);
                    let (ours, envoy) = futures::join!(go(&self.ours), go(&self.envoy));
                    answers.push((index, call, ours?, envoy?));
                }
                Err(Pause::Sleep(millis)) => tokio::time::sleep(Pause::time(*millis)).await,
                Err(Pause::Until { stat, is }) => self.until(stat, *is).await?,
                Err(Pause::Names(names)) => {
                    let mut book = self.names.lock().unwrap_or_else(PoisonError::into_inner);
                    place.rename(&mut book, names)?;
                }
            }
        }
        let mut awaited = [Awaited::default(), Awaited::default()];
        for (index, call, ours, envoy) in &answers {
            awaited[0].add(call, *index, ours);
            awaited[1].add(call, *index, envoy);
        }
        let [ours, envoy] = &awaited;
        let logs: [Vec<Value>; 2] =
            futures::join!(ours.lines(&self.ours.log, offsets[0]), envoy.lines(&self.envoy.log, offsets[1]),)
                .into();
        let mut wrong = Vec::new();
        for (index, call, ours, envoy) in &answers {
            let ours = self.observe(&self.ours, call, *index, ours, &logs[0]);
            let envoy = self.observe(&self.envoy, call, *index, envoy, &logs[1]);
            let pair = Pair { call, ours: &ours, envoy: &envoy };
            let mut lines = pair.disappointments();
            lines.extend(pair.differences(&scenario.differs));
            if !lines.is_empty() {
                wrong.push(format!("  {}\n{}", call.text, lines.join("\n")));
            }
        }
        if !scenario.differs.contains_key("bytes-log") {
            let [ours, envoy] = [0, 1].map(|at| byte_lines(&logs[at], [&self.ours, &self.envoy][at].own));
            if ours != envoy {
                wrong.push(format!(
                    "  log of bytes\n    ours\n      {}\n    envoy\n      {}",
                    ours.join("\n      "),
                    envoy.join("\n      ")
                ));
            }
        }
        wrong.extend(self.judge_figures(scenario, &before).await?);
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    /// Gives a proxy the scenario's configuration, and waits until it listens.
    async fn configure(&self, subject: &Subject, scenario: &Scenario, place: &Place) -> Result<(), Problem> {
        let mut resources = translate(subject, scenario, place, &self.authority)?;
        let addresses = rebind(&mut resources, subject)?;
        self.plane.publish(&subject.node, Some(&resources)).await?;
        let deadline = Instant::now() + DEADLINE;
        for address in addresses {
            while tokio::net::TcpStream::connect(address).await.is_err() {
                if Instant::now() > deadline {
                    return Err(format!("{}: nothing listens at {address}", subject.node));
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        loop {
            let figures = subject.figures()?;
            let warming = ["cluster_manager.warming_clusters", "listener_manager.total_listeners_warming"];
            if warming.iter().all(|name| figures.get(*name).copied().unwrap_or(0) == 0) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("{}: something does not get warm", subject.node));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn call(
        &self,
        subject: &Subject,
        call: &Call,
        index: usize,
        kind: Kind,
        place: &Place,
    ) -> Result<Vec<Answer>, Problem> {
        let to = target(subject, call, kind, place)?;
        let dialer = Dialer::of(call, &self.authority)?;
        let mut answers = Vec::new();
        if call.keep {
            let mut connection = match dialer.connect(to).await {
                Ok(connection) => connection,
                Err(end) => return Ok(vec![Answer { end, ..Answer::default() }; call.times]),
            };
            for at in 0..call.times {
                answers.push(http1(call, &format!("{index}.{at}"), &mut connection).await);
            }
            return Ok(answers);
        }
        let all: Vec<usize> = (0..call.times).collect();
        for group in all.chunks(call.at_once.max(1)) {
            let one = |at: &usize| {
                let (step, dialer) = (format!("{index}.{at}"), &dialer);
                async move {
                    let mut connection = match dialer.connect(to).await {
                        Ok(connection) => connection,
                        Err(end) => return Answer { end, ..Answer::default() },
                    };
                    match call.protocol {
                        Protocol::Tcp => tcp_client::talk(call, &mut connection).await,
                        Protocol::Http2 => http2(call, &step, connection).await,
                        Protocol::Http1 | Protocol::Http10 => http1(call, &step, &mut connection).await,
                    }
                }
            };
            answers.extend(join_all(group.iter().map(one)).await);
        }
        Ok(answers)
    }

    fn observe(
        &self,
        subject: &Subject,
        call: &Call,
        index: usize,
        answers: &[Answer],
        log: &[Value],
    ) -> Vec<Observation> {
        let one = |(at, answer): (usize, &Answer)| {
            let step = format!("{index}.{at}");
            let mut seen = self.workloads.take(subject.own, &step);
            if call.is("any") {
                seen.sort_by(|a, b| a.pod.cmp(&b.pod));
            }
            let line = log.iter().find(|line| line["step"] == step.as_str());
            let line = line.or_else(|| log.iter().find(|line| is_of_connection(line, call, answer)));
            Observation::of(answer, &seen, line, subject.own, call.is("case"))
        };
        answers.iter().enumerate().map(one).collect()
    }

    async fn figures(&self, scenario: &Scenario) -> Result<[BTreeMap<String, u64>; 2], Problem> {
        match scenario.stats.is_empty() {
            true => Ok(Default::default()),
            false => Ok([self.ours.figures()?, self.envoy.figures()?]),
        }
    }

    async fn until(&self, stat: &str, is: u64) -> Result<(), Problem> {
        let (cluster, name) =
            stat.split_once(' ').ok_or_else(|| format!("until {stat:?}: expected CLUSTER NAME"))?;
        let name = format!("{}.{name}", prefix(cluster));
        let deadline = Instant::now() + DEADLINE;
        loop {
            let found =
                [self.ours.figures()?, self.envoy.figures()?].map(|all| all.get(&name).copied().unwrap_or(0));
            if found == [is, is] {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("{name} is {} with ours, {} with Envoy, not {is}", found[0], found[1]));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn judge_figures(
        &self,
        scenario: &Scenario,
        before: &[BTreeMap<String, u64>; 2],
    ) -> Result<Vec<String>, Problem> {
        let deadline = Instant::now() + FIGURES;
        loop {
            let after = self.figures(scenario).await?;
            let mut wrong = Vec::new();
            for (cluster, names) in &scenario.stats {
                for (name, expected) in names {
                    let full = format!("{}.{name}", prefix(cluster));
                    let value = |at: usize| {
                        let now = after[at].get(&full).copied();
                        let old = before[at].get(&full).copied().unwrap_or(0);
                        now.map(|now| if is_level(name) { now } else { now.saturating_sub(old) })
                    };
                    let (ours, envoy) = (value(0), value(1));
                    let right = ours == envoy
                        && envoy.is_some()
                        && expected.is_none_or(|expected| envoy == Some(expected));
                    if !right && !scenario.differs.contains_key(name) {
                        wrong.push(format!(
                            "    {full}: ours {ours:?}, envoy {envoy:?}, expected {expected:?}"
                        ));
                    }
                }
            }
            if wrong.is_empty() || Instant::now() > deadline {
                return Ok(if wrong.is_empty() {
                    vec![]
                } else {
                    vec![format!("  figures\n{}", wrong.join("\n"))]
                });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A part of 127/8 that nobody else on the machine uses, for as long as the listener lives.
async fn lease() -> Result<(tokio::net::TcpListener, u8), Problem> {
    for network in 60..100 {
        let place = SocketAddr::from((Ipv4Addr::new(127, network, 255, 254), 15999));
        // What another run leaves behind for a moment is not free either.
        let resolver = std::net::UdpSocket::bind((Ipv4Addr::new(127, network, 0, 1), 5353));
        if let (Ok(listener), Ok(_)) = (tokio::net::TcpListener::bind(place).await, resolver) {
            return Ok((listener, network));
        }
    }
    Err("no network from 127.60/16 to 127.99/16 is free".to_owned())
}

/// Where a call goes.
fn target(subject: &Subject, call: &Call, kind: Kind, place: &Place) -> Result<SocketAddr, Problem> {
    let service = |name: &str| place.services.get(name).copied();
    let address = match (&call.address, call.protocol == Protocol::Tcp) {
        (Some(address), _) => Some(
            address
                .parse()
                .ok()
                .or_else(|| service(address))
                .ok_or_else(|| format!("to:{address}: no address"))?,
        ),
        (None, true) if kind == Kind::Sidecar => service(call.host()),
        (None, _) => None,
    };
    let port = match (kind, call.connects_to()) {
        (Kind::Loopback, _) => HTTP_PROXY,
        (Kind::Gateway, _) => call.port.unwrap_or(GATEWAY_PORT),
        (_, Some(port)) => port,
        (_, None) => return Err(format!("{}: no port to connect to: write HOST:PORT or port:N", call.text)),
    };
    Ok(SocketAddr::from((subject.stands_for(address), port)))
}

/// A cluster's prefix in `/stats`: `8000|v1|a` stands for `cluster.outbound|8000|v1|a.default.svc.cluster.local`.
fn prefix(text: &str) -> String {
    let parts: Vec<&str> = text.split('|').collect();
    let [port, subset, host] = parts[..] else { return text.to_owned() };
    let host = match host.split('.').count() {
        1 => format!("{host}.default.svc.cluster.local"),
        2 if !host.ends_with(".test") && !host.ends_with(".com") => format!("{host}.svc.cluster.local"),
        _ => host.to_owned(),
    };
    format!("cluster.outbound|{port}|{subset}|{host}")
}

/// Whether a figure goes up and down.
fn is_level(name: &str) -> bool {
    name.ends_with("_active")
        || name.contains("remaining_")
        || name.ends_with("_open")
        || name.starts_with("membership_")
}
