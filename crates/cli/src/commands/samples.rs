//! `lateen samples`: writes the labs' files, where documents look for them.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use lateen_manifests::samples::{FILES, File};

use super::{CliError, Outcome};
use crate::globals::Globals;

/// Arguments of `lateen samples`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    /// The folder that samples/, istiolabmanual/ and tools/certs/ are written into
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Replace files that are there and differ
    #[arg(long)]
    overwrite: bool,
}

impl Cmd {
    pub(crate) fn run(self, _globals: &Globals) -> Outcome {
        let differing = differing(&self.folder);
        if !self.overwrite && !differing.is_empty() {
            return Err(CliError::new(format!(
                "{} of the files are there already and differ; nothing was written. Use --overwrite to replace: {}",
                differing.len(),
                differing.join(", ")
            )));
        }
        for file in FILES {
            let path = self.folder.join(file.path);
            write(&path, file).map_err(|error| CliError::new(format!("{}: {error}", path.display())))?;
        }
        println!("{} files written to {}", FILES.len(), self.folder.display());
        Ok(ExitCode::SUCCESS)
    }
}

/// Files that are there with other contents.
fn differing(folder: &Path) -> Vec<&'static str> {
    let differs = |file: &&File| match std::fs::read(folder.join(file.path)) {
        Ok(bytes) => bytes != file.text.as_bytes(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    FILES.iter().filter(differs).map(|file| file.path).collect()
}

fn write(path: &Path, file: &File) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(path, file.text)?;
    let mode = if file.is_program() { 0o755 } else { 0o644 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_and_changes_of_users_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let run = |overwrite| Cmd { folder: dir.path().to_owned(), overwrite }.run(&Globals::default());
        run(false).unwrap();
        let script = dir.path().join("samples/multicluster/gen-eastwest-gateway.sh");
        assert_eq!(std::fs::metadata(&script).unwrap().permissions().mode() & 0o777, 0o755);
        run(false).unwrap();
        let sleep = dir.path().join("samples/sleep/sleep.yaml");
        std::fs::write(&sleep, "mine").unwrap();
        let refused = run(false).unwrap_err().to_string();
        assert!(refused.contains("samples/sleep/sleep.yaml"), "{refused}");
        assert_eq!(std::fs::read_to_string(&sleep).unwrap(), "mine");
        run(true).unwrap();
        assert_ne!(std::fs::read_to_string(&sleep).unwrap(), "mine");
    }

    /// Runs a program in a folder; none when it is not installed here.
    fn run(folder: &Path, program: &str, args: &[&str]) -> Option<std::process::Output> {
        match std::process::Command::new(program).args(args).current_dir(folder).output() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                eprintln!("skipped: {program} is not installed");
                None
            }
            output => Some(output.unwrap()),
        }
    }

    fn written() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        Cmd { folder: dir.path().to_owned(), overwrite: false }.run(&Globals::default()).unwrap();
        dir
    }

    #[test]
    fn the_makefile_makes_roots_and_intermediates() {
        let dir = written();
        let certs = dir.path().join("certs");
        std::fs::create_dir(&certs).unwrap();
        let small = ["ROOTCA_KEYSZ=2048", "INTERMEDIATE_KEYSZ=2048"];
        for target in ["root-ca", "cluster1-cacerts", "cluster2"] {
            let args = ["-f", "../tools/certs/Makefile.selfsigned.mk", target, small[0], small[1]];
            let Some(output) = run(&certs, "make", &args) else { return };
            assert!(output.status.success(), "{output:?}");
        }
        for cluster in ["cluster1", "cluster2"] {
            for file in ["ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem"] {
                assert!(certs.join(cluster).join(file).is_file(), "{cluster}/{file}");
            }
            let verify = ["verify", "-CAfile", "root-cert.pem", &format!("{cluster}/ca-cert.pem")];
            let Some(output) = run(&certs, "openssl", &verify) else { return };
            assert!(output.status.success(), "{output:?}");
        }
        let Some(wrong) = run(&certs, "make", &["-f", "../tools/certs/Makefile.selfsigned.mk", "x.y"]) else {
            return;
        };
        assert!(!wrong.status.success());
    }

    #[test]
    fn the_east_west_gateway_is_an_operator_of_its_network() {
        let dir = written();
        let script = "samples/multicluster/gen-eastwest-gateway.sh";
        let flags = [
            script,
            "--mesh",
            "mesh1",
            "--cluster",
            "cluster1",
            "--network",
            "network1",
            "--revision",
            "1-11-4",
        ];
        let Some(output) = run(dir.path(), "bash", &flags) else { return };
        assert!(output.status.success(), "{output:?}");
        let operator: serde_json::Value = serde_saphyr::from_slice(&output.stdout).unwrap();
        assert_eq!(operator["spec"]["revision"], "1-11-4");
        assert_eq!(operator["spec"]["profile"], "empty");
        let gateway = &operator["spec"]["components"]["ingressGateways"][0];
        assert_eq!(gateway["label"]["topology.istio.io/network"], "network1");
        assert_eq!(gateway["k8s"]["service"]["ports"][1]["port"], 15443);
        assert_eq!(operator["spec"]["values"]["global"]["multiCluster"]["clusterName"], "cluster1");
        let Some(incomplete) = run(dir.path(), "bash", &flags[..5]) else { return };
        assert!(
            String::from_utf8_lossy(&incomplete.stderr).contains("--network is missing"),
            "{incomplete:?}"
        );
    }
}
