//! The environment of an agent.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lateen_api::install::layer;
use lateen_ca::rotation::Renewal;
use serde_json::Value;

use super::{ProxyConfig, SettingsError};
use crate::certificate_files::CertificateFiles;
use crate::files;
use crate::workload_api;

/// Reads the environment, with errors that name the variable.
pub(super) struct Environment<'a>(pub(super) &'a BTreeMap<String, String>);

impl<'a> Environment<'a> {
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).map(String::as_str).filter(|text| !text.is_empty())
    }

    pub(super) fn required(&self, name: &'static str, why: &'static str) -> Result<String, SettingsError> {
        self.text(name).map(str::to_owned).ok_or(SettingsError::Missing { name, why })
    }

    fn malformed(name: &str, value: &str, reason: impl ToString) -> SettingsError {
        SettingsError::Malformed { name: name.into(), value: value.into(), reason: reason.to_string() }
    }

    pub(super) fn addresses(&self) -> Result<Vec<IpAddr>, SettingsError> {
        let list = self.required("INSTANCE_IP", "it is the address that the proxy serves")?;
        list.split(',')
            .map(|text| {
                text.trim()
                    .parse()
                    .map_err(|_| Self::malformed("INSTANCE_IP", &list, "expected IP addresses, by commas"))
            })
            .collect()
    }

    pub(super) fn duration(&self, name: &str, default: Duration) -> Result<Duration, SettingsError> {
        match self.text(name) {
            Some(text) => lateen_base::parse_duration(text).map_err(|e| Self::malformed(name, text, e)),
            None => Ok(default),
        }
    }

    /// A number from 0 to 1.
    fn share(&self, name: &str, default: f64) -> Result<f64, SettingsError> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
        share.ok_or_else(|| Self::malformed(name, text, "expected a number from 0 to 1"))
    }

    pub(super) fn renewal(&self) -> Result<Renewal, SettingsError> {
        let default = Renewal::default();
        Ok(Renewal {
            grace: self.share("SECRET_GRACE_PERIOD_RATIO", default.grace)?,
            jitter: self.share("SECRET_GRACE_PERIOD_RATIO_JITTER", default.jitter)?,
        })
    }

    /// The files of `FILE_MOUNTED_CERTS`: those that the metadata name, else Istio's.
    pub(super) fn certificate_files(&self, root: &Path) -> Result<Option<CertificateFiles>, SettingsError> {
        match self.text("FILE_MOUNTED_CERTS") {
            None | Some("false") => return Ok(None),
            Some("true") => {}
            Some(text) => {
                return Err(Self::malformed("FILE_MOUNTED_CERTS", text, "expected true or false"));
            }
        }
        let default = CertificateFiles::existing(root);
        let named = |name: &str, default: PathBuf| {
            self.text(name).map_or(default, |path| root.join(files::relative(Path::new(path))))
        };
        Ok(Some(CertificateFiles {
            chain: named("ISTIO_META_TLS_CLIENT_CERT_CHAIN", default.chain),
            key: named("ISTIO_META_TLS_CLIENT_KEY", default.key),
            root: named("ISTIO_META_TLS_CLIENT_ROOT_CERT", default.root),
        }))
    }

    /// `WORKLOAD_IDENTITY_SOCKET_FILE`, a file name.
    pub(super) fn socket_file(&self) -> Result<Option<&'a str>, SettingsError> {
        const NAME: &str = "WORKLOAD_IDENTITY_SOCKET_FILE";
        match self.text(NAME) {
            Some(text) if text.contains('/') || text == ".." => {
                Err(Self::malformed(NAME, text, "expected the name of a file, without a folder"))
            }
            file => Ok(file),
        }
    }

    /// `SPIFFE_ENDPOINT_SOCKET`, the URI of a Unix socket, below the pod's root.
    pub(super) fn workload_api(&self, root: &Path) -> Result<Option<PathBuf>, SettingsError> {
        let socket = self.parsed(workload_api::SOCKET_VARIABLE, workload_api::socket)?;
        Ok(socket.map(|path| root.join(files::relative(&path))))
    }

    /// `PROV_CERT`, a folder below the pod's root.
    pub(super) fn provisioned(&self, root: &Path) -> Option<CertificateFiles> {
        let folder = self.text("PROV_CERT")?;
        Some(CertificateFiles::of_folder(&root.join(files::relative(Path::new(folder)))))
    }

    pub(super) fn parsed<T>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, SettingsError> {
        let read = |text| parse(text).map_err(|reason| Self::malformed(name, text, reason));
        self.text(name).map(read).transpose()
    }

    /// The mesh's `defaultConfig`, where it is mounted (gateways have it so), and `PROXY_CONFIG` over it.
    pub(super) fn proxy_config(&self, root: &Path) -> Result<ProxyConfig, SettingsError> {
        let mesh = |reason: String| SettingsError::Mesh { path: root.join(files::MESH), reason };
        let defaults = files::mesh_defaults(root).map_err(mesh)?;
        let defaults_alone = serde_json::from_value(defaults.clone()).map_err(|e| mesh(e.to_string()))?;
        let Some(text) = self.text("PROXY_CONFIG").map(str::trim).filter(|text| !text.is_empty()) else {
            return Ok(defaults_alone);
        };
        let malformed = |e| Self::malformed("PROXY_CONFIG", text, e);
        let own: Value = serde_json::from_str(text).map_err(malformed)?;
        let mut config = defaults;
        layer::overlay(&mut config, &own);
        serde_json::from_value(config).map_err(malformed)
    }

    /// `LATEEN_DNS`; on a shared loopback the node's server, whose address follows from the pod's.
    pub(super) fn dns(&self, address: Option<&IpAddr>) -> Result<Option<SocketAddr>, SettingsError> {
        if let Some(text) = self.text("LATEEN_DNS") {
            let address = text.parse();
            return address
                .map(Some)
                .map_err(|_| Self::malformed("LATEEN_DNS", text, "expected address:port"));
        }
        Ok(match address {
            Some(IpAddr::V4(v4)) if v4.is_loopback() && v4.octets()[1] != 0 => {
                Some(SocketAddr::from(([127, v4.octets()[1], 0, 1], NODE_DNS_PORT)))
            }
            _ => None,
        })
    }
}

/// The port of a node's DNS server in loopback isolation.
const NODE_DNS_PORT: u16 = 15053;
