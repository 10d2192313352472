//! The mounted root certificates: when they change, the authority has something new to say.
//!
//! While one root is exchanged for another the file changes at every stage. The authority's answer to a new request
//! brings the roots to trust and, once the new authority signs, a certificate of that. Of several control planes one
//! may not have heard of the stage yet, so an answer that disagrees with the file is asked for again, a few times.

use std::path::PathBuf;
use std::time::Duration;

use lateen_ca::chain;

/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Proxies ask within this time after a change, by chance, so that a fleet does not at once.
const SPREAD: Duration = Duration::from_secs(2);
/// How often it is asked again where file and answer differ: they may do so for good, where the authority is not that
/// of the control plane.
const TRIES: u32 = 8;
/// The first wait before it is asked again; each one is twice the one before.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The file, and what was last seen in it.
pub(crate) struct RootFile {
    path: PathBuf,
    seen: Option<Vec<String>>,
    tries: u32,
}

impl RootFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        let seen = fingerprints(&std::fs::read_to_string(&path).unwrap_or_default());
        Self { path, seen, tries: 0 }
    }

    /// Waits until the file holds other certificates than before. A file that cannot be read tells nothing.
    pub(crate) async fn changed(&mut self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = fingerprints(&std::fs::read_to_string(&self.path).unwrap_or_default());
            if now.is_some() && now != self.seen {
                tokio::time::sleep(SPREAD.mul_f64(rand::random())).await;
                self.seen = now;
                self.tries = TRIES;
                return;
            }
        }
    }

    /// After how long to ask again, where the answer has other roots than the file although it changed lately.
    pub(crate) fn look_again(&mut self, answered: &str) -> Option<Duration> {
        if self.tries == 0 || fingerprints(answered) == self.seen {
            self.tries = 0;
            return None;
        }
        let wait = FIRST_WAIT * 2u32.pow(TRIES - self.tries);
        self.tries -= 1;
        Some(wait)
    }
}

fn fingerprints(pem: &str) -> Option<Vec<String>> {
    chain::facts(pem).ok().map(|all| all.into_iter().map(|facts| facts.sha256).collect())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use lateen_ca::Authority;

    use super::*;

    fn root() -> String {
        let day = Duration::from_secs(86_400);
        Authority::self_signed("td", SystemTime::now(), day).unwrap().root_pem().to_owned()
    }

    #[tokio::test]
    async fn an_answer_that_disagrees_with_a_new_file_is_asked_for_again_a_few_times() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root-cert.pem");
        let (old, new) = (root(), root());
        std::fs::write(&path, &old).unwrap();
        let mut file = RootFile::new(path.clone());
        assert_eq!(file.look_again(&new), None, "the file did not change");
        std::fs::write(&path, "").unwrap();
        let nothing = tokio::time::timeout(LOOK_EVERY * 3, file.changed()).await;
        assert!(nothing.is_err(), "an unreadable file is no change");
        std::fs::write(&path, format!("{old}{new}")).unwrap();
        file.changed().await;
        assert!(file.look_again(&old).is_some());
        assert_eq!(file.look_again(&format!("{old}{new}")), None);
        std::fs::write(&path, format!("{new}{old}")).unwrap();
        file.changed().await;
        let waits: Vec<Duration> = std::iter::from_fn(|| file.look_again(&old)).collect();
        assert_eq!(waits.len(), TRIES as usize);
        assert!(waits.is_sorted());
    }
}
