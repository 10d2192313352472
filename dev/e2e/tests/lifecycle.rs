//! A local cluster's life: started, repeated, killed, started again, ended; and what it says to bad wishes.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

fn lateen(home: &Path, args: &[&str]) -> Output {
    Command::new(e2e::lateen()).args(args).env("LATEEN_HOME", home).env_remove("KUBECONFIG").output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Processes of this state folder: it is in the environment of every one.
fn processes(home: &Path) -> usize {
    let wanted = home.to_str().unwrap().as_bytes();
    let mentions = |path: PathBuf| {
        std::fs::read(path).is_ok_and(|text| text.windows(wanted.len()).any(|window| window == wanted))
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let numbered =
        entries.filter(|entry| entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok()));
    numbered.filter(|entry| mentions(entry.path().join("environ"))).count()
}

fn none_left(home: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while processes(home) > 0 {
        assert!(Instant::now() < deadline, "{} processes are left", processes(home));
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Ends the cluster also when the test fails.
struct Home(TempDir);

impl Drop for Home {
    fn drop(&mut self) {
        lateen(self.0.path(), &["down", "--purge", "--name", "life"]);
    }
}

#[test]
fn a_cluster_survives_a_kill_and_leaves_nothing_behind() {
    let home = Home(TempDir::new().unwrap());
    let path = home.0.path();
    let up = ["up", "--detach", "--name", "life"];
    let first = lateen(path, &up);
    assert!(first.status.success(), "{}", stderr(&first));
    let exports = stdout(&first);
    assert!(exports.starts_with("export KUBECONFIG=") && exports.contains("GATEWAY_URL=127."), "{exports}");

    // Again: nothing happens, and the same is printed.
    let second = lateen(path, &up);
    assert!(stderr(&second).contains("running already"), "{}", stderr(&second));
    assert_eq!(stdout(&second), exports);
    assert_eq!(stdout(&lateen(path, &["env", "--name", "life"])), exports);
    let other = lateen(path, &["up", "--detach", "--name", "life", "--data-plane", "envoy"]);
    assert!(!other.status.success() && stderr(&other).contains("lateen down"), "{}", stderr(&other));

    // Killed: its pods die with it, and what was stored is there again.
    let run: Value = serde_json::from_slice(&std::fs::read(path.join("life/run.json")).unwrap()).unwrap();
    let pid = run["process"]["pid"].to_string();
    assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    none_left(path);
    assert!(!lateen(path, &["env", "--name", "life"]).status.success());
    let third = lateen(path, &up);
    assert!(third.status.success(), "{}", stderr(&third));
    assert_eq!(stdout(&third), exports, "ports and addresses stay");

    let down = lateen(path, &["down", "--name", "life"]);
    assert!(stderr(&down).contains("has ended"), "{}", stderr(&down));
    none_left(path);
    let again = lateen(path, &["down", "--name", "life", "--purge"]);
    assert!(again.status.success() && stderr(&again).contains("not running"), "{}", stderr(&again));
    assert!(!path.join("life").exists());
}

#[test]
fn bad_wishes_are_refused_by_name() {
    let home = TempDir::new().unwrap();
    let refused = |args: &[&str], home: &Path, wanted: &str| {
        let output = lateen(home, args);
        assert!(!output.status.success(), "{args:?}");
        assert!(stderr(&output).contains(wanted), "{args:?}: {}", stderr(&output));
    };
    refused(&["up", "--isolation", "netns"], home.path(), "--isolation netns is not supported yet");
    refused(&["up", "--name", "../x"], home.path(), "no name for a cluster");
    refused(&["env"], home.path(), "is not running");
    let state = home.path().join("default");
    std::fs::create_dir(&state).unwrap();
    std::fs::write(state.join("VERSION"), "99").unwrap();
    refused(&["up"], home.path(), "version 99");
    refused(&["up", "--detach"], home.path(), "version 99");
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    refused(&["up"], &file, "cannot make the state folder");
}
