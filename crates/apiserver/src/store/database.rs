//! The file: redb, one table of objects keyed `resource NUL namespace NUL name`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{ReadableDatabase, ReadableTable, TableDefinition};

use super::tables::{Change, Tables};
use super::writer::Accepted;
use crate::object::Object;
use crate::resource::ResourceName;

/// Values: the resource version (u64, big endian), then the object's version-neutral JSON.
const OBJECTS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("objects");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT: u64 = 1;
/// All objects are in memory, so redb needs little of its own.
const CACHE_BYTES: usize = 4 << 20;

/// Why the state folder could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be made or written.
    #[error("state folder {path}: {source}; choose a folder that this user can write (--data-dir)")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Another process has it open.
    #[error(
        "state file {path} is in use by another process; stop that one or choose another folder (--data-dir)"
    )]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Written by another version.
    #[error(
        "state file {path} has format {found}, this version of Lateen reads format {FORMAT}; \
         move the folder away to start anew, or run the version that wrote it"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// The format it has, as far as it can be told.
        found: String,
    },
    /// Unreadable content.
    #[error("state file {path} is damaged: {what}; move the folder away to start anew")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The writer thread could not be started.
    #[error("cannot start the store's writer thread: {0}")]
    Thread(String),
}

pub(super) struct Database(redb::Database);

impl Database {
    pub(super) fn open(dir: &Path) -> Result<(Self, Tables), StoreError> {
        let folder = |source| StoreError::Folder { path: dir.into(), source };
        std::fs::create_dir_all(dir).map_err(folder)?;
        let path = dir.join("state.redb");
        let opened = redb::Database::builder().set_cache_size(CACHE_BYTES).create(&path);
        let database = opened.map_err(|e| open_error(&path, dir, e))?;
        let damaged = |e: redb::Error| StoreError::Damaged { path: path.clone(), what: e.to_string() };
        let resource_version = match read_meta(&database).map_err(damaged)? {
            None => {
                initialise(&database).map_err(damaged)?;
                0
            }
            Some((FORMAT, version)) => version,
            Some((found, _)) => return Err(StoreError::Format { path, found: found.to_string() }),
        };
        let tables = load(&database, resource_version, &path)?;
        Ok((Self(database), tables))
    }

    /// All of it, on disk when it returns.
    pub(super) fn commit(&self, accepted: &[Accepted]) -> Result<(), redb::Error> {
        let transaction = self.0.begin_write()?;
        {
            let mut objects = transaction.open_table(OBJECTS)?;
            let mut newest = 0;
            let mut value = Vec::new();
            for Accepted { resource, event, .. } in accepted {
                let object = &event.object;
                newest = object.resource_version;
                let key = key(resource, object);
                if event.change == Change::Deleted {
                    objects.remove(key.as_slice())?;
                    continue;
                }
                value.clear();
                value.extend_from_slice(&object.resource_version.to_be_bytes());
                value.extend_from_slice(object.tail());
                objects.insert(key.as_slice(), value.as_slice())?;
            }
            transaction.open_table(META)?.insert("resource_version", newest)?;
        }
        transaction.commit()?;
        Ok(())
    }
}

fn key(resource: &ResourceName, object: &Object) -> Vec<u8> {
    [resource.as_str(), &*object.namespace, &*object.name].join("\0").into_bytes()
}

fn open_error(path: &Path, dir: &Path, error: redb::DatabaseError) -> StoreError {
    match error {
        redb::DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: path.into() },
        redb::DatabaseError::UpgradeRequired(found) => {
            StoreError::Format { path: path.into(), found: format!("redb {found}") }
        }
        redb::DatabaseError::Storage(redb::StorageError::Io(source))
            if source.kind() != std::io::ErrorKind::InvalidData =>
        {
            StoreError::Folder { path: dir.into(), source }
        }
        other => StoreError::Damaged { path: path.into(), what: other.to_string() },
    }
}

/// Format and resource version; none in a new file.
fn read_meta(database: &redb::Database) -> Result<Option<(u64, u64)>, redb::Error> {
    let meta = match database.begin_read()?.open_table(META) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        other => other?,
    };
    let number = |key: &str| -> Result<u64, redb::Error> { Ok(meta.get(key)?.map_or(0, |v| v.value())) };
    Ok(Some((number("format")?, number("resource_version")?)))
}

fn initialise(database: &redb::Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(META)?.insert("format", FORMAT)?;
    transaction.open_table(OBJECTS)?;
    transaction.commit()?;
    Ok(())
}

fn load(database: &redb::Database, resource_version: u64, path: &Path) -> Result<Tables, StoreError> {
    let damaged = |what: String| StoreError::Damaged { path: path.into(), what };
    let failed = |e: redb::Error| damaged(e.to_string());
    let mut tables = Tables::load(resource_version);
    let transaction = database.begin_read().map_err(|e| failed(e.into()))?;
    let objects = transaction.open_table(OBJECTS).map_err(|e| failed(e.into()))?;
    for entry in objects.iter().map_err(|e| failed(e.into()))? {
        let (key, value) = entry.map_err(|e| failed(e.into()))?;
        let (resource, object) = decode(key.value(), value.value()).ok_or_else(|| {
            damaged(format!("unreadable object {:?}", String::from_utf8_lossy(key.value())))
        })?;
        tables.insert_loaded(resource, object);
    }
    Ok(tables)
}

fn decode(key: &[u8], value: &[u8]) -> Option<(ResourceName, Arc<Object>)> {
    let mut parts = std::str::from_utf8(key).ok()?.split('\0');
    let (resource, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
    let (version, tail) = value.split_first_chunk::<8>()?;
    let object = Object::from_stored(namespace, name, u64::from_be_bytes(*version), tail)?;
    Some((ResourceName::from(resource), object))
}
