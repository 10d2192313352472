//! Lists the files that `lateen samples` writes, for `src/samples.rs`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Folders of the repository that users of the labs expect.
const FOLDERS: &[&str] = &["istiolabmanual", "samples", "tools/certs"];

fn main() -> io::Result<()> {
    let variable = |name: &str| env::var_os(name).map(PathBuf::from).ok_or(io::ErrorKind::NotFound);
    let root = variable("CARGO_MANIFEST_DIR")?.join("../..");
    let mut files = Vec::new();
    for folder in FOLDERS {
        println!("cargo::rerun-if-changed={}", root.join(folder).display());
        walk(&root, Path::new(folder), &mut files)?;
    }
    files.sort();
    let mut list = String::from("&[\n");
    for file in files {
        let source = format!("concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/../../{file}\")");
        // Writing to a string does not fail.
        let _ = writeln!(list, "    File {{ path: {file:?}, text: include_str!({source}) }},");
    }
    list.push_str("]\n");
    fs::write(variable("OUT_DIR")?.join("samples.rs"), list)
}

fn walk(root: &Path, folder: &Path, files: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            walk(root, &path, files)?;
        } else {
            files.push(path.to_string_lossy().replace('\\', "/"));
        }
    }
    Ok(())
}
