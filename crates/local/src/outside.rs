//! The outside: names of the internet that the labs call, played on this machine by a process of its own. No object of
//! the cluster speaks of it, so to the mesh it is as foreign as the internet.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use lateen_ca::{Authority, CaError};

use crate::addresses::ClusterNumber;
use crate::node::launch;
use crate::node::spawn::Spawner;
use crate::process::ProcessBook;
use crate::progress::Progress;

/// Its names, the last octet of each one's address, and what the sample application plays there.
const SITES: &[(&str, u8, &str)] =
    &[("httpbin.org", 1, "httpbin"), ("raw.githubusercontent.com", 2, "files")];
/// The lowest of the ports that it listens on, 80 and 443.
const LOWEST_PORT: u16 = 80;
/// The certificates are new at every start, and no cluster runs longer than this.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// The wait before it is started again; doubled with every further time.
const RESTART: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Why there is no outside.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutsideError {
    /// Its ports.
    #[error(
        "ports 80 and 443 are below {0}, which only privileged processes may bind on this machine. Ways out: start \
         `lateen up` as root; allow it with `sysctl net.ipv4.ip_unprivileged_port_start=80`"
    )]
    Privilege(u16),
    /// Its certificates.
    #[error("its certificates: {0}")]
    Certificates(CaError),
    /// Its files, or its process.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Names with their addresses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names(Arc<BTreeMap<String, Ipv4Addr>>);

impl Names {
    pub(crate) fn new<'a>(names: impl IntoIterator<Item = (&'a str, Ipv4Addr)>) -> Self {
        Self(Arc::new(names.into_iter().map(|(name, address)| (name.to_owned(), address)).collect()))
    }

    /// The address of a name, written in any case, with or without a last dot.
    pub(crate) fn address(&self, host: &str) -> Option<Ipv4Addr> {
        self.0.get(&host.trim_end_matches('.').to_ascii_lowercase()).copied()
    }
}

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.keys().map(String::as_str).collect();
        f.write_str(&names.join(", "))
    }
}

/// What a node knows of the outside.
#[derive(Clone, Debug)]
pub(crate) struct Outside {
    pub(crate) names: Names,
    /// Its addresses, as a CIDR.
    pub(crate) range: String,
    /// The certificate that vouches for its servers, in PEM.
    pub(crate) root: Arc<str>,
}

impl Outside {
    /// Makes its certificates, and writes those files of `folder` that its process and users read.
    ///
    /// # Errors
    /// Why there can be none; the cluster does without.
    pub(crate) fn prepare(folder: &Path, cluster: ClusterNumber) -> Result<Self, OutsideError> {
        let first = launch::first_free_port();
        if LOWEST_PORT < first {
            return Err(OutsideError::Privilege(first));
        }
        let now = SystemTime::now();
        let authority =
            Authority::self_signed("lateen outside", now, LIFETIME).map_err(OutsideError::Certificates)?;
        let hosts: Vec<String> = SITES.iter().map(|(host, ..)| (*host).to_owned()).collect();
        let server = authority.server(&hosts, now, LIFETIME).map_err(OutsideError::Certificates)?;
        std::fs::create_dir_all(folder)
            .map_err(|source| OutsideError::Io { path: folder.to_owned(), source })?;
        let texts = [
            ("root.pem", authority.root_pem()),
            ("tls.crt", &server.chain_pem),
            ("tls.key", &server.key_pem),
        ];
        for (name, text) in texts {
            let path = folder.join(name);
            crate::state::write_whole(&path, text.as_bytes())
                .map_err(|source| OutsideError::Io { path, source })?;
        }
        Ok(Self {
            names: Names::new(SITES.iter().map(|(host, at, _)| (*host, cluster.outside(*at)))),
            range: cluster.outside_range(),
            root: authority.root_pem().into(),
        })
    }

    /// Has a control plane trust the outside's servers: `root` is what is `/` to it. What is mounted there stays.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub(crate) fn trust(&self, root: &Path) -> io::Result<()> {
        let folder = root.join("cacerts");
        let path = folder.join("extra.pem");
        let mounted = |path: &Path| path.symlink_metadata().is_ok_and(|found| found.is_symlink());
        if mounted(&folder) || mounted(&path) {
            return Ok(());
        }
        std::fs::create_dir_all(&folder)?;
        std::fs::write(path, &*self.root)
    }
}

/// The process that plays it.
pub(crate) struct Player {
    pub(crate) cluster: ClusterNumber,
    pub(crate) executable: PathBuf,
    /// Where its certificates are, and its log will be.
    pub(crate) folder: PathBuf,
    pub(crate) book: ProcessBook,
    pub(crate) progress: Progress,
}

impl Player {
    /// Keeps it running; ends it by being dropped.
    pub(crate) async fn run(self) {
        let spawner = match Spawner::start() {
            Ok(spawner) => spawner,
            Err(error) => return self.progress.say(format!("The outside is not there: {error}")),
        };
        let mut wait = RESTART.0;
        loop {
            let ended = match self.once(&spawner).await {
                Ok(ended) => ended,
                Err(error) => error.to_string(),
            };
            self.progress.say(format!(
                "The outside has ended ({ended}); it is started again in {} s, its log is {}",
                wait.as_secs(),
                self.log().display()
            ));
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RESTART.1);
        }
    }

    /// One run; how it ended.
    async fn once(&self, spawner: &Spawner) -> io::Result<String> {
        let mut child = spawner.spawn(self.command()?).await?;
        let pid = child.id();
        if let Some(pid) = pid
            && let Err(error) = self.book.note(pid)
        {
            tracing::warn!(%error, pid, "cannot remember a process for the next run");
        }
        let status = child.wait().await?;
        if let Some(pid) = pid {
            self.book.strike(pid);
        }
        Ok(status.to_string())
    }

    fn command(&self) -> io::Result<Command> {
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(self.log())?;
        let mut command = Command::new(&self.executable);
        command
            .args(["app", "outside", "--"])
            .args(SITES.iter().map(|(_, at, what)| format!("{what}={}", self.cluster.outside(*at))))
            .env("LATEEN_POD_ROOT", &self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(command)
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_plane_trusts_it_where_nothing_else_is_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let outside = Outside { names: Names::default(), range: String::new(), root: "PEM".into() };
        let (plain, mounted) = (dir.path().join("plain"), dir.path().join("mounted"));
        outside.trust(&plain).unwrap();
        assert_eq!(std::fs::read_to_string(plain.join("cacerts/extra.pem")).unwrap(), "PEM");
        let volume = dir.path().join("volume");
        std::fs::create_dir_all(&volume).unwrap();
        std::fs::create_dir_all(&mounted).unwrap();
        std::os::unix::fs::symlink(&volume, mounted.join("cacerts")).unwrap();
        outside.trust(&mounted).unwrap();
        assert!(!volume.join("extra.pem").exists(), "a user's volume is left alone");
    }

    #[test]
    fn its_key_is_for_nobody_else_and_its_root_is_new_at_every_start() {
        use std::os::unix::fs::PermissionsExt as _;
        if LOWEST_PORT < launch::first_free_port() {
            let refused =
                Outside::prepare(Path::new("/nowhere"), ClusterNumber::new(3).unwrap()).unwrap_err();
            assert!(refused.to_string().contains("ip_unprivileged_port_start=80"), "{refused}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let made = || Outside::prepare(&dir.path().join("outside"), ClusterNumber::new(3).unwrap()).unwrap();
        let first = made();
        assert_eq!(first.names.address("HTTPBIN.org."), Some(Ipv4Addr::new(127, 13, 254, 1)));
        assert_eq!(first.names.address("example.org"), None);
        let key = dir.path().join("outside/tls.key").metadata().unwrap().permissions().mode();
        assert_eq!(key & 0o077, 0, "{key:o}");
        assert_ne!(made().root, first.root);
    }
}
