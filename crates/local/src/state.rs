//! The state folder of a cluster: `$LATEEN_HOME/NAME`, or `~/.local/share/lateen/NAME`.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::addresses::ClusterNumber;
use crate::process::ProcessId;

/// The layout this program writes; a folder of another one is refused.
const VERSION: &str = "1";

/// The folder, checked or made.
#[derive(Clone, Debug)]
pub struct StateFolder {
    path: PathBuf,
    name: String,
}

/// What outlives a run: which number the stored addresses belong to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// The cluster's number.
    pub number: u8,
}

/// A run of `lateen up`, for `down`, `env` and the next `up`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunRecord {
    /// The process that runs the cluster.
    pub process: ProcessId,
    /// How far it is.
    pub phase: Phase,
    /// The last progress line, or what went wrong.
    pub message: String,
    /// The node's address, hostIP of all pods.
    #[serde(default)]
    pub node_address: String,
    /// The number of the cluster.
    #[serde(default)]
    pub number: u8,
    /// `lateen` or `envoy`.
    #[serde(default)]
    pub data_plane: String,
    /// NodePorts of the ingress gateway by port name.
    #[serde(default)]
    pub ingress_ports: std::collections::BTreeMap<String, u16>,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Not all of the mesh is ready yet.
    Starting,
    /// Control plane and gateways are ready.
    Ready,
    /// The start was given up.
    Failed,
}

/// What is wrong with a state folder.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// No folder can be named.
    #[error("there is no folder for the cluster's state: set LATEEN_HOME or HOME")]
    NoHome,
    /// The cluster's name cannot be a folder's.
    #[error("`{name}` is no name for a cluster: use lower-case letters, digits and `-`, at most 40 of them")]
    Name {
        /// The name.
        name: String,
    },
    /// The folder was written by another version.
    #[error(
        "the state in {path} has version {found}, this program writes version {VERSION}: remove it with \
         `lateen down --purge --name {name}`, or use another --name"
    )]
    Version {
        /// The folder.
        path: PathBuf,
        /// The cluster's name.
        name: String,
        /// The version found.
        found: String,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The folder is somebody else's.
    #[error("{path} holds something that is not the state of a cluster: move it away, or use another --name")]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
    /// A file does not hold what it should.
    #[error("{path} is damaged ({source}): remove it, or the whole state with `lateen down --purge`")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl StateFolder {
    /// The folder of the cluster `name`, whether it exists or not.
    ///
    /// # Errors
    /// A name that is none, or no home folder.
    pub fn locate(name: &str) -> Result<Self, StateError> {
        let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 40 || !name.chars().all(good) || name.starts_with('-') {
            return Err(StateError::Name { name: name.to_owned() });
        }
        Ok(Self::at(home()?.join(name), name))
    }

    /// The folder at this very place.
    pub fn at(path: PathBuf, name: &str) -> Self {
        Self { path, name: name.to_owned() }
    }

    /// The clusters that have a folder.
    ///
    /// # Errors
    /// No home folder.
    pub fn names() -> Result<Vec<String>, StateError> {
        let Ok(entries) = fs::read_dir(home()?) else { return Ok(Vec::new()) };
        let mut names: Vec<String> = entries
            .flatten()
            .filter(|entry| entry.path().join("VERSION").exists())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        Ok(names)
    }

    /// Makes the folder (0700) or checks its version.
    ///
    /// # Errors
    /// Another version, or a folder that cannot be written.
    pub fn open(&self) -> Result<(), StateError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .and_then(|()| fs::set_permissions(&self.path, fs::Permissions::from_mode(0o700)))
            .map_err(|source| self.io("make the state folder", &self.path, source))?;
        let version = self.path.join("VERSION");
        match fs::read_to_string(&version) {
            Ok(found) if found.trim() == VERSION => Ok(()),
            Ok(found) => Err(StateError::Version {
                path: self.path.clone(),
                name: self.name.clone(),
                found: found.trim().to_owned(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.refuse_foreign()?;
                write_whole(&version, VERSION.as_bytes()).map_err(|source| self.io("write", &version, source))
            }
            Err(source) => Err(self.io("read", &version, source)),
        }
    }

    /// Whether there is the state of a cluster.
    pub fn exists(&self) -> bool {
        self.path.join("VERSION").is_file()
    }

    /// Removes the folder and all in it.
    ///
    /// # Errors
    /// A folder that holds something else than the state of a cluster, or a file that cannot be removed.
    pub fn purge(&self) -> Result<(), StateError> {
        if !self.exists() {
            return self.refuse_foreign();
        }
        fs::remove_dir_all(&self.path).map_err(|error| self.io("remove", &self.path, error))
    }

    /// An error when the folder holds something, since without a version it is not ours.
    fn refuse_foreign(&self) -> Result<(), StateError> {
        let holds_something = fs::read_dir(&self.path).is_ok_and(|mut entries| entries.next().is_some());
        if holds_something && !self.exists() {
            return Err(StateError::Foreign { path: self.path.clone() });
        }
        Ok(())
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the API server keeps its objects and keys.
    pub fn api_server(&self) -> PathBuf {
        self.path.join("apiserver")
    }

    /// The user's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path.join("kubeconfig")
    }

    /// Folders of the pods, one per uid.
    pub fn pods(&self) -> PathBuf {
        self.path.join("pods")
    }

    /// Links to this binary, first on the `PATH` of commands in pods.
    pub fn programs(&self) -> PathBuf {
        self.path.join("bin")
    }

    /// One file per running child process.
    pub fn processes(&self) -> PathBuf {
        self.path.join("processes")
    }

    /// Certificates and the log of what the cluster takes for the internet.
    pub fn outside(&self) -> PathBuf {
        self.path.join("outside")
    }

    /// What `up --detach` says.
    pub fn log(&self) -> PathBuf {
        self.path.join("up.log")
    }

    /// The cluster's number of earlier runs.
    ///
    /// # Errors
    /// A file that cannot be read or is damaged.
    pub fn cluster(&self) -> Result<Option<ClusterNumber>, StateError> {
        let record: Option<ClusterRecord> = self.read("cluster.json")?;
        Ok(record.and_then(|record| ClusterNumber::new(record.number)))
    }

    /// The numbers of the other clusters that are kept beside this one.
    pub fn neighbours(&self) -> Vec<ClusterNumber> {
        let Some(parent) = self.path.parent() else { return Vec::new() };
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.path() != self.path)
            .filter_map(|entry| fs::read(entry.path().join("cluster.json")).ok())
            .filter_map(|text| serde_json::from_slice::<ClusterRecord>(&text).ok())
            .filter_map(|record| ClusterNumber::new(record.number))
            .collect()
    }

    /// Remembers the cluster's number.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn set_cluster(&self, number: ClusterNumber) -> Result<(), StateError> {
        self.write("cluster.json", &ClusterRecord { number: number.get() })
    }

    /// The present or last run.
    ///
    /// # Errors
    /// A file that cannot be read or is damaged.
    pub fn run(&self) -> Result<Option<RunRecord>, StateError> {
        self.read("run.json")
    }

    /// Remembers the present run.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn set_run(&self, run: &RunRecord) -> Result<(), StateError> {
        self.write("run.json", run)
    }

    /// Forgets the run: it has ended in good order.
    pub fn forget_run(&self) {
        // Nothing is lost when the file stays: its process is checked before it is believed.
        let _ = fs::remove_file(self.path.join("run.json"));
    }

    /// The run whose process is alive, if there is one.
    ///
    /// # Errors
    /// A file that cannot be read or is damaged.
    pub fn live_run(&self) -> Result<Option<RunRecord>, StateError> {
        Ok(self.run()?.filter(|run| run.process.is_alive()))
    }

    fn read<T: DeserializeOwned>(&self, file: &str) -> Result<Option<T>, StateError> {
        let path = self.path.join(file);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|source| StateError::Damaged { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.io("read", &path, source)),
        }
    }

    fn write<T: Serialize>(&self, file: &str, value: &T) -> Result<(), StateError> {
        let path = self.path.join(file);
        let bytes = serde_json::to_vec_pretty(value)
            .map_err(|source| StateError::Damaged { path: path.clone(), source })?;
        write_whole(&path, &bytes).map_err(|source| self.io("write", &path, source))
    }

    fn io(&self, action: &'static str, path: &Path, source: io::Error) -> StateError {
        StateError::Io { action, path: path.to_owned(), source }
    }
}

fn home() -> Result<PathBuf, StateError> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("LATEEN_HOME")
        .or_else(|| set("XDG_DATA_HOME").map(|data| data.join("lateen")))
        .or_else(|| set("HOME").map(|home| home.join(".local/share/lateen")))
        .ok_or(StateError::NoHome)
}

/// Writes a file so that a reader sees the old or the new text, never a part; readable by the owner only.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file: File =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&partial, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, StateFolder) {
        let dir = tempfile::tempdir().unwrap();
        let state = StateFolder::at(dir.path().join("mesh"), "mesh");
        (dir, state)
    }

    #[test]
    fn a_new_folder_is_private_and_opens_again() {
        let (_dir, state) = folder();
        state.open().unwrap();
        state.open().unwrap();
        let mode = fs::metadata(state.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(state.cluster().unwrap(), None);
        state.set_cluster(ClusterNumber::new(4).unwrap()).unwrap();
        assert_eq!(state.cluster().unwrap(), ClusterNumber::new(4));
        assert_eq!(state.neighbours(), []);
        let other = StateFolder::at(state.path().with_file_name("other"), "other");
        assert_eq!(other.neighbours(), [ClusterNumber::new(4).unwrap()]);
    }

    #[test]
    fn another_version_is_refused_by_name() {
        let (_dir, state) = folder();
        state.open().unwrap();
        fs::write(state.path().join("VERSION"), "7\n").unwrap();
        let error = state.open().unwrap_err().to_string();
        assert!(error.contains("version 7") && error.contains("--purge --name mesh"), "{error}");
    }

    #[test]
    fn what_is_not_ours_is_neither_taken_nor_removed() {
        let (_dir, state) = folder();
        fs::create_dir_all(state.path()).unwrap();
        let file = state.path().join("file");
        fs::write(&file, "precious").unwrap();
        for refused in [state.open(), state.purge()] {
            assert!(refused.unwrap_err().to_string().contains("not the state of a cluster"));
        }
        assert!(file.exists() && !state.exists());
        fs::remove_file(&file).unwrap();
        state.open().unwrap();
        state.purge().unwrap();
        assert!(!state.path().exists());
        state.purge().unwrap();
    }

    #[test]
    fn a_damaged_file_is_named() {
        let (_dir, state) = folder();
        state.open().unwrap();
        fs::write(state.path().join("run.json"), "{").unwrap();
        assert!(state.run().unwrap_err().to_string().contains("run.json is damaged"));
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let error = StateFolder::at(dir.path().join("file/mesh"), "mesh").open().unwrap_err().to_string();
        assert!(error.starts_with("cannot make the state folder"), "{error}");
    }

    #[test]
    fn names_that_leave_the_folder_are_refused() {
        for name in ["", "..", "a/b", "-x", "Upper", &"a".repeat(41)] {
            assert!(matches!(StateFolder::locate(name), Err(StateError::Name { .. })), "{name}");
        }
    }
}
