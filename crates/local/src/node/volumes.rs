//! A pod's volumes as folders, and a container's mounts as links into them.
//!
//! A container has a root folder of its own (`LATEEN_POD_ROOT`); what it would see at `/etc/istio/pod` is at
//! `ROOT/etc/istio/pod`. Projected files are swapped as a set, the way a kubelet does it: `FILE` links to
//! `..data/FILE`, and `..data` links to the folder of one version.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, KeyToPath, Pod, ServiceAccountTokenProjection, Volume, VolumeProjection,
};

use crate::node::downward::{self, FieldError};
use crate::node::env::Lookup;

/// Why a volume cannot be set up: shown as event `FailedMount`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {kind} \"{name}\" not found")]
    NoObject { volume: String, kind: &'static str, name: String },
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {kind} \"{name}\" has no key {key}")]
    NoKey { volume: String, kind: &'static str, name: String, key: String },
    #[error("volume \"{volume}\" : {source}")]
    Field { volume: String, source: FieldError },
    #[error("volume \"{volume}\" : path {path:?} must be relative and stay within the volume")]
    Path { volume: String, path: String },
    #[error(
        "volume \"{volume}\" is of a kind that is not supported in loopback isolation: use configMap, secret, \
         emptyDir, downwardAPI or projected"
    )]
    Kind { volume: String },
    #[error("container {container} mounts volume \"{volume}\", which the pod does not have")]
    NoVolume { container: String, volume: String },
    #[error(
        "container {container} mounts volume \"{volume}\" with subPathExpr, which is not supported: use subPath"
    )]
    Expression { container: String, volume: String },
    #[error("volume \"{volume}\" : no token for service account {account}: {reason}")]
    Token { volume: String, account: String, reason: String },
    #[error("volume \"{volume}\" : {path}: {source}")]
    Io { volume: String, path: PathBuf, source: io::Error },
}

/// A file of a projected volume.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    bytes: Vec<u8>,
    mode: u32,
}

type Payload = BTreeMap<String, Entry>;

/// Service-account tokens that the pod's volumes carry, by volume and path.
pub(crate) type Tokens = BTreeMap<(String, String), String>;

/// The tokens that a pod's volumes ask for, each with its key in [`Tokens`].
pub(crate) fn wanted_tokens(pod: &Pod) -> Vec<((String, String), ServiceAccountTokenProjection)> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes
        .flat_map(|volume| {
            let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
            sources
                .filter_map(|source| source.service_account_token.clone())
                .map(|token| ((volume.name.clone(), token.path.clone()), token))
        })
        .collect()
}

/// The volumes of one pod on disk.
#[derive(Debug)]
pub(crate) struct Volumes {
    folder: PathBuf,
    versions: BTreeMap<String, (u64, Payload)>,
}

impl Volumes {
    /// The volumes under the pod's folder.
    pub(crate) fn new(pod_folder: &Path) -> Self {
        Self { folder: pod_folder.join("volumes"), versions: BTreeMap::new() }
    }

    /// Makes every volume, or brings it up to date. Files change only where their contents did.
    pub(crate) fn materialise(
        &mut self,
        pod: &Pod,
        objects: &dyn Lookup,
        tokens: &Tokens,
    ) -> Result<(), VolumeError> {
        for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            let folder = self.folder.join(&volume.name);
            fs::create_dir_all(&folder).map_err(|source| io_error(&volume.name, &folder, source))?;
            if let Some(payload) = payload(pod, volume, objects, tokens)? {
                self.publish(&volume.name, &folder, payload)?;
            }
        }
        Ok(())
    }

    /// Links the container's mounts into its root folder.
    pub(crate) fn mount(&self, pod: &Pod, container: &Container, root: &Path) -> Result<(), VolumeError> {
        fs::create_dir_all(root).map_err(|source| io_error("", root, source))?;
        let known: Vec<&Volume> = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).collect();
        let mut mounts: Vec<_> = container.volume_mounts.iter().flatten().collect();
        // A mount below another one goes into that one's volume, so it comes later.
        mounts.sort_by_key(|mount| Path::new(&mount.mount_path).components().count());
        for mount in mounts {
            let Some(volume) = known.iter().find(|volume| volume.name == mount.name) else {
                let (container, volume) = (container.name.clone(), mount.name.clone());
                return Err(VolumeError::NoVolume { container, volume });
            };
            if mount.sub_path_expr.is_some() {
                let (container, volume) = (container.name.clone(), mount.name.clone());
                return Err(VolumeError::Expression { container, volume });
            }
            let own = self.folder.join(&mount.name);
            let target = match mount.sub_path.as_deref().filter(|path| !path.is_empty()) {
                Some(sub) => own.join(relative(&mount.name, sub)?),
                None => own.clone(),
            };
            // Other mounts may go below this one. In an empty folder a path that is not there becomes one, as kubelets
            // have it.
            let needed = if is_empty_folder(volume) { &target } else { &own };
            fs::create_dir_all(needed).map_err(|source| io_error(&mount.name, needed, source))?;
            let place = root.join(relative(&mount.name, mount.mount_path.trim_start_matches('/'))?);
            link(&target, &place).map_err(|source| io_error(&mount.name, &place, source))?;
        }
        Ok(())
    }

    fn publish(&mut self, name: &str, folder: &Path, payload: Payload) -> Result<(), VolumeError> {
        let version = match self.versions.get(name) {
            Some((_, current)) if *current == payload => return Ok(()),
            Some((version, _)) => version + 1,
            None => 0,
        };
        swap(folder, version, &payload).map_err(|source| io_error(name, folder, source))?;
        self.versions.insert(name.to_owned(), (version, payload));
        Ok(())
    }
}

fn io_error(volume: &str, path: &Path, source: io::Error) -> VolumeError {
    VolumeError::Io { volume: volume.to_owned(), path: path.to_owned(), source }
}

/// A path that stays where it is put.
fn relative<'a>(volume: &str, path: &'a str) -> Result<&'a Path, VolumeError> {
    let checked = Path::new(path);
    let stays = checked.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let refused = || VolumeError::Path { volume: volume.to_owned(), path: path.to_owned() };
    if stays && !path.is_empty() { Ok(checked) } else { Err(refused()) }
}

fn link(target: &Path, place: &Path) -> io::Result<()> {
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::read_link(place) {
        Ok(present) if present == target => return Ok(()),
        Ok(_) => fs::remove_file(place)?,
        // An empty folder made for a mount below; anything else is not ours to remove.
        Err(_) if place.is_dir() => fs::remove_dir(place)?,
        Err(_) => {}
    }
    match symlink(target, place) {
        // Containers share a folder in which one volume is mounted below another, and start at the same time.
        Err(error)
            if error.kind() == io::ErrorKind::AlreadyExists
                && fs::read_link(place).is_ok_and(|present| present == target) =>
        {
            Ok(())
        }
        done => done,
    }
}

/// Writes a version beside the present one, then swaps `..data` to it in one step.
fn swap(folder: &Path, version: u64, payload: &Payload) -> io::Result<()> {
    let fresh = format!("..{version}");
    let staged = folder.join(&fresh);
    if staged.exists() {
        fs::remove_dir_all(&staged)?;
    }
    fs::create_dir_all(&staged)?;
    for (path, entry) in payload {
        let file = staged.join(path);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(&file, &entry.bytes)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(entry.mode))?;
    }
    let (data, next) = (folder.join("..data"), folder.join("..data_next"));
    let former = fs::read_link(&data).ok();
    if next.symlink_metadata().is_ok() {
        fs::remove_file(&next)?;
    }
    symlink(&fresh, &next)?;
    fs::rename(&next, &data)?;
    link_names(folder, payload)?;
    match former {
        Some(former) if former != Path::new(&fresh) => fs::remove_dir_all(folder.join(former)),
        _ => Ok(()),
    }
}

/// The names a reader sees: links to the first part of each path within `..data`.
fn link_names(folder: &Path, payload: &Payload) -> io::Result<()> {
    let first = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
    let names: std::collections::BTreeSet<String> = payload.keys().map(|path| first(path)).collect();
    for entry in fs::read_dir(folder)?.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        let ours = fs::read_link(entry.path()).is_ok_and(|target| target.starts_with("..data"));
        if ours && !names.contains(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    for name in names {
        let place = folder.join(&name);
        if place.symlink_metadata().is_err() {
            symlink(Path::new("..data").join(&name), &place)?;
        }
    }
    Ok(())
}

/// The files of a volume; none for an empty folder.
fn payload(
    pod: &Pod,
    volume: &Volume,
    objects: &dyn Lookup,
    tokens: &Tokens,
) -> Result<Option<Payload>, VolumeError> {
    let maker = Maker { pod, volume: &volume.name, objects, tokens };
    if is_empty_folder(volume) {
        return Ok(None);
    }
    let mut files = Payload::new();
    if let Some(map) = &volume.config_map {
        let optional = map.optional == Some(true);
        maker.config_map(&map.name, map.items.as_deref(), optional, map.default_mode, &mut files)?;
    } else if let Some(secret) = &volume.secret {
        let name = secret.secret_name.as_deref().unwrap_or_default();
        let optional = secret.optional == Some(true);
        maker.secret(name, secret.items.as_deref(), optional, secret.default_mode, &mut files)?;
    } else if let Some(downward) = &volume.downward_api {
        maker.downward(downward.items.iter().flatten(), downward.default_mode, &mut files)?;
    } else if let Some(projected) = &volume.projected {
        for source in projected.sources.iter().flatten() {
            maker.projection(source, projected.default_mode, &mut files)?;
        }
    } else {
        return Err(VolumeError::Kind { volume: volume.name.clone() });
    }
    Ok(Some(files))
}

/// An `emptyDir`, or a volume without a source, which Kubernetes makes one.
fn is_empty_folder(volume: &Volume) -> bool {
    volume.empty_dir.is_some() || *volume == Volume { name: volume.name.clone(), ..Volume::default() }
}

struct Maker<'a> {
    pod: &'a Pod,
    volume: &'a str,
    objects: &'a dyn Lookup,
    tokens: &'a Tokens,
}

impl Maker<'_> {
    fn projection(
        &self,
        source: &VolumeProjection,
        mode: Option<i32>,
        out: &mut Payload,
    ) -> Result<(), VolumeError> {
        if let Some(map) = &source.config_map {
            self.config_map(&map.name, map.items.as_deref(), map.optional == Some(true), mode, out)?;
        }
        if let Some(secret) = &source.secret {
            self.secret(&secret.name, secret.items.as_deref(), secret.optional == Some(true), mode, out)?;
        }
        if let Some(downward) = &source.downward_api {
            self.downward(downward.items.iter().flatten(), mode, out)?;
        }
        if let Some(token) = &source.service_account_token {
            let text = self.tokens.get(&(self.volume.to_owned(), token.path.clone()));
            let text = text.ok_or_else(|| VolumeError::Token {
                volume: self.volume.to_owned(),
                account: account(self.pod).to_owned(),
                reason: "none was issued".to_owned(),
            })?;
            self.put(&token.path, text.clone().into_bytes(), Some(0o600), out)?;
        }
        if source.cluster_trust_bundle.is_some() {
            return Err(VolumeError::Kind { volume: self.volume.to_owned() });
        }
        Ok(())
    }

    fn config_map(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: bool,
        mode: Option<i32>,
        out: &mut Payload,
    ) -> Result<(), VolumeError> {
        let Some(map) = self.objects.config_map(name) else {
            return self.absent(optional, "configmap", name);
        };
        let text = map.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
        let binary = map.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0));
        self.keys("configmap", name, text.chain(binary).collect(), items, optional, mode, out)
    }

    fn secret(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: bool,
        mode: Option<i32>,
        out: &mut Payload,
    ) -> Result<(), VolumeError> {
        let Some(secret) = self.objects.secret(name) else {
            return self.absent(optional, "secret", name);
        };
        let data = secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
        self.keys("secret", name, data, items, optional, mode, out)
    }

    fn absent(&self, optional: bool, kind: &'static str, name: &str) -> Result<(), VolumeError> {
        if optional {
            return Ok(());
        }
        Err(VolumeError::NoObject { volume: self.volume.to_owned(), kind, name: name.to_owned() })
    }

    #[expect(clippy::too_many_arguments, reason = "the one place where both kinds of objects meet")]
    fn keys(
        &self,
        kind: &'static str,
        name: &str,
        mut data: BTreeMap<String, Vec<u8>>,
        items: Option<&[KeyToPath]>,
        optional: bool,
        mode: Option<i32>,
        out: &mut Payload,
    ) -> Result<(), VolumeError> {
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            return data.into_iter().try_for_each(|(key, bytes)| self.put(&key, bytes, mode, out));
        };
        for item in items {
            match data.remove(&item.key) {
                Some(bytes) => self.put(&item.path, bytes, item.mode.or(mode), out)?,
                None if optional => {}
                None => {
                    let (volume, key) = (self.volume.to_owned(), item.key.clone());
                    return Err(VolumeError::NoKey { volume, kind, name: name.to_owned(), key });
                }
            }
        }
        Ok(())
    }

    fn downward<'b>(
        &self,
        items: impl Iterator<Item = &'b DownwardAPIVolumeFile>,
        mode: Option<i32>,
        out: &mut Payload,
    ) -> Result<(), VolumeError> {
        let nobody = Container::default();
        for item in items {
            let value = match (&item.field_ref, &item.resource_field_ref) {
                (Some(reference), _) => downward::field(self.pod, &reference.field_path),
                (None, Some(reference)) => downward::resource(self.pod, &nobody, reference),
                (None, None) => Err(FieldError::Unknown(String::new())),
            };
            let value =
                value.map_err(|source| VolumeError::Field { volume: self.volume.to_owned(), source })?;
            self.put(&item.path, value.into_bytes(), item.mode.or(mode), out)?;
        }
        Ok(())
    }

    fn put(
        &self,
        path: &str,
        bytes: Vec<u8>,
        mode: Option<i32>,
        out: &mut Payload,
    ) -> Result<(), VolumeError> {
        relative(self.volume, path)?;
        let mode = mode.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644) & 0o777;
        out.insert(path.to_owned(), Entry { bytes, mode });
        Ok(())
    }
}

/// The pod's service account.
pub(crate) fn account(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default")
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{ConfigMap, Secret};
    use serde_json::{Value, json};

    #[derive(Default)]
    struct Objects(BTreeMap<&'static str, Value>);

    impl Lookup for Objects {
        fn config_map(&self, name: &str) -> Option<ConfigMap> {
            self.0.get(name).map(|value| serde_json::from_value(value.clone()).unwrap())
        }
        fn secret(&self, _name: &str) -> Option<Secret> {
            None
        }
    }

    fn pod(volumes: Value, mounts: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "labels": {"app": "a"}},
            "spec": {"volumes": volumes, "containers": [{"name": "c", "volumeMounts": mounts}]}}))
        .unwrap()
    }

    fn first(pod: &Pod) -> Container {
        pod.spec.as_ref().unwrap().containers[0].clone()
    }

    #[test]
    fn a_config_map_follows_its_object() {
        let dir = tempfile::tempdir().unwrap();
        let (root, mut volumes) = (dir.path().join("root"), Volumes::new(dir.path()));
        let pod = pod(
            json!([{"name": "config", "configMap": {"name": "istio"}}]),
            json!([{"name": "config", "mountPath": "/etc/istio/config"}]),
        );
        let mut objects = Objects(BTreeMap::from([("istio", json!({"data": {"mesh": "1", "old": "x"}}))]));
        volumes.materialise(&pod, &objects, &Tokens::new()).unwrap();
        volumes.mount(&pod, &first(&pod), &root).unwrap();
        let mesh = root.join("etc/istio/config/mesh");
        assert_eq!(fs::read_to_string(&mesh).unwrap(), "1");
        objects.0.insert("istio", json!({"data": {"mesh": "2"}}));
        volumes.materialise(&pod, &objects, &Tokens::new()).unwrap();
        assert_eq!(fs::read_to_string(&mesh).unwrap(), "2");
        assert!(!root.join("etc/istio/config/old").exists());
        // A second run of the node over the same folder.
        let mut again = Volumes::new(dir.path());
        again.materialise(&pod, &objects, &Tokens::new()).unwrap();
        again.mount(&pod, &first(&pod), &root).unwrap();
        assert_eq!(fs::read_to_string(&mesh).unwrap(), "2");
    }

    #[test]
    fn projections_nested_mounts_and_sub_paths() {
        let dir = tempfile::tempdir().unwrap();
        let (root, mut volumes) = (dir.path().join("root"), Volumes::new(dir.path()));
        let pod = pod(
            json!([
                {"name": "envoy", "emptyDir": {}},
                {"name": "tokens", "projected": {"sources": [
                    {"serviceAccountToken": {"path": "istio-token", "audience": "istio-ca"}},
                    {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]}},
            ]),
            json!([
                {"name": "tokens", "mountPath": "/etc/istio/proxy/tokens"},
                {"name": "tokens", "mountPath": "/etc/labels", "subPath": "labels"},
                {"name": "envoy", "mountPath": "/var/own", "subPath": "a/b"},
                {"name": "envoy", "mountPath": "/etc/istio/proxy"},
            ]),
        );
        let wanted = wanted_tokens(&pod);
        assert_eq!(wanted[0].1.audience.as_deref(), Some("istio-ca"));
        let tokens = Tokens::from([(wanted[0].0.clone(), "jwt".to_owned())]);
        volumes.materialise(&pod, &Objects::default(), &tokens).unwrap();
        volumes.mount(&pod, &first(&pod), &root).unwrap();
        let token = root.join("etc/istio/proxy/tokens/istio-token");
        assert_eq!(fs::read_to_string(&token).unwrap(), "jwt");
        assert_eq!(fs::metadata(&token).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(root.join("etc/labels")).unwrap(), "app=\"a\"");
        fs::write(root.join("var/own/file"), "x").unwrap();
        assert_eq!(fs::read_to_string(root.join("etc/istio/proxy/a/b/file")).unwrap(), "x");
    }

    #[test]
    fn a_mount_below_another_one_needs_no_contents_yet() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let pod = pod(
            json!([{"name": "ca", "configMap": {"name": "ca"}},
                {"name": "crl", "configMap": {"name": "crl", "optional": true}}]),
            json!([{"name": "ca", "mountPath": "/var/run/ca"}, {"name": "crl", "mountPath": "/var/run/ca/crl"}]),
        );
        let mut volumes = Volumes::new(dir.path());
        volumes.mount(&pod, &first(&pod), &root).unwrap();
        let objects = Objects(BTreeMap::from([
            ("ca", json!({"data": {"root.pem": "1"}})),
            ("crl", json!({"data": {"x": "2"}})),
        ]));
        volumes.materialise(&pod, &objects, &Tokens::new()).unwrap();
        assert_eq!(fs::read_to_string(root.join("var/run/ca/root.pem")).unwrap(), "1");
        assert_eq!(fs::read_to_string(root.join("var/run/ca/crl/x")).unwrap(), "2");
    }

    #[test]
    fn what_cannot_be_mounted_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let fails = |volume: Value| {
            let pod = pod(json!([volume]), json!([]));
            let made = Volumes::new(dir.path()).materialise(&pod, &Objects::default(), &Tokens::new());
            made.map_err(|error| error.to_string())
        };
        assert!(
            fails(json!({"name": "v", "hostPath": {"path": "/"}})).unwrap_err().contains("not supported")
        );
        let absent = fails(json!({"name": "v", "secret": {"secretName": "s"}})).unwrap_err();
        assert_eq!(absent, "MountVolume.SetUp failed for volume \"v\" : secret \"s\" not found");
        assert!(fails(json!({"name": "v", "secret": {"secretName": "s", "optional": true}})).is_ok());
        let outside = json!({"name": "v", "downwardAPI": {"items": [
            {"path": "../x", "fieldRef": {"fieldPath": "metadata.name"}}]}});
        assert!(fails(outside).unwrap_err().contains("stay within"));
    }
}
