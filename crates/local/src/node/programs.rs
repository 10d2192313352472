//! The commands that are there inside of pods: some by this binary, all others are the host's.

use std::io;
use std::path::{Path, PathBuf};

/// Names under which this binary is found first, whatever the host has by these names.
const OWN: &[&str] = &["fortio", "istioctl", "lateen", "pilot-agent"];

/// Makes the folder of links that begins every `PATH`.
pub(crate) fn link(folder: &Path, executable: &Path) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for name in OWN {
        let link = folder.join(name);
        match std::fs::remove_file(&link) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => std::os::unix::fs::symlink(executable, &link)?,
        }
    }
    Ok(())
}

/// The `PATH` of a command in a pod.
pub(crate) fn path(folder: &Path, inherited: &str) -> String {
    match inherited {
        "" => folder.display().to_string(),
        inherited => format!("{}:{inherited}", folder.display()),
    }
}

/// The program that `word` means. A path of the image, `/usr/bin/fortio`, means the program of that name where the host
/// has no such file; a relative one is looked for in `root`.
pub(crate) fn find(word: &str, path: &str, folder: &Path, root: &Path) -> Option<PathBuf> {
    let name = Path::new(word).file_name()?.to_str()?;
    if OWN.contains(&name) {
        return Some(folder.join(name));
    }
    let direct = root.join(word);
    if word.contains('/') && direct.is_file() {
        return Some(direct);
    }
    if word.contains('/') && !word.starts_with('/') {
        return None;
    }
    path.split(':').map(|folder| Path::new(folder).join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_programs_come_first_and_paths_of_images_go_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, root) = (dir.path().join("bin"), dir.path().join("root"));
        std::fs::create_dir_all(root.join("opt")).unwrap();
        std::fs::write(root.join("opt/tool"), "").unwrap();
        link(&folder, Path::new("/bin/lateen")).unwrap();
        link(&folder, Path::new("/bin/lateen")).unwrap();
        let path = path(&folder, "/bin");
        let found = |word: &str| find(word, &path, &folder, &root);
        assert_eq!(found("/usr/local/bin/pilot-agent"), Some(folder.join("pilot-agent")));
        assert_eq!(found("/usr/bin/fortio"), Some(folder.join("fortio")));
        assert_eq!(found("sh"), Some("/bin/sh".into()));
        assert_eq!(found("/no/such/folder/sh"), Some("/bin/sh".into()));
        assert_eq!(found("opt/tool"), Some(root.join("opt/tool")));
        assert_eq!(found("./sh"), None);
        assert_eq!(found("no-such-program"), None);
        assert_eq!(found("/"), None);
    }
}
