//! The stock kubectls of tests. The test crates of `apiserver` and `local` include this file by its path: a dependency on
//! `testkit` would pull in all of its fakes.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The kubectl on the `PATH`, and those that `LATEEN_KUBECTLS` lists (as `PATH` does), each by its absolute path and with its
/// minor version. One that does not run is told on standard error and left out.
///
/// # Panics
/// When one does not run and `LATEEN_REQUIRE_TOOLS` is set.
pub(crate) fn kubectls() -> Vec<(PathBuf, u64)> {
    let list = |variable: &str| {
        let value = std::env::var_os(variable).unwrap_or_default();
        std::env::split_paths(&value).filter(|path| !path.as_os_str().is_empty()).collect::<Vec<_>>()
    };
    let first = list("PATH").into_iter().map(|folder| folder.join("kubectl")).find(|file| file.is_file());
    // Where there is none the name stands for it, and does not run.
    let first = first.unwrap_or_else(|| PathBuf::from("kubectl"));
    let all = std::iter::once(first).chain(list("LATEEN_KUBECTLS"));
    let found = all.filter_map(|program| {
        let found =
            program.canonicalize().ok().and_then(|path| minor_version(&path).map(|minor| (path, minor)));
        if found.is_none() {
            assert!(std::env::var_os("LATEEN_REQUIRE_TOOLS").is_none(), "{} does not run", program.display());
            eprintln!("skipped: {} does not run", program.display());
        }
        found
    });
    found.collect()
}

/// The minor version that a kubectl says it has; none when it does not run.
fn minor_version(program: &Path) -> Option<u64> {
    let output = Command::new(program).args(["version", "--client", "-o", "json"]).output().ok()?;
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    version["clientVersion"]["minor"].as_str()?.trim_end_matches('+').parse().ok()
}
