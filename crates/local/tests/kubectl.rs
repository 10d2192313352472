//! The table of commands, run by stock kubectls against a local cluster without a mesh.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use lateen_local::state::StateFolder;
use lateen_local::{ClusterConfig, DataPlane, Progress};

#[path = "../../../dev/testkit/src/kubectl.rs"]
mod kubectls;

const TABLE: &str = include_str!("commands.txt");

/// Plays the binary: an application that runs until it is ended, and commands that say what they were asked.
const PROGRAM: &str = r#"#!/bin/sh
case "$0" in */fortio|*/istioctl|*/pilot-agent) echo "${0##*/} $*"; exit;; esac
trap 'exit 0' TERM
echo "started $*"
while :; do sleep 1 & wait; done
"#;

struct Row {
    line: usize,
    command: String,
    input: String,
    wanted: Vec<String>,
    exit: i32,
    /// The minor version of kubectl that does this first.
    since: u64,
}

fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (index, line) in TABLE.lines().enumerate() {
        let Some((mark, rest)) = line.split_at_checked(2) else { continue };
        if mark == "$ " {
            let (wanted, input) = (Vec::new(), String::new());
            rows.push(Row { line: index + 1, command: rest.to_owned(), input, wanted, exit: 0, since: 0 });
            continue;
        }
        let Some(row) = rows.last_mut() else { continue };
        match mark {
            "< " => row.input.extend([rest, "\n"]),
            "> " => row.wanted.push(rest.to_owned()),
            "! " => row.exit = rest.parse().unwrap(),
            "@ " => row.since = rest.parse().unwrap(),
            _ => {}
        }
    }
    rows
}

/// Whether the line contains the words of the pattern in their order.
fn matches(line: &str, pattern: &str) -> bool {
    let mut rest = line;
    pattern.split('*').all(|word| {
        // Columns are as wide as their content.
        let word = word.trim();
        let found = rest.find(word);
        rest = found.map_or("", |at| &rest[at + word.len()..]);
        found.is_some()
    })
}

struct Shell<'a> {
    dir: &'a Path,
    kubeconfig: PathBuf,
    namespace: String,
}

impl Shell<'_> {
    fn run(&self, command: &str, input: &str) -> (i32, String) {
        let path = format!("{}:{}", self.dir.display(), std::env::var("PATH").unwrap_or_default());
        let mut child = Command::new("sh")
            .args(["-c", &format!("{{ {command}\n}} 2>&1")])
            .env("PATH", path)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", self.dir)
            .env("NAMESPACE", &self.namespace)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Most commands read nothing and may be gone by now.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// What is not as the table has it.
fn judge(shell: &Shell<'_>, minor: u64) -> Vec<String> {
    let mut wrong = Vec::new();
    for row in rows().into_iter().filter(|row| row.since <= minor) {
        let (exit, text) = shell.run(&row.command, &row.input);
        let missing: Vec<&String> =
            row.wanted.iter().filter(|wanted| !text.lines().any(|line| matches(line, wanted))).collect();
        let empty = row.wanted.iter().all(|wanted| wanted == "*");
        if exit != row.exit || !missing.is_empty() && !empty {
            wrong.push(format!(
                "line {}: {}\n  ended with {exit}, wanted {}; missing {missing:?} in\n{text}",
                row.line, row.command, row.exit
            ));
        }
    }
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_kubectls_find_what_they_know() {
    let kubectls = kubectls::kubectls();
    if kubectls.is_empty() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("lateen");
    std::fs::write(&program, PROGRAM).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let state = StateFolder::at(dir.path().join("state"), "table");
    let kubeconfig = state.kubeconfig();
    let config = ClusterConfig { state, data_plane: DataPlane::Lateen, executable: program };
    let cluster = config.start(&Progress::new(|line| eprintln!("{line}"))).await.unwrap();
    let mut wrong = Vec::new();
    for (number, (kubectl, minor)) in kubectls.into_iter().enumerate() {
        let folder = dir.path().join(format!("kubectl-{number}"));
        std::fs::create_dir(&folder).unwrap();
        symlink(&kubectl, folder.join("kubectl")).unwrap();
        let own = folder.join("config");
        std::fs::copy(&kubeconfig, &own).unwrap();
        let namespace = format!("table-{number}");
        let done = tokio::task::spawn_blocking(move || {
            let shell = Shell { dir: &folder, kubeconfig: own, namespace };
            let (exit, text) = shell.run(
                "kubectl create ns $NAMESPACE && kubectl config set-context --current --namespace=$NAMESPACE",
                "",
            );
            assert_eq!(exit, 0, "{text}");
            judge(&shell, minor)
        });
        wrong.extend(done.await.unwrap().into_iter().map(|text| format!("{}: {text}", kubectl.display())));
    }
    cluster.end().await;
    assert!(wrong.is_empty(), "{} rows of the table do not hold:\n\n{}", wrong.len(), wrong.join("\n"));
}
