//! `x dump-xds`: the Envoy resources that a proxy would get, from the very generator that serves ADS.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use lateen_proto::Any;
use lateen_proto::json::{self, Names};
use lateen_translate::{PatchReport, Proxy, Resource, Resources, Scoping, generate};
use serde_json::{Value, json};

use super::{CliError, Outcome};
use crate::globals::Globals;
use crate::world::{self, World, WorldArgs};

/// The kinds that `--only` names.
const KINDS: &[&str] = &["lds", "cds", "rds", "eds", "sds", "nds", "ecds"];

/// Print the Envoy resources that a proxy would get from these manifests.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    /// The proxy: {type, id, ipAddresses, configNamespace, dnsDomain, labels, metadata, locality} as JSON
    #[arg(long, value_name = "FILE")]
    proxy: PathBuf,
    #[command(flatten)]
    world: WorldArgs,
    /// Only these kinds: lds, cds, rds, eds, sds, nds, ecds
    #[arg(long, value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(KINDS))]
    only: Vec<String>,
    /// Print private keys, which are redacted otherwise
    #[arg(long)]
    show_secrets: bool,
    /// Order resources by name, so that two dumps can be compared
    #[arg(long)]
    stable: bool,
}

impl Cmd {
    /// Prints the resources as JSON.
    pub(crate) fn run(self, _globals: &Globals) -> Outcome {
        let text = serde_json::to_string_pretty(&self.dump()?).map_err(CliError::new)?;
        println!("{text}");
        Ok(ExitCode::SUCCESS)
    }

    fn dump(&self) -> Result<Value, CliError> {
        let proxy = world::proxy(&self.proxy)?;
        let world = World::read(&self.world)?;
        let resources = generate(&world.snapshot, &proxy);
        let secrets = self.secrets(&world, &proxy, &resources)?;
        self.json(&resources, secrets)
    }

    fn wants(&self, kind: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == kind)
    }

    /// The secrets that the control plane would serve, from the Secrets among the manifests. A proxy that is no gateway
    /// gets none, and a name that no manifest has is said.
    fn secrets(&self, world: &World, proxy: &Proxy, resources: &Resources) -> Result<Vec<Value>, CliError> {
        let mut secrets = Vec::new();
        for name in resources.secret_names.iter().filter(|_| self.wants("sds")) {
            let found = world.secrets.find(name, proxy.namespace.as_str()).filter(|_| proxy.is_router());
            let Some(found) = found else {
                eprintln!("Warning: {name}: no such Secret for {} among the manifests", proxy.id);
                secrets.push(json!({ "name": name }));
                continue;
            };
            let mut secret = value_of(name, &found.any)?;
            if let Some(key) = secret.pointer_mut("/tlsCertificate/privateKey").filter(|_| !self.show_secrets)
            {
                *key = json!({ "inlineBytes": REDACTED });
            }
            secrets.push(secret);
        }
        Ok(secrets)
    }

    fn json(&self, resources: &Resources, secrets: Vec<Value>) -> Result<Value, CliError> {
        let wanted = |kind: &str| self.wants(kind);
        let list = |kind: &str, of: &[Arc<Resource>]| match wanted(kind) {
            true => self.list(of),
            false => Ok(Vec::new()),
        };
        let names = match wanted("nds") {
            true => json::to_value(resources.name_table.as_ref(), Names::Camel).map_err(CliError::new)?,
            false => json!({}),
        };
        let at_start = resources.at_start();
        let mut dump = json!({
            "listeners": list("lds", &resources.listeners)?,
            "clusters": list("cds", &at_start.clusters)?,
            "routes": list("rds", &resources.routes)?,
            "endpoints": list("eds", &at_start.endpoints)?,
            "secrets": secrets,
            "nameTable": names,
        });
        match &resources.scoping {
            Scoping::Off => {}
            Scoping::Automatic if wanted("cds") => dump["onDemand"] = json!(resources.on_demand),
            Scoping::Automatic => {}
            Scoping::Unavailable(reason) => {
                eprintln!("Warning: automatic scoping is asked for, but off: {reason}");
            }
        }
        if !resources.extensions.is_empty() {
            dump["extensions"] = list("ecds", &resources.extensions)?.into();
        }
        if let Some(bootstrap) = &resources.bootstrap {
            dump["bootstrap"] = value_of(&bootstrap.name, &bootstrap.any)?;
        }
        if !resources.patches.is_empty() {
            dump["patches"] = resources.patches.iter().map(patch).collect();
        }
        Ok(dump)
    }

    fn list(&self, resources: &[Arc<Resource>]) -> Result<Vec<Value>, CliError> {
        let mut resources: Vec<&Arc<Resource>> = resources.iter().collect();
        if self.stable {
            resources.sort_by(|a, b| a.name.cmp(&b.name));
        }
        resources.into_iter().map(|resource| value_of(&resource.name, &resource.any)).collect()
    }
}

/// What a patch of an EnvoyFilter did.
fn patch(report: &PatchReport) -> Value {
    json!({
        "envoyFilter": format!("{}/{}", report.filter.namespace, report.filter.name),
        "patch": report.index,
        "what": report.title,
        "outcome": report.outcome.to_string(),
    })
}

/// `[redacted]` in base64, which Envoy prints in the place of private keys.
const REDACTED: &str = "W3JlZGFjdGVkXQ==";

/// The JSON of a resource, without its type.
fn value_of(name: &str, any: &Any) -> Result<Value, CliError> {
    let value = json::any_to_value(any, Names::Camel);
    let mut value = value.map_err(|error| CliError(format!("{name}: {error}")))?;
    if let Some(object) = value.as_object_mut() {
        object.remove("@type");
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFESTS: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: web, namespace: istio-system}
spec:
  selector: {istio: gw}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [a.example]
    tls: {mode: SIMPLE, credentialName: web}
  - port: {number: 8443, name: https-too, protocol: HTTPS}
    hosts: [b.example]
    tls: {mode: SIMPLE, credentialName: gone}
---
apiVersion: v1
kind: Secret
metadata: {name: web, namespace: istio-system}
stringData: {tls.crt: chain, tls.key: key}
";

    fn dump(kind: &str, show_secrets: bool) -> Value {
        let proxy = json!({ "type": kind, "id": "gw.istio-system", "ipAddresses": ["1.1.1.1"],
            "configNamespace": "istio-system", "labels": { "istio": "gw" } });
        dump_of(&proxy, MANIFESTS, show_secrets)
    }

    fn dump_of(proxy: &Value, manifests: &str, show_secrets: bool) -> Value {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let cmd = Cmd {
            proxy: write("proxy.json", &proxy.to_string()),
            world: WorldArgs {
                files: vec![write("world.yaml", manifests)],
                domain: "cluster.local".into(),
                ..WorldArgs::default()
            },
            only: Vec::new(),
            show_secrets,
            stable: false,
        };
        cmd.dump().unwrap()
    }

    #[test]
    fn clusters_that_are_loaded_on_demand_are_named_apart() {
        const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: a, namespace: default}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}, {name: tcp, port: 90}]}
";
        let sidecar = |scoping: &str| {
            json!({ "type": "sidecar", "id": "x.default", "ipAddresses": ["1.1.1.1"], "configNamespace": "default",
                "metadata": { "ANNOTATIONS": { "lateen.dev/scoping": scoping } } })
        };
        let (http, tcp) =
            ("outbound|80||a.default.svc.cluster.local", "outbound|90||a.default.svc.cluster.local");
        let named = |dump: &Value, list: &str, key: &str, name: &str| {
            dump[list].as_array().unwrap().iter().any(|resource| resource[key] == name)
        };
        let scoped = dump_of(&sidecar("automatic"), SERVICE, false);
        assert_eq!(scoped["onDemand"], json!([http]));
        for (list, key) in [("clusters", "name"), ("endpoints", "clusterName")] {
            assert!(named(&scoped, list, key, tcp) && !named(&scoped, list, key, http), "{list}");
        }
        assert!(scoped["listeners"].to_string().contains("envoy.filters.http.on_demand"));
        let whole = dump_of(&sidecar("off"), SERVICE, false);
        assert!(whole.get("onDemand").is_none() && named(&whole, "clusters", "name", http));
        assert!(!whole["listeners"].to_string().contains("envoy.filters.http.on_demand"));
    }

    #[test]
    fn secrets_are_those_of_the_manifests_and_keys_are_shown_on_request_only() {
        let bytes = |text: &str| json!({ "inlineBytes": text });
        let secrets = dump("router", false)["secrets"].clone();
        assert_eq!(secrets[0], json!({ "name": "kubernetes://gone" }));
        assert_eq!(secrets[1]["name"], "kubernetes://web");
        let certificate = &secrets[1]["tlsCertificate"];
        assert_eq!(
            (&certificate["certificateChain"], &certificate["privateKey"]),
            (&bytes("Y2hhaW4="), &bytes(REDACTED))
        );
        let shown = dump("router", true);
        assert_eq!(shown["secrets"][1]["tlsCertificate"]["privateKey"], bytes("a2V5"));
        assert_eq!(dump("sidecar", true)["secrets"], json!([]));
    }
}
