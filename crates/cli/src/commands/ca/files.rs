//! `x ca root|intermediate`: the files that `Makefile.selfsigned.mk` makes, without openssl.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use lateen_ca::make::{Kind, Maker, Signer};

use crate::commands::{CliError, Outcome};

const ROOT_KEY: &str = "root-key.pem";
const ROOT_CERT: &str = "root-cert.pem";

/// What both sorts of certificates have.
#[derive(clap::Args)]
struct Common {
    /// Folder of root-key.pem and root-cert.pem
    #[arg(long, default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// Organization in the certificate's name
    #[arg(long, default_value = "Istio", value_name = "NAME")]
    org: String,
    /// Kind of the key: rsa2048, rsa4096, ecdsa-p256 or ecdsa-p384
    #[arg(long, default_value = "rsa4096", value_name = "KIND")]
    key: Kind,
}

/// Arguments of `x ca root`.
#[derive(clap::Args)]
pub(super) struct Root {
    #[command(flatten)]
    common: Common,
    /// Common name in the certificate's name
    #[arg(long, default_value = "Root CA", value_name = "NAME")]
    cn: String,
    /// How many days it holds
    #[arg(long, default_value_t = 3650)]
    days: u32,
}

/// Arguments of `x ca intermediate`.
#[derive(clap::Args)]
pub(super) struct Intermediate {
    /// The cluster: its files are written into the folder of this name
    cluster: String,
    #[command(flatten)]
    common: Common,
    /// Common name in the certificate's name
    #[arg(long, default_value = "Intermediate CA", value_name = "NAME")]
    cn: String,
    /// How many days it holds
    #[arg(long, default_value_t = 730)]
    days: u32,
}

impl Common {
    fn maker(&self, days: u32) -> Maker {
        let lifetime = Duration::from_secs(u64::from(days) * 86_400);
        Maker { key: self.key, now: SystemTime::now(), lifetime }
    }
}

impl Root {
    pub(super) fn run(self) -> Outcome {
        let Common { dir, org, .. } = &self.common;
        let made = self.common.maker(self.days).root(org, &self.cn).map_err(CliError::new)?;
        write_new(&dir.join(ROOT_KEY), &made.key_pem(), 0o600)?;
        write_new(&dir.join(ROOT_CERT), made.certificate_pem(), 0o644)?;
        println!("{} and {ROOT_KEY} written", dir.join(ROOT_CERT).display());
        Ok(ExitCode::SUCCESS)
    }
}

impl Intermediate {
    pub(super) fn run(self) -> Outcome {
        let Self { cluster, common, cn, days } = &self;
        let named = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if cluster.is_empty() || !cluster.chars().all(named) {
            return Err(CliError(format!("{cluster:?} is no name of a cluster: use letters, digits and -")));
        }
        let (certificate, key) = (read(&common.dir.join(ROOT_CERT))?, read(&common.dir.join(ROOT_KEY))?);
        let root = Signer::read(certificate.clone(), &key, SystemTime::now())
            .map_err(|error| CliError(format!("{ROOT_CERT} and {ROOT_KEY}: {error}")))?;
        let maker = common.maker(*days);
        let made = root.intermediate(&maker, &common.org, cn, cluster, Some(0)).map_err(CliError::new)?;
        let folder = common.dir.join(cluster);
        write_new(&folder.join("ca-key.pem"), &made.key_pem(), 0o600)?;
        write_new(&folder.join("ca-cert.pem"), made.certificate_pem(), 0o644)?;
        write_new(&folder.join(ROOT_CERT), &certificate, 0o644)?;
        let chain = format!("{}{certificate}", made.certificate_pem());
        write_new(&folder.join("cert-chain.pem"), &chain, 0o644)?;
        println!("ca-key.pem, ca-cert.pem, cert-chain.pem and {ROOT_CERT} written to {}", folder.display());
        Ok(ExitCode::SUCCESS)
    }
}

fn read(path: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(path)
        .map_err(|error| CliError(format!("{}: {error}; `lateen x ca root` makes a root", path.display())))
}

/// A file that is there is never replaced: certificates in use may rest on it.
fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), CliError> {
    let write = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
        file.write_all(text.as_bytes())
    };
    write().map_err(|error| {
        let advice = match error.kind() {
            std::io::ErrorKind::AlreadyExists => "; move it away if another is wanted",
            _ => "",
        };
        CliError(format!("{}: {error}{advice}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use super::*;

    fn common(dir: &Path, key: Kind) -> Common {
        Common { dir: dir.to_owned(), org: "Istio".into(), key }
    }

    fn root(dir: &Path, key: Kind) -> Outcome {
        Root { common: common(dir, key), cn: "Root CA".into(), days: 10 }.run()
    }

    fn intermediate(dir: &Path, key: Kind, cluster: &str) -> Outcome {
        let cluster = cluster.to_owned();
        Intermediate { cluster, common: common(dir, key), cn: "Intermediate CA".into(), days: 5 }.run()
    }

    fn openssl(dir: &Path, args: &[&str]) -> Option<String> {
        match Command::new("openssl").args(args).current_dir(dir).output() {
            Err(_) => {
                assert!(std::env::var_os("LATEEN_REQUIRE_TOOLS").is_none(), "there is no openssl");
                eprintln!("skipped: there is no openssl");
                None
            }
            Ok(output) => {
                assert!(output.status.success(), "{args:?}: {output:?}");
                Some(String::from_utf8_lossy(&output.stdout).into_owned())
            }
        }
    }

    #[test]
    fn openssl_verifies_roots_and_intermediates_of_both_kinds() {
        for (of_root, of_cluster) in [(Kind::Rsa2048, Kind::EcdsaP256), (Kind::EcdsaP384, Kind::Rsa2048)] {
            let folder = tempfile::tempdir().unwrap();
            let dir = folder.path();
            root(dir, of_root).unwrap();
            intermediate(dir, of_cluster, "cluster1").unwrap();
            for file in ["ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem"] {
                assert!(dir.join("cluster1").join(file).is_file(), "{file}");
            }
            for key in ["root-key.pem", "cluster1/ca-key.pem"] {
                let mode = std::fs::metadata(dir.join(key)).unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600, "{key}");
            }
            let verify = ["verify", "-x509_strict", "-CAfile", "root-cert.pem", "cluster1/ca-cert.pem"];
            let Some(verified) = openssl(dir, &verify) else { return };
            assert!(verified.contains("OK"), "{verified}");
            let text = openssl(dir, &["x509", "-in", "cluster1/ca-cert.pem", "-noout", "-text"]).unwrap();
            for wanted in ["CA:TRUE, pathlen:0", "DNS:istiod.istio-system.svc", "O = Istio", "L = cluster1"] {
                let found = text.contains(wanted) || text.contains(&wanted.replace(" = ", "="));
                assert!(found, "{wanted}: {text}");
            }
        }
    }

    #[test]
    fn what_is_there_stays_and_what_is_missing_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let missing = intermediate(folder.path(), Kind::EcdsaP256, "c").unwrap_err().to_string();
        assert!(missing.contains("root-cert.pem") && missing.contains("x ca root"), "{missing}");
        root(folder.path(), Kind::EcdsaP256).unwrap();
        let again = root(folder.path(), Kind::EcdsaP256).unwrap_err().to_string();
        assert!(again.contains("root-key.pem") && again.contains("move it away"), "{again}");
        assert!(intermediate(folder.path(), Kind::EcdsaP256, "../c").is_err());
    }
}
