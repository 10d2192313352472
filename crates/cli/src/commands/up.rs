//! `lateen up`: a local cluster with the mesh in it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lateen_local::background::{self, Life};
use lateen_local::state::{Phase, RunRecord, StateFolder};
use lateen_local::{ClusterConfig, DataPlane, Progress, UpError};

use super::{CliError, Outcome, env};
use crate::globals::Globals;

/// Which cluster of this machine.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Name {
    /// Name of the local cluster
    #[arg(long, default_value = "default")]
    pub(crate) name: String,
}

impl Name {
    /// The folder of its state.
    pub(crate) fn state(&self) -> Result<StateFolder, CliError> {
        StateFolder::locate(&self.name).map_err(CliError::new)
    }
}

/// How pods are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Isolation {
    /// What is possible here
    Auto,
    /// An address of 127/8 for each pod; needs no privilege
    Loopback,
    /// A network namespace for each pod
    Netns,
}

/// What plays the proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum DataPlaneName {
    /// The proxy of this binary
    Lateen,
    /// Stock Envoy, found on the PATH
    Envoy,
}

/// How a cluster is started.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct UpOptions {
    #[command(flatten)]
    pub(crate) name: Name,
    /// How pods are kept apart
    #[arg(long, value_enum, default_value_t = Isolation::Auto)]
    isolation: Isolation,
    /// What plays the proxies
    #[arg(long, value_enum, default_value_t = DataPlaneName::Lateen)]
    data_plane: DataPlaneName,
    /// Play no names of the internet on this machine: httpbin.org is what it is elsewhere
    #[arg(long)]
    no_outside: bool,
    /// Seconds until the mesh has to be ready
    #[arg(long, default_value_t = 120, value_name = "SECONDS")]
    pub(crate) timeout: u64,
}

/// Arguments of `lateen up`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    #[command(flatten)]
    options: UpOptions,
    /// Return when the mesh is ready; the cluster runs on
    #[arg(long, short)]
    detach: bool,
}

impl Cmd {
    pub(crate) fn run(self, _globals: &Globals) -> Outcome {
        if self.detach {
            let (state, run, started) = self.options.ensure(Life::Own)?;
            if !started {
                eprintln!("Cluster {} is running already (process {})", state.name(), run.process.pid);
            }
            eprintln!("Ready. To use it: eval \"$(lateen env{})\"", env::flag(state.name()));
            print!("{}", env::exports(&state, &env::refreshed(&state, run)));
            return Ok(ExitCode::SUCCESS);
        }
        self.options.here()
    }
}

impl UpOptions {
    /// Makes sure that the cluster runs, in a process of its own. Also says whether this call has started it.
    pub(crate) fn ensure(&self, life: Life) -> Result<(StateFolder, RunRecord, bool), CliError> {
        self.check_isolation()?;
        let state = self.name.state()?;
        let patience = Duration::from_secs(self.timeout);
        if state.exists() {
            state.open().map_err(CliError::new)?;
        }
        if state.live_run().map_err(CliError::new)?.is_some() {
            let run = background::wait(&state, patience).map_err(CliError::new)?;
            if run.data_plane != self.plane().name() {
                return Err(CliError(format!(
                    "cluster {name} is running already, with --data-plane {}: end it with `lateen down{}` first",
                    run.data_plane,
                    env::flag(state.name()),
                    name = state.name(),
                )));
            }
            return Ok((state, run, false));
        }
        let program = executable()?;
        // The child's own patience ends first, so that it is the one to say what is missing.
        let slack = Duration::from_secs(15);
        let run = background::start(&state, program, &self.arguments(), life, patience + slack, &on_stderr())
            .map_err(CliError::new)?;
        Ok((state, run, true))
    }

    fn arguments(&self) -> Vec<String> {
        let data_plane = self.plane().name();
        let timeout = self.timeout.to_string();
        let name = &self.name.name;
        let always = [
            "up",
            "--name",
            name,
            "--isolation",
            "loopback",
            "--data-plane",
            data_plane,
            "--timeout",
            &timeout,
        ];
        let outside = self.no_outside.then_some("--no-outside");
        always.into_iter().chain(outside).map(str::to_owned).collect()
    }

    fn plane(&self) -> DataPlane {
        match self.data_plane {
            DataPlaneName::Lateen => DataPlane::Lateen,
            DataPlaneName::Envoy => DataPlane::Envoy,
        }
    }

    fn check_isolation(&self) -> Result<(), CliError> {
        match self.isolation {
            Isolation::Netns => Err(CliError::new(
                "--isolation netns is not supported yet: use --isolation loopback, where each pod has an address of 127/8",
            )),
            Isolation::Auto | Isolation::Loopback => Ok(()),
        }
    }

    /// Runs the cluster in this process until it is told to end.
    fn here(&self) -> Outcome {
        self.check_isolation()?;
        lateen_runtime::logs::init(&lateen_runtime::logs::Config {
            levels: Some("default:warn".into()),
            json: false,
        })
        .map_err(CliError::new)?;
        let state = self.name.state()?;
        let config = ClusterConfig {
            state: state.clone(),
            data_plane: self.plane(),
            executable: executable()?,
            outside: !self.no_outside,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(CliError::new)?;
        let patience = Duration::from_secs(self.timeout);
        let done = runtime.block_on(serve(config, patience));
        // Reads of names that hang in the machine's resolver do not keep the process.
        runtime.shutdown_timeout(Duration::from_secs(1));
        match done {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(UpError::Running { name, pid }) => {
                eprintln!(
                    "Cluster {name} is running already (process {pid}); `lateen down{}` ends it",
                    env::flag(&name)
                );
                Ok(ExitCode::SUCCESS)
            }
            Err(error) => {
                if let Ok(Some(mut run)) = state.run() {
                    (run.phase, run.message) = (Phase::Failed, error.to_string());
                    // The error itself is what matters; the record only repeats it.
                    let _ = state.set_run(&run);
                }
                Err(CliError::new(error))
            }
        }
    }
}

async fn serve(config: ClusterConfig, patience: Duration) -> Result<(), UpError> {
    let progress = on_stderr();
    let cluster = config.start(&progress).await?;
    let ended = lateen_runtime::signals::terminated();
    tokio::pin!(ended);
    let installed = tokio::select! {
        installed = cluster.install(patience, &progress) => Some(installed),
        _ = &mut ended => None,
    };
    let outcome = match installed {
        Some(Ok(())) => {
            let name = cluster.state().name();
            progress.say(format!(
                "Ready. In another shell: eval \"$(lateen env{})\"; Ctrl-C ends the cluster",
                env::flag(name)
            ));
            // Without signals there is no other end than being killed, which children notice, too.
            let _ = ended.await;
            Ok(())
        }
        Some(Err(error)) => Err(error),
        None => Ok(()),
    };
    progress.say("Ending all pods");
    cluster.end().await;
    outcome
}

/// This very binary.
fn executable() -> Result<PathBuf, CliError> {
    std::env::current_exe().map_err(|error| CliError(format!("cannot find this program's own file: {error}")))
}

/// Progress for people.
pub(crate) fn on_stderr() -> Progress {
    let begun = std::time::Instant::now();
    Progress::new(move |line| {
        // A line that comes from another process has its time already.
        if line.starts_with('[') {
            eprintln!("{line}");
        } else {
            eprintln!("[{:5.2}s] {line}", begun.elapsed().as_secs_f64());
        }
    })
}
