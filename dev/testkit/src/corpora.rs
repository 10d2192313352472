//! The corpora: real inputs with expected results, outside the repository.

use std::path::PathBuf;

/// A folder of the corpora, as `simulation`; `None`, with a word on standard error, where there are none.
pub fn folder(name: &str) -> Option<PathBuf> {
    let Some(root) = std::env::var_os("LATEEN_CORPORA").filter(|root| !root.is_empty()) else {
        eprintln!("skipped: LATEEN_CORPORA is not set");
        return None;
    };
    let folder = PathBuf::from(root).join(name);
    if !folder.is_dir() {
        eprintln!("skipped: {} is no folder", folder.display());
        return None;
    }
    Some(folder)
}
