//! `bench proxy`: our proxy and stock Envoy on the same resources, one after the other, in alternating rounds.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use serde_json::Value;

use crate::bytes;
use crate::load::{Load, Outcome};
use crate::process::{Process, free_port};
use crate::report::{self, Case, Figures, Flow, Memory, Rate, Report};
use crate::resources::{self, CLIENT, HOST, Identity, ORIGIN, Protocol, SERVER, World};
use crate::{BenchError, Output};

/// Settings of a run.
#[derive(clap::Args)]
pub(crate) struct Bench {
    /// Cases to run
    #[arg(long, value_delimiter = ',', default_value = "http1,http2,mtls,tcp,tcp-mtls")]
    cases: Vec<String>,
    /// Rounds per proxy and case
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds per measurement
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Connections of the load generator
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Workers of each proxy
    #[arg(long, default_value_t = 2)]
    concurrency: usize,
    /// Numbers of clusters at which idle memory is measured
    #[arg(long, value_delimiter = ',', default_value = "0,1000")]
    memory: Vec<usize>,
    /// The Envoy binary
    #[arg(long, env = "ENVOY", default_value = "envoy")]
    envoy: PathBuf,
    /// Leave Envoy out
    #[arg(long)]
    ours_only: bool,
    /// Write a chart here
    #[arg(long, default_value = "target/bench-proxy.svg")]
    chart: PathBuf,
    /// Keep configurations, outputs and logs in this folder
    #[arg(long)]
    keep: Option<PathBuf>,
    /// How to print the results
    #[arg(long, short, value_enum, default_value = "table")]
    output: Output,
}

/// Which proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Ours.
    Ours,
    /// Stock Envoy.
    Envoy,
}

/// Starts proxies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Runner<'a> {
    /// Workers of each.
    pub(crate) concurrency: usize,
    /// The Envoy binary.
    pub(crate) envoy: &'a Path,
}

impl Bench {
    /// Runs it.
    pub(crate) fn run(self) -> Result<(), BenchError> {
        if cfg!(debug_assertions) {
            eprintln!(
                "warning: this is a debug build; only `cargo run --release -p bench` measures anything"
            );
        }
        let temporary = tempfile::tempdir()?;
        let folder = self.keep.as_deref().unwrap_or(temporary.path());
        std::fs::create_dir_all(folder)?;
        let (_origin, origin_port) = start_origin(folder, false)?;
        let (_bytes, bytes_port) = start_origin(folder, true)?;
        let mut report = Report::default();
        for case in &self.cases {
            match case.as_str() {
                "tcp" => report.flows.push(self.flow(case, Protocol::Tcp, bytes_port, folder)?),
                "tcp-mtls" => report.flows.push(self.flow(case, Protocol::TcpMtls, bytes_port, folder)?),
                "http1" | "http2" | "mtls" => report.cases.push(self.case(case, origin_port, folder)?),
                // Memory alone.
                "none" => {}
                other => {
                    return Err(BenchError::Text(format!(
                        "unknown case {other:?}: there are http1, http2, mtls, tcp, tcp-mtls, none"
                    )));
                }
            }
        }
        for clusters in &self.memory {
            report.memory.push(self.memory(*clusters, origin_port, folder)?);
        }
        match self.output {
            Output::Table => print!("{}", report.table()),
            Output::Markdown => print!("{}", report.markdown()),
            Output::Json => println!("{}", report.json()),
        }
        if let Some(parent) = self.chart.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&self.chart, report::chart(&report))?;
        eprintln!("chart: {}", self.chart.display());
        Ok(())
    }

    fn kinds(&self) -> &[Kind] {
        if self.ours_only { &[Kind::Ours] } else { &[Kind::Ours, Kind::Envoy] }
    }

    fn case(&self, name: &str, origin: u16, folder: &Path) -> Result<Case, BenchError> {
        let mut case = Case { name: name.to_owned(), ..Case::default() };
        let mut half_peak = None;
        for round in 0..self.rounds {
            // Envoy first: half of its peak is the rate at which latencies are compared.
            let mut kinds = self.kinds().to_vec();
            if round % 2 == 0 {
                kinds.reverse();
            }
            for kind in kinds {
                eprintln!("{name}, round {}: {}", round + 1, label(kind));
                let figures = self.measure(name, kind, origin, folder, &mut half_peak)?;
                match kind {
                    Kind::Ours => case.ours.push(figures),
                    Kind::Envoy => case.envoy.push(figures),
                }
            }
        }
        Ok(case)
    }

    fn measure(
        &self,
        name: &str,
        kind: Kind,
        origin: u16,
        folder: &Path,
        half_peak: &mut Option<f64>,
    ) -> Result<Figures, BenchError> {
        let log = folder.join("access.log");
        let identity = identity()?;
        let protocol = match name {
            "mtls" => Protocol::Mtls,
            "http2" => Protocol::Http2,
            _ => Protocol::Http1,
        };
        let world = World { protocol, origin, log: &log.to_string_lossy(), identity: &identity };
        let port = free_port()?;
        let mut hops = Vec::new();
        if protocol == Protocol::Mtls {
            hops.push(self.start(kind, &world.server()?, (SERVER, origin).into(), folder)?);
        }
        hops.push(self.start(kind, &world.client(port)?, (CLIENT, port).into(), folder)?);
        let load = Load {
            proxy: (CLIENT, port).into(),
            http2: name == "http2",
            connections: self.connections,
            rate: None,
            duration: Duration::from_secs_f64(self.seconds),
        };
        let runtime = crate::runtime()?;
        let warm = Load { duration: Duration::from_secs_f64((self.seconds / 4.0).min(1.0)), ..load };
        runtime.block_on(warm.run())?;
        let before = cpu(&hops)?;
        let peak = runtime.block_on(load.run())?;
        let used = cpu(&hops)? - before;
        let rate = peak.requests as f64 / peak.elapsed.as_secs_f64();
        let steady_rate = *half_peak.get_or_insert(rate / 2.0);
        let steady = runtime.block_on(Load { rate: Some(steady_rate), ..load }.run())?;
        // The log is not what is measured, and would fill the disk.
        drop(hops);
        std::fs::remove_file(&log)?;
        Ok(figures(&peak, &steady, used))
    }

    /// Bytes through the sidecar of `echo`, or through both sidecars.
    fn flow(&self, name: &str, protocol: Protocol, origin: u16, folder: &Path) -> Result<Flow, BenchError> {
        let mut flow = Flow { name: name.to_owned(), ..Flow::default() };
        for round in 0..self.rounds {
            for kind in self.kinds() {
                eprintln!("{name}, round {}: {}", round + 1, label(*kind));
                let log = folder.join("flow.log");
                let identity = identity()?;
                let world = World { protocol, origin, log: &log.to_string_lossy(), identity: &identity };
                let mut hops = vec![self.start(*kind, &world.server()?, (SERVER, origin).into(), folder)?];
                let (proxy, connect) = if protocol == Protocol::TcpMtls {
                    let port = free_port()?;
                    hops.push(self.start(*kind, &world.client(port)?, (CLIENT, port).into(), folder)?);
                    ((CLIENT, port), Some(HOST))
                } else {
                    ((SERVER, origin), None)
                };
                let runtime = crate::runtime()?;
                let duration = Duration::from_secs_f64(self.seconds);
                let before = cpu(&hops)?;
                let taken = runtime.block_on(bytes::take(proxy.into(), connect, STREAMS, duration))?;
                let rate = Rate::new(taken, cpu(&hops)? - before);
                match kind {
                    Kind::Ours => flow.ours.push(rate),
                    Kind::Envoy => flow.envoy.push(rate),
                }
            }
        }
        Ok(flow)
    }

    fn start(
        &self,
        kind: Kind,
        resources: &Value,
        listens: SocketAddr,
        folder: &Path,
    ) -> Result<Process, BenchError> {
        let runner = Runner { concurrency: self.concurrency, envoy: &self.envoy };
        runner.start(kind, resources, listens, folder)
    }

    fn memory(&self, clusters: usize, origin: u16, folder: &Path) -> Result<Memory, BenchError> {
        let mut out = Memory { clusters, ..Memory::default() };
        for kind in self.kinds() {
            eprintln!("memory with {clusters} clusters: {}", label(*kind));
            let port = free_port()?;
            let log = folder.join("idle.log");
            let (log, identity) = (log.to_string_lossy(), identity()?);
            let world = World { protocol: Protocol::Http1, origin, log: &log, identity: &identity };
            let resources = world.idle(port, clusters)?;
            let process = self.start(*kind, &resources, (CLIENT, port).into(), folder)?;
            std::thread::sleep(Duration::from_secs(2));
            match kind {
                Kind::Ours => out.ours_mb = process.resident_mb()?,
                Kind::Envoy => out.envoy_mb = process.resident_mb()?,
            }
        }
        Ok(out)
    }
}

/// Connections that carry bytes.
const STREAMS: usize = 4;

/// Starts a server behind the proxies: of HTTP, or of bytes.
fn start_origin(folder: &Path, bytes: bool) -> Result<(Process, u16), BenchError> {
    let port = free_port()?;
    let name = if bytes { "origin-bytes" } else { "origin" };
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["origin", &port.to_string()]).args(bytes.then_some("--bytes"));
    let mut origin = Process::start(name, &mut command, &folder.join(format!("{name}.out")))?;
    origin.wait_for((ORIGIN, port).into())?;
    Ok((origin, port))
}

impl Runner<'_> {
    /// Starts one, and waits until it listens.
    pub(crate) fn start(
        &self,
        kind: Kind,
        resources: &Value,
        listens: SocketAddr,
        folder: &Path,
    ) -> Result<Process, BenchError> {
        let name = listens.ip();
        let concurrency = self.concurrency.to_string();
        let mut process = match kind {
            Kind::Ours => {
                // Binary: reading JSON loads descriptors that a proxy in service never needs.
                let file = folder.join(format!("ours-{name}.pb"));
                let encoded =
                    lateen_proxy::Resources::from_json(resources).map_err(BenchError::Text)?.encode();
                std::fs::write(&file, encoded)?;
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("serve").arg(&file).args(["--concurrency", &concurrency]);
                Process::start("our proxy", &mut command, &folder.join(format!("ours-{name}.out")))?
            }
            Kind::Envoy => {
                let file = folder.join(format!("envoy-{name}.json"));
                std::fs::write(&file, resources::bootstrap(resources, free_port()?).to_string())?;
                let mut command = Command::new(self.envoy);
                command.args(["--disable-hot-restart", "--log-level", "warn", "-c"]).arg(&file);
                command.args(["--concurrency", &concurrency]);
                Process::start("envoy", &mut command, &folder.join(format!("envoy-{name}.out")))?
            }
        };
        process.wait_for(listens)?;
        Ok(process)
    }
}

pub(crate) fn label(kind: Kind) -> &'static str {
    match kind {
        Kind::Ours => "ours",
        Kind::Envoy => "envoy",
    }
}

fn cpu(hops: &[Process]) -> Result<Duration, BenchError> {
    hops.iter().map(Process::cpu).sum()
}

fn figures(peak: &Outcome, steady: &Outcome, used: Duration) -> Figures {
    Figures {
        cpu_us_per_request: used.as_secs_f64() * 1e6 / peak.requests.max(1) as f64,
        requests_per_second: peak.requests as f64 / peak.elapsed.as_secs_f64(),
        p50_ms: steady.latency.value_at_quantile(0.5) as f64 / 1000.0,
        p99_ms: steady.latency.value_at_quantile(0.99) as f64 / 1000.0,
    }
}

/// A certificate authority and one certificate of it, in PEM.
pub(crate) fn identity() -> Result<Identity, BenchError> {
    let failed = |error: rcgen::Error| BenchError::Text(error.to_string());
    let root_key = KeyPair::generate().map_err(failed)?;
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // The leaf must not look self-signed.
    root.distinguished_name.push(DnType::CommonName, "bench root");
    let root_certificate = root.self_signed(&root_key).map_err(failed)?;
    let issuer = Issuer::from_params(&root, &root_key);
    let key = KeyPair::generate().map_err(failed)?;
    let mut leaf = CertificateParams::default();
    let uri = "spiffe://cluster.local/ns/default/sa/bench".try_into().map_err(failed)?;
    leaf.subject_alt_names = vec![SanType::URI(uri)];
    let certificate = leaf.signed_by(&key, &issuer).map_err(failed)?;
    Ok(Identity { chain: certificate.pem(), key: key.serialize_pem(), root: root_certificate.pem() })
}
