//! `bench ca`: certificates issued, and handshakes made by our proxy and by stock Envoy.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use lateen_base::SpiffeId;
use lateen_ca::Authority;
use lateen_ca::request::KeyRequest;
use serde_json::{Value, json};

use crate::authority;
use crate::handshakes::{Handshakes, Sort};
use crate::process::{Process, free_port};
use crate::proxies::{Kind, Runner, identity, label};
use crate::resources::{Protocol, SERVER, World};
use crate::{BenchError, Output};

/// Settings of a run.
#[derive(clap::Args)]
pub(crate) struct Bench {
    /// Rounds per proxy and sort of handshake
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds per measurement
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Clients at a time
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Workers of each proxy
    #[arg(long, default_value_t = 2)]
    concurrency: usize,
    /// The Envoy binary
    #[arg(long, env = "ENVOY", default_value = "envoy")]
    envoy: PathBuf,
    /// Keep configurations, outputs and logs in this folder
    #[arg(long)]
    keep: Option<PathBuf>,
    /// How to print the results
    #[arg(long, short, value_enum, default_value = "table")]
    output: Output,
}

/// Of one sort of handshake: how many a second of processor time pays for.
#[derive(Clone, Debug)]
struct Case {
    sort: Sort,
    ours: Vec<f64>,
    envoy: Vec<f64>,
}

/// What was measured, per second of processor time.
#[derive(Debug)]
struct Report {
    signed: f64,
    issued: f64,
    handshakes: Vec<Case>,
}

impl Bench {
    /// Runs it.
    ///
    /// # Errors
    /// When something cannot be started, or fails.
    pub(crate) fn run(self) -> Result<(), BenchError> {
        if cfg!(debug_assertions) {
            eprintln!(
                "warning: this is a debug build; only `cargo run --release -p bench` measures anything"
            );
        }
        let temporary = tempfile::tempdir()?;
        let folder = self.keep.as_deref().unwrap_or(temporary.path());
        std::fs::create_dir_all(folder)?;
        let duration = Duration::from_secs_f64(self.seconds);
        eprintln!("signing");
        let signed = sign(duration)?;
        eprintln!("issuing by the control plane");
        let issued = self.issue(duration, folder)?;
        let mut report = Report { signed, issued, handshakes: Vec::new() };
        for sort in [Sort::Full, Sort::Resumed] {
            let mut case = Case { sort, ours: Vec::new(), envoy: Vec::new() };
            for round in 0..self.rounds {
                for kind in [Kind::Envoy, Kind::Ours] {
                    eprintln!("{} handshakes, round {}: {}", sort.as_str(), round + 1, label(kind));
                    let figure = self.handshakes(kind, sort, duration, folder)?;
                    match kind {
                        Kind::Ours => case.ours.push(figure),
                        Kind::Envoy => case.envoy.push(figure),
                    }
                }
            }
            report.handshakes.push(case);
        }
        match self.output {
            Output::Table => print!("{}", report.table()),
            Output::Markdown => print!("```text\n{}```\n", report.table()),
            Output::Json => println!("{:#}", report.json()),
        }
        Ok(())
    }

    /// Certificates that the control plane's secure port issues, its own process being measured.
    fn issue(&self, duration: Duration, folder: &Path) -> Result<f64, BenchError> {
        let port = free_port()?;
        let root = folder.join("authority-root.pem");
        let mut process = Process::start(
            "control plane",
            Command::new(std::env::current_exe()?).arg("authority").arg(port.to_string()).arg(&root),
            &folder.join("authority.out"),
        )?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        process.wait_for(address)?;
        let runtime = crate::runtime()?;
        let clients = |duration| authority::ask(address, &root, self.connections, duration);
        runtime.block_on(clients(duration / 4))?;
        let before = process.cpu()?;
        let issued = runtime.block_on(clients(duration))?;
        Ok(per_second(issued, process.cpu()?.saturating_sub(before)))
    }

    fn handshakes(
        &self,
        kind: Kind,
        sort: Sort,
        duration: Duration,
        folder: &Path,
    ) -> Result<f64, BenchError> {
        let (identity, log) = (identity()?, folder.join("handshakes.log"));
        // Nothing listens behind: no request comes.
        let origin = free_port()?;
        let log = log.to_string_lossy();
        let world = World { protocol: Protocol::Mtls, origin, log: &log, identity: &identity };
        let address = SocketAddr::from((SERVER, origin));
        let runner = Runner { concurrency: self.concurrency, envoy: &self.envoy };
        let process = runner.start(kind, &world.server()?, address, folder)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let clients = |duration| {
            Handshakes { address, sort, connections: self.connections, duration, identity: &identity }.run()
        };
        runtime.block_on(clients(duration / 4))?;
        let before = process.cpu()?;
        let (made, _) = runtime.block_on(clients(duration))?;
        Ok(per_second(made, process.cpu()?.saturating_sub(before)))
    }
}

/// Requests that one thread signs, with nothing around it.
fn sign(duration: Duration) -> Result<f64, BenchError> {
    let failed = |error: &dyn std::fmt::Display| BenchError::Text(error.to_string());
    let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
    let authority = Authority::self_signed("cluster.local", now, day).map_err(|e| failed(&e))?;
    let caller: SpiffeId = "spiffe://cluster.local/ns/default/sa/bench".parse().map_err(|e| failed(&e))?;
    let request = KeyRequest::new(&caller).map_err(|e| failed(&e))?;
    let before = own_cpu()?;
    let end = std::time::Instant::now() + duration;
    let mut signed = 0;
    while std::time::Instant::now() < end {
        authority.sign(&request.csr_pem, &caller, now, day).map_err(|e| failed(&e))?;
        signed += 1;
    }
    Ok(per_second(signed, own_cpu()?.saturating_sub(before)))
}

/// The processor time of this thread.
fn own_cpu() -> Result<Duration, BenchError> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split_whitespace().next().and_then(|word| word.parse().ok());
    nanoseconds
        .map(Duration::from_nanos)
        .ok_or_else(|| BenchError::Text("/proc/thread-self/schedstat is not what it was".into()))
}

fn per_second(count: u64, used: Duration) -> f64 {
    // The clock of processes has ticks of 10 ms.
    count as f64 / used.max(Duration::from_millis(10)).as_secs_f64()
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

impl Case {
    fn ratio(&self) -> f64 {
        (median(&self.ours) / median(&self.envoy).max(f64::MIN_POSITIVE) * 1000.0).round() / 1000.0
    }
}

impl Report {
    fn table(&self) -> String {
        let mut text = format!(
            "per second and core\n\
             certificates signed              {:>10.0}\n\
             certificates issued over gRPC    {:>10.0}\n\
             handshakes           OURS      ENVOY  RATIO\n",
            self.signed, self.issued
        );
        for case in &self.handshakes {
            text += &format!(
                "{:<12} {:>12.0} {:>10.0} {:>6.2}\n",
                case.sort.as_str(),
                median(&case.ours),
                median(&case.envoy),
                case.ratio()
            );
        }
        text
    }

    fn json(&self) -> Value {
        let handshakes: Vec<Value> = self
            .handshakes
            .iter()
            .map(|case| {
                json!({
                    "sort": case.sort.as_str(),
                    "ours_per_core_second": median(&case.ours).round(),
                    "envoy_per_core_second": median(&case.envoy).round(),
                    "ratio": case.ratio(),
                })
            })
            .collect();
        json!({
            "signed_per_core_second": self.signed.round(),
            "issued_per_core_second": self.issued.round(),
            "handshakes": handshakes,
        })
    }
}
