//! `xtask fuzz NAME SECONDS`: runs a fuzz target of `crates/*/fuzz` with libFuzzer on the stable toolchain.
//!
//! Coverage comes from LLVM's own pass, which stable rustc takes as flags; an explicit `--target` keeps them from
//! build scripts. A run begins with seeds made from the samples; what it finds interesting is kept in the package's
//! `fuzz/corpus`, a crash in `fuzz/artifacts`.

mod seeds;

use std::path::{Path, PathBuf};
use std::process::Command;

const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing";

/// Builds and runs a target; an error when it crashes.
pub(crate) fn run(root: &Path, name: &str, seconds: &str) -> Result<(), String> {
    let seconds: u64 = seconds.parse().map_err(|_| format!("{seconds:?} is no number of seconds"))?;
    let targets = targets(root)?;
    let Some((_, package)) = targets.iter().find(|(target, _)| target == name) else {
        let names: Vec<&str> = targets.iter().map(|(target, _)| target.as_str()).collect();
        return Err(format!("no fuzz target {name:?}; there is: {}", names.join(", ")));
    };
    let host = host()?;
    let target_dir = root.join("target/fuzz");
    let mut build = Command::new(cargo());
    build
        .args(["build", "--release", "--bin", name, "--target", &host, "--manifest-path"])
        .arg(package.join("Cargo.toml"))
        .env("CARGO_TARGET_DIR", &target_dir)
        .env("RUSTFLAGS", COVERAGE);
    succeed(&mut build)?;
    let corpus = package.join("corpus").join(name);
    let artifacts = package.join("artifacts").join(name);
    for folder in [&corpus, &artifacts] {
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    seeds::write(root, name, &corpus)?;
    let mut fuzz = Command::new(target_dir.join(&host).join("release").join(name));
    fuzz.arg(format!("-max_total_time={seconds}"))
        .arg("-timeout=10")
        .arg("-rss_limit_mb=2048")
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(&corpus);
    let seeds = package.join("seeds").join(name);
    if seeds.is_dir() {
        fuzz.arg(seeds);
    }
    succeed(&mut fuzz)
}

/// Every fuzz target with its package's folder.
fn targets(root: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let crates = root.join("crates");
    let entries = std::fs::read_dir(&crates).map_err(|error| format!("{}: {error}", crates.display()))?;
    let mut out = Vec::new();
    for package in entries.flatten().map(|entry| entry.path().join("fuzz")) {
        let files = std::fs::read_dir(package.join("fuzz_targets")).into_iter().flatten().flatten();
        for file in files.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "rs"))
        {
            if let Some(name) = file.file_stem().and_then(|stem| stem.to_str()) {
                out.push((name.to_owned(), package.clone()));
            }
        }
    }
    out.sort();
    Ok(out)
}

fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn host() -> Result<String, String> {
    let output = Command::new("rustc").arg("-vV").output().map_err(|error| format!("rustc -vV: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc -vV names no host".to_owned())
}

fn succeed(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program} ended with {status}")),
        Err(error) => Err(format!("{program}: {error}")),
    }
}
