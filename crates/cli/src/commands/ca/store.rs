//! The secret that holds the mesh's authority: read, and written only if nobody else wrote it meanwhile.

use std::path::Path;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lateen_ca::Authority;
use lateen_ca::exchange::{Holding, Material, SecretData};
use lateen_kube::{Client, ResourceKind};
use serde_json::{Map, Value, json};

use crate::commands::CliError;

/// The secret, as the server has it, and what it holds.
pub(super) struct Stored {
    namespace: String,
    name: String,
    object: Value,
    pub(super) holding: Holding,
}

fn kind() -> ResourceKind {
    ResourceKind::core("Secret", "secrets")
}

impl Stored {
    /// Reads the secret `NAMESPACE/NAME`.
    pub(super) async fn read(client: &Client, reference: &str) -> Result<Self, CliError> {
        let (namespace, name) = reference.split_once('/').unwrap_or(("istio-system", reference));
        let object = client.get(&kind(), namespace, name).await.map_err(|error| {
            CliError(format!("secret {reference}, from which the control plane takes its authority: {error}"))
        })?;
        Self::of(namespace, name, object)
    }

    fn of(namespace: &str, name: &str, object: Value) -> Result<Self, CliError> {
        let holding = Holding::read(&decode(&object)?)
            .map_err(|error| CliError(format!("secret {namespace}/{name}: {error}")))?;
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned(), object, holding })
    }

    /// Its name, as `NAMESPACE/NAME`.
    pub(super) fn reference(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Puts another holding there. Somebody else's write in between is an error: nothing is overwritten unseen.
    pub(super) async fn write(self, client: &Client, holding: &Holding) -> Result<Self, CliError> {
        let mut object = self.object.clone();
        // A list's items and a get's answer may not say their kind.
        object["apiVersion"] = json!("v1");
        object["kind"] = json!("Secret");
        object["data"] = Value::Object(encode(&holding.data()));
        let written = client.replace(&kind(), &self.namespace, &self.name, object).await;
        match written {
            Ok(object) => Self::of(&self.namespace, &self.name, object),
            Err(error) if error.is_conflict() => Err(CliError(format!(
                "secret {} was changed by somebody else meanwhile; nothing was written. Run the command again",
                self.reference()
            ))),
            Err(error) => Err(CliError(format!("secret {}: {error}", self.reference()))),
        }
    }
}

fn decode(object: &Value) -> Result<SecretData, CliError> {
    let data = object["data"].as_object().into_iter().flatten();
    data.map(|(key, value)| {
        let bytes = STANDARD.decode(value.as_str().unwrap_or_default());
        bytes.map(|bytes| (key.clone(), bytes)).map_err(|e| CliError(format!("key {key} of the secret: {e}")))
    })
    .collect()
}

fn encode(data: &SecretData) -> Map<String, Value> {
    data.iter().map(|(key, value)| (key.clone(), Value::String(STANDARD.encode(value)))).collect()
}

/// The authority in a folder, as `x ca intermediate` and the Makefile write it.
pub(super) fn from_folder(folder: &Path) -> Result<Material, CliError> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).map_err(|error| CliError(format!("{}: {error}", path.display())))
    };
    Ok(Material {
        certificate: read("ca-cert.pem")?,
        key: read("ca-key.pem")?,
        chain: read("cert-chain.pem")?,
        roots: read("root-cert.pem")?,
    })
}

/// A new self-signed root, of the organization that the old one has.
pub(super) fn self_signed(old: &Holding, lifetime: Duration) -> Result<Material, CliError> {
    let subject = old.signer.root().map_err(CliError::new)?.subject;
    let organization = subject.split(',').find_map(|part| part.strip_prefix("O=")).unwrap_or("cluster.local");
    let made = Authority::self_signed(organization, SystemTime::now(), lifetime).map_err(CliError::new)?;
    let holding = Holding::read(&made.secret()).map_err(CliError::new)?;
    Ok(holding.signer)
}
