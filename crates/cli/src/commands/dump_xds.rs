//! `x dump-xds`: the Envoy resources that a proxy would get, from the very generator that serves ADS.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use lateen_proto::json::{self, Names};
use lateen_translate::{Resource, Resources, generate};
use serde_json::{Value, json};

use super::{CliError, Outcome};
use crate::globals::Globals;
use crate::world::{self, World, WorldArgs};

/// The kinds that `--only` names.
const KINDS: &[&str] = &["lds", "cds", "rds", "eds", "sds", "nds"];

/// Print the Envoy resources that a proxy would get from these manifests.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    /// The proxy: {type, id, ipAddresses, configNamespace, dnsDomain, labels, metadata, locality} as JSON
    #[arg(long, value_name = "FILE")]
    proxy: PathBuf,
    #[command(flatten)]
    world: WorldArgs,
    /// Only these kinds: lds, cds, rds, eds, sds, nds
    #[arg(long, value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(KINDS))]
    only: Vec<String>,
    /// Order resources by name, so that two dumps can be compared
    #[arg(long)]
    stable: bool,
}

impl Cmd {
    /// Prints the resources as JSON.
    pub(crate) fn run(self, _globals: &Globals) -> Outcome {
        let proxy = world::proxy(&self.proxy)?;
        let world = World::read(&self.world)?;
        let resources = generate(&world.snapshot, &proxy);
        let text = serde_json::to_string_pretty(&self.json(&resources)?).map_err(CliError::new)?;
        println!("{text}");
        Ok(ExitCode::SUCCESS)
    }

    fn json(&self, resources: &Resources) -> Result<Value, CliError> {
        let only: BTreeSet<&str> = self.only.iter().map(String::as_str).collect();
        let wanted = |kind: &str| only.is_empty() || only.contains(kind);
        let list = |kind: &str, of: &[Arc<Resource>]| match wanted(kind) {
            true => self.list(of),
            false => Ok(Vec::new()),
        };
        let secrets = resources.secret_names.iter().filter(|_| wanted("sds"));
        let names = match wanted("nds") {
            true => json::to_value(resources.name_table.as_ref(), Names::Camel).map_err(CliError::new)?,
            false => json!({}),
        };
        Ok(json!({
            "listeners": list("lds", &resources.listeners)?,
            "clusters": list("cds", &resources.clusters)?,
            "routes": list("rds", &resources.routes)?,
            "endpoints": list("eds", &resources.endpoints)?,
            "secrets": secrets.map(|name| json!({"name": name})).collect::<Vec<_>>(),
            "nameTable": names,
        }))
    }

    fn list(&self, resources: &[Arc<Resource>]) -> Result<Vec<Value>, CliError> {
        let mut resources: Vec<&Arc<Resource>> = resources.iter().collect();
        if self.stable {
            resources.sort_by(|a, b| a.name.cmp(&b.name));
        }
        let value = |resource: &Arc<Resource>| {
            let mut value = json::any_to_value(&resource.any, Names::Camel)
                .map_err(|error| CliError(format!("{}: {error}", resource.name)))?;
            if let Some(object) = value.as_object_mut() {
                object.remove("@type");
            }
            Ok(value)
        };
        resources.into_iter().map(value).collect()
    }
}
