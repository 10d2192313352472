//! A workload's certificate in files that somebody else puts into the pod and renews.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lateen_ca::tls::{Trust, identity};

use crate::identity::{Published, Workload};

/// Istio's folder of certificates that exist, below the pod's root.
const EXISTING: &str = "etc/certs";
/// The folder of certificates that a platform gives to workloads.
const OF_PLATFORM: &str = "var/run/secrets/workload-spiffe-credentials";
/// The names in both.
const NAMES: [&str; 3] = ["cert-chain.pem", "key.pem", "root-cert.pem"];
/// How often they are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Where the parts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateFiles {
    pub(crate) chain: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) root: PathBuf,
}

impl CertificateFiles {
    /// Istio's three names in a folder.
    pub(crate) fn of_folder(folder: &Path) -> Self {
        let [chain, key, root] = NAMES.map(|name| folder.join(name));
        Self { chain, key, root }
    }

    /// Istio's default place for certificates that are mounted.
    pub(crate) fn existing(root: &Path) -> Self {
        Self::of_folder(&root.join(EXISTING))
    }

    /// Those that are there, all three of them, in Istio's order of places.
    pub(crate) fn found(root: &Path) -> Option<Self> {
        let places = [OF_PLATFORM, EXISTING].map(|place| Self::of_folder(&root.join(place)));
        places.into_iter().find(|files| {
            let there = [&files.chain, &files.key, &files.root].map(|path| path.is_file());
            if there.contains(&true) && there.contains(&false) {
                tracing::warn!(
                    target: "cache",
                    "{}: of {} some are missing, so the certificate authority is asked",
                    files.chain.parent().unwrap_or(Path::new("")).display(),
                    NAMES.join(", ")
                );
            }
            !there.contains(&false)
        })
    }

    /// What they hold now, if it can be used.
    pub(crate) fn read(&self) -> Result<Workload, String> {
        let text = |path: &Path| {
            std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
        };
        let workload = Workload {
            chain_pem: text(&self.chain)?,
            key_pem: text(&self.key)?,
            root_pem: text(&self.root)?,
        };
        identity(workload.chain_pem.as_bytes(), workload.key_pem.as_bytes())
            .map_err(|error| format!("{} with {}: {error}", self.chain.display(), self.key.display()))?;
        Trust::from_pem(workload.root_pem.as_bytes())
            .map_err(|error| format!("{}: {error}", self.root.display()))?;
        Ok(workload)
    }
}

/// Publishes what the files hold whenever that changes and can be used; of what cannot, it is said once.
pub(crate) async fn follow(files: CertificateFiles, publish: Published) {
    let mut said = String::new();
    loop {
        match files.read() {
            Ok(workload) => {
                said.clear();
                let new = publish.borrow().as_deref() != Some(&workload);
                if new {
                    tracing::info!(target: "cache", "workload certificate taken from {}", files.chain.display());
                    publish.send_replace(Some(Arc::new(workload)));
                }
            }
            Err(reason) if reason != said => {
                tracing::warn!(target: "cache", "workload certificate in files: {reason}; what is in use stays");
                said = reason;
            }
            Err(_) => {}
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Writes every certificate that is published into a folder (`OUTPUT_CERTS`), for applications to read.
pub(crate) async fn write_out(
    folder: PathBuf,
    mut workload: tokio::sync::watch::Receiver<Option<Arc<Workload>>>,
) {
    let files = CertificateFiles::of_folder(&folder);
    loop {
        let now = workload.borrow_and_update().clone();
        if let Some(now) = now {
            // The chain comes last: who looks at it finds the key that belongs to it.
            let parts =
                [(&files.root, &now.root_pem), (&files.key, &now.key_pem), (&files.chain, &now.chain_pem)];
            for (path, text) in parts {
                if let Err(error) = replace(path, text) {
                    tracing::error!(target: "cache", "OUTPUT_CERTS: {}: {error}", path.display());
                }
            }
        }
        if workload.changed().await.is_err() {
            return;
        }
    }
}

/// Puts a file in the place of another at once, readable by its owner alone.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let new = path.with_extension("pem.new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::SystemTime;

    use lateen_ca::Authority;
    use tokio::sync::watch;

    use super::*;

    fn workload(name: &str) -> Workload {
        let (now, day) = (SystemTime::now(), Duration::from_secs(86_400));
        let authority = Authority::self_signed("td", now, day).unwrap();
        let server = authority.server(&[name.to_owned()], now, day).unwrap();
        Workload {
            chain_pem: server.chain_pem,
            key_pem: server.key_pem,
            root_pem: authority.root_pem().to_owned(),
        }
    }

    fn put(folder: &Path, workload: &Workload) {
        std::fs::create_dir_all(folder).unwrap();
        let files = CertificateFiles::of_folder(folder);
        std::fs::write(files.chain, &workload.chain_pem).unwrap();
        std::fs::write(files.key, &workload.key_pem).unwrap();
        std::fs::write(files.root, &workload.root_pem).unwrap();
    }

    #[tokio::test]
    async fn files_are_followed_and_what_cannot_be_used_is_not_taken() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(CertificateFiles::found(root.path()), None);
        let folder = root.path().join(EXISTING);
        let (first, second) = (workload("one"), workload("two"));
        put(&folder, &first);
        let files = CertificateFiles::found(root.path()).unwrap();
        let (publish, mut published) = watch::channel(None);
        tokio::spawn(follow(files.clone(), publish));
        let mut next = async |wanted: &Workload| {
            let found = published.wait_for(|now| now.as_deref() == Some(wanted));
            tokio::time::timeout(Duration::from_secs(60), found).await.unwrap().unwrap();
        };
        next(&first).await;
        std::fs::write(&files.key, &second.key_pem).unwrap();
        assert!(files.read().unwrap_err().contains("does not fit"));
        put(&folder, &second);
        next(&second).await;
        std::fs::remove_file(&files.root).unwrap();
        assert_eq!(CertificateFiles::found(root.path()), None, "two of three are not enough");
        put(&root.path().join(OF_PLATFORM), &first);
        put(&folder, &second);
        let found = CertificateFiles::found(root.path()).unwrap();
        assert!(found.chain.starts_with(root.path().join(OF_PLATFORM)), "{found:?}");
    }

    #[tokio::test]
    async fn what_is_published_is_written_out_for_its_owner_alone() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("out");
        let (publish, published) = watch::channel(None);
        let writer = tokio::spawn(write_out(folder.clone(), published));
        let files = CertificateFiles::of_folder(&folder);
        for name in ["one", "two"] {
            let wanted = workload(name);
            publish.send_replace(Some(Arc::new(wanted.clone())));
            let written = async {
                while files.read().ok().as_ref() != Some(&wanted) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), written).await.unwrap();
        }
        let mode = std::fs::metadata(&files.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(publish);
        writer.await.unwrap();
    }
}
