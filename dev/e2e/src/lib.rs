//! Whole-system tests: the binary, `kubectl` and `curl`, as a user drives them.
//!
//! A [`Cluster`] is a local cluster of its own, in a state folder of its own, that goes when it is dropped. Clusters
//! run one at a time: the machine that tests has two cores.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

pub mod differential;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Every wait ends here, and tells what it saw.
const DEADLINE: Duration = Duration::from_secs(60);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Which proxy runs beside the applications.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataPlane {
    /// Ours.
    Lateen,
    /// Stock Envoy.
    Envoy,
}

impl DataPlane {
    fn name(self) -> &'static str {
        match self {
            Self::Lateen => "lateen",
            Self::Envoy => "envoy",
        }
    }

    /// Runs on a cluster of this data plane, where there are these tools and what the data plane itself takes.
    pub fn with_cluster(self, names: &[&str], run: impl FnOnce(&Cluster)) {
        if tools(names) && (self == Self::Lateen || tools(&["envoy"])) {
            run(&Cluster::up(self));
        }
    }
}

/// A test per data plane, each on a cluster of its own: `on_both!(&["kubectl"], run)`.
#[macro_export]
macro_rules! on_both {
    ($tools:expr, $run:expr) => {
        #[test]
        fn on_our_proxy() {
            $crate::DataPlane::Lateen.with_cluster($tools, $run);
        }

        #[test]
        fn on_stock_envoy() {
            $crate::DataPlane::Envoy.with_cluster($tools, $run);
        }
    };
}

/// A local cluster; dropping it takes it down.
pub struct Cluster {
    home: TempDir,
    name: String,
    kubeconfig: String,
    gateway: String,
    _alone: MutexGuard<'static, ()>,
}

/// An answer, as curl saw it.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code; 0 when there was no answer.
    pub status: u16,
    /// The header block.
    pub head: String,
    /// The body.
    pub body: String,
}

/// Whether these tools are there. Where `LATEEN_REQUIRE_TOOLS` is set (`.ci/run` does), a missing one is a failure;
/// else the test says that it is skipped.
pub fn tools(names: &[&str]) -> bool {
    for name in names {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .any(|folder| folder.join(name).is_file());
        if !found {
            assert!(std::env::var_os("LATEEN_REQUIRE_TOOLS").is_none(), "{name} is not on PATH");
            eprintln!("skipped: {name} is not on PATH");
            return false;
        }
    }
    true
}

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// The binary, built once by the same cargo and profile that built this test.
pub fn lateen() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let target = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--quiet", "--package", "lateen"]).current_dir(repository());
        if target.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "the binary does not build");
        target.join("lateen")
    })
}

/// Tries until `look` finds what it looks for; panics after a minute with the last thing it saw.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let started = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if started.elapsed() > DEADLINE => {
                panic!("{what}: not within {DEADLINE:?}; last seen: {seen}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

impl Cluster {
    /// Starts a cluster with the mesh installed and waits until it is ready.
    pub fn up(data_plane: DataPlane) -> Self {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("e2e-{}", std::process::id());
        let mut cluster = Self {
            home: TempDir::new().unwrap(),
            name,
            kubeconfig: String::new(),
            gateway: String::new(),
            _alone: alone,
        };
        cluster.lateen(&["up", "--detach", "--data-plane", data_plane.name()]);
        let env = cluster.lateen(&["env"]);
        let variable = |name: &str| {
            let prefix = format!("{name}=");
            let value = env.split_whitespace().find_map(|word| word.strip_prefix(&prefix));
            value
                .unwrap_or_else(|| panic!("lateen env prints no {name}: {env}"))
                .trim_matches(['"', '\''])
                .to_owned()
        };
        cluster.kubeconfig = variable("KUBECONFIG");
        cluster.gateway = variable("GATEWAY_URL");
        cluster
    }

    /// `host:port` of the ingress gateway.
    pub fn gateway(&self) -> &str {
        &self.gateway
    }

    /// Runs `lateen` for this cluster; a failure is the test's.
    pub fn lateen(&self, args: &[&str]) -> String {
        let mut command = Command::new(lateen());
        command.args(args).env("LATEEN_HOME", self.home.path()).env("KUBECONFIG", &self.kubeconfig);
        if matches!(args.first(), Some(&("up" | "down" | "env"))) {
            command.args(["--name", &self.name]);
        }
        checked(&format!("lateen {}", args.join(" ")), command.output().unwrap())
    }

    /// The folder of its state.
    pub fn state(&self) -> PathBuf {
        self.home.path().join(&self.name)
    }

    /// The file that says how to reach it.
    pub fn kubeconfig(&self) -> &str {
        &self.kubeconfig
    }

    /// Runs `lateen` with another kubeconfig.
    pub fn try_lateen(&self, kubeconfig: &Path, args: &[&str]) -> Output {
        self.lateen_command(kubeconfig, args).output().unwrap()
    }

    /// Starts `lateen` with another kubeconfig.
    pub fn start_lateen(&self, kubeconfig: &Path, args: &[&str]) -> Child {
        self.lateen_command(kubeconfig, args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    fn lateen_command(&self, kubeconfig: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(lateen());
        command.args(args).env("LATEEN_HOME", self.home.path()).env("KUBECONFIG", kubeconfig);
        command.stdin(Stdio::null());
        command
    }

    /// Runs stock `kubectl`; a failure is the test's.
    pub fn kubectl(&self, args: &[&str]) -> String {
        checked(&format!("kubectl {}", args.join(" ")), self.try_kubectl(args, ""))
    }

    /// Runs stock `kubectl` with this standard input.
    pub fn try_kubectl(&self, args: &[&str], input: &str) -> Output {
        let mut child = Command::new("kubectl")
            .args(args)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", self.home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Applies YAML text.
    pub fn apply(&self, yaml: &str) -> String {
        checked("kubectl apply", self.try_kubectl(&["apply", "-f", "-"], yaml))
    }

    /// Applies a file of the repository's `samples`.
    pub fn apply_sample(&self, path: &str) -> String {
        let path = repository().join("samples").join(path);
        self.kubectl(&["apply", "-f", path.to_str().unwrap()])
    }

    /// An object list as JSON.
    pub fn list(&self, args: &[&str]) -> Vec<Value> {
        let text = self.kubectl(&[&["get", "-o", "json"], args].concat());
        let list: Value = serde_json::from_str(&text).unwrap();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until every pod of a namespace is ready, and tells their `kubectl get pod` lines.
    pub fn wait_for_pods(&self, namespace: &str, at_least: usize) -> String {
        eventually("all pods ready", || {
            let text = self.kubectl(&["get", "pod", "-n", namespace, "--no-headers"]);
            let ready = |line: &&str| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let full = words.get(1).and_then(|ready| ready.split_once('/')).is_some_and(|(a, b)| a == b);
                full && words.get(2) == Some(&"Running")
            };
            let count = text.lines().count();
            if count >= at_least && text.lines().filter(ready).count() == count {
                Ok(text)
            } else {
                Err(text)
            }
        })
    }

    /// Asks the ingress gateway.
    pub fn get(&self, path: &str, curl_flags: &[&str]) -> Answer {
        curl(&format!("http://{}{path}", self.gateway), curl_flags)
    }

    /// The product page, for a user who is signed in or not.
    pub fn product_page(&self, user: Option<&str>) -> Answer {
        let Some(user) = user else { return self.get("/productpage", &[]) };
        let login = self.get("/login", &["-d", &format!("username={user}&passwd=x")]);
        let cookie = login
            .head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().starts_with("set-cookie:").then(|| line[11..].trim()))
            .and_then(|cookie| cookie.split(';').next())
            .unwrap_or_else(|| panic!("signing in set no cookie: {login:?}"));
        self.get("/productpage", &["-b", cookie])
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut down = Command::new(lateen());
        down.args(["down", "--name", &self.name]).env("LATEEN_HOME", self.home.path());
        let output = down.output();
        if std::thread::panicking() {
            eprintln!("lateen down: {output:?}");
        } else {
            checked("lateen down", output.unwrap());
        }
    }
}

/// Asks a URL with curl.
pub fn curl(url: &str, flags: &[&str]) -> Answer {
    let output =
        Command::new("curl").args(["-s", "-i", "--max-time", "30"]).args(flags).arg(url).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

fn checked(what: &str, output: Output) -> String {
    assert!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
