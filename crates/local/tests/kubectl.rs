//! The table of commands, run by stock kubectls against a local cluster without a mesh.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::{PermissionsExt, symlink};

use lateen_local::state::StateFolder;
use lateen_local::{ClusterConfig, DataPlane, Progress};

#[path = "../../../dev/testkit/src/kubectl.rs"]
mod kubectls;

#[path = "../../../dev/testkit/src/commands.rs"]
mod commands;

const TABLE: &str = include_str!("commands.txt");

/// Plays the binary: an application that runs until it is ended, shells that are the host's, and commands that say what
/// they were asked.
const PROGRAM: &str = r#"#!/bin/sh
case "$0" in */fortio|*/istioctl|*/pilot-agent) echo "${0##*/} $*"; exit;; esac
trap 'exit 0' TERM
case "$*" in "app sleep -- sh"*) shift 3; exec "$@";; esac
echo "started $*"
while :; do sleep 1 & wait; done
"#;

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
    let config = ClusterConfig { state, data_plane: DataPlane::Lateen, executable: program, outside: false };
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
            let shell = commands::Shell {
                program: "sh",
                home: &folder,
                folder: &folder,
                kubeconfig: own,
                variables: vec![("NAMESPACE".to_owned(), namespace)],
            };
            let (exit, text) = shell.run(
                "kubectl create ns $NAMESPACE && kubectl config set-context --current --namespace=$NAMESPACE",
                "",
            );
            assert_eq!(exit, 0, "{text}");
            shell.judge(TABLE, minor)
        });
        wrong.extend(done.await.unwrap().into_iter().map(|text| format!("{}: {text}", kubectl.display())));
    }
    cluster.end().await;
    assert!(wrong.is_empty(), "{} rows of the table do not hold:\n\n{}", wrong.len(), wrong.join("\n"));
}
