//! `lateen get`: objects as the server's table, JSON or YAML.

use std::process::ExitCode;

use serde_json::Value;

use super::{CliError, Outcome};
use crate::cluster::{Cluster, block_on};
use crate::globals::Globals;

/// Asks for a table; a server that has none answers with objects.
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// Arguments of `lateen get`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    /// Kinds, separated by commas: pods, vs, destinationrules, ...
    kinds: String,
    /// One object
    name: Option<String>,
    /// Objects of all namespaces
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Label selector
    #[arg(long, short = 'l')]
    selector: Option<String>,
    /// Output format: json, yaml, wide or name
    #[arg(long, short)]
    output: Option<String>,
}

impl Cmd {
    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        block_on(async {
            let cluster = Cluster::connect(globals).await?;
            let kinds: Vec<&str> = self.kinds.split(',').collect();
            for (at, kind) in kinds.iter().enumerate() {
                if at > 0 {
                    println!();
                }
                self.show(&cluster, kind).await?;
            }
            Ok(ExitCode::SUCCESS)
        })
    }

    async fn show(&self, cluster: &Cluster, kind: &str) -> Result<(), CliError> {
        let kind = cluster.kind(kind)?;
        let root = if kind.group.is_empty() { "api".to_owned() } else { format!("apis/{}", kind.group) };
        let place = match kind.namespaced && !self.all_namespaces {
            true => format!("namespaces/{}/", cluster.namespace),
            false => String::new(),
        };
        let name = self.name.as_ref().map(|name| format!("/{name}")).unwrap_or_default();
        let query = self.selector.as_ref().map(|labels| format!("?labelSelector={}", encode(labels)));
        let path =
            format!("/{root}/{}/{place}{}{name}{}", kind.version, kind.plural, query.unwrap_or_default());
        match self.output.as_deref() {
            None | Some("wide") => {
                let table = cluster.client.raw_get(&path, TABLE).await?;
                print_table(&table, self.output.is_some(), self.all_namespaces, &cluster.namespace);
            }
            Some("json") => println!("{:#}", cluster.client.raw_get(&path, "application/json").await?),
            Some("yaml") => {
                let value = cluster.client.raw_get(&path, "application/json").await?;
                print!("{}", serde_saphyr::to_string(&value).map_err(CliError::new)?);
            }
            Some("name") => {
                let value = cluster.client.raw_get(&path, "application/json").await?;
                let one = std::slice::from_ref(&value);
                for object in value["items"].as_array().map_or(one, Vec::as_slice) {
                    println!(
                        "{}",
                        super::apply::label(kind, object["metadata"]["name"].as_str().unwrap_or_default())
                    );
                }
            }
            Some(other) => {
                return Err(CliError(format!("unknown output format {other:?}: json, yaml, wide or name")));
            }
        }
        Ok(())
    }
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}

fn print_table(table: &Value, wide: bool, with_namespace: bool, namespace: &str) {
    let columns: Vec<(usize, &str)> = table["columnDefinitions"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
        .filter(|(_, column)| wide || column["priority"].as_i64().unwrap_or(0) == 0)
        .filter_map(|(at, column)| Some((at, column["name"].as_str()?)))
        .collect();
    let rows = table["rows"].as_array().map_or(&[][..], Vec::as_slice);
    if rows.is_empty() {
        eprintln!("No resources found in {namespace} namespace.");
        return;
    }
    let cell = |row: &Value, at: usize| match &row["cells"][at] {
        Value::String(text) => text.clone(),
        Value::Null => "<none>".to_owned(),
        other => other.to_string(),
    };
    let mut lines = vec![columns.iter().map(|(_, name)| name.to_uppercase()).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| columns.iter().map(|(at, _)| cell(row, *at)).collect()));
    if with_namespace {
        lines[0].insert(0, "NAMESPACE".into());
        for (line, row) in lines[1..].iter_mut().zip(rows) {
            line.insert(0, row["object"]["metadata"]["namespace"].as_str().unwrap_or_default().to_owned());
        }
    }
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        println!("{}", cells.collect::<Vec<_>>().join("   ").trim_end());
    }
}
