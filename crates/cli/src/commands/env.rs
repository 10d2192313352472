//! `lateen env`: how a shell reaches a local cluster.

use std::process::ExitCode;
use std::time::Duration;

use lateen_kube::{Access, Client, ResourceKind};
use lateen_local::state::{RunRecord, StateFolder};
use serde_json::json;

use super::up::Name;
use super::{CliError, Outcome};
use crate::cluster::block_on;
use crate::globals::Globals;

/// Arguments of `lateen env`.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    #[command(flatten)]
    name: Name,
    /// Output format: shell (to be evaluated) or json
    #[arg(long, short, default_value = "shell")]
    output: String,
}

impl Cmd {
    pub(crate) fn run(self, _globals: &Globals) -> Outcome {
        let state = self.name.state()?;
        let run = state.live_run().map_err(CliError::new)?.ok_or_else(|| {
            let name = state.name();
            CliError(format!(
                "cluster {name} is not running: start it with `lateen up --detach{}`",
                flag(name)
            ))
        })?;
        let run = refreshed(&state, run);
        match self.output.as_str() {
            "shell" => print!("{}", exports(&state, &run)),
            "json" => {
                let all: serde_json::Map<_, _> = variables(&state, &run)
                    .into_iter()
                    .map(|(name, value)| (name.into(), json!(value)))
                    .collect();
                println!("{:#}", serde_json::Value::Object(all));
            }
            other => return Err(CliError(format!("unknown output format {other:?}: shell or json"))),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// How long the API server may take to tell the gateway's ports.
const ANSWER: Duration = Duration::from_secs(5);

/// The record with the node ports that the ingress gateway has now: another installation may have given it others than the
/// first. Where the API server does not tell, those of the record stay.
pub(crate) fn refreshed(state: &StateFolder, mut run: RunRecord) -> RunRecord {
    let asked = block_on(async {
        let access = Access::Kubeconfig { path: Some(state.kubeconfig()), context: None };
        let service = async {
            let client = Client::connect(&access).await?;
            client
                .get(&ResourceKind::core("Service", "services"), "istio-system", "istio-ingressgateway")
                .await
        };
        let answer = tokio::time::timeout(ANSWER, service).await.map_err(CliError::new)?;
        answer.map_err(CliError::new)
    });
    if let Ok(service) = asked {
        let ports = service["spec"]["ports"].as_array().into_iter().flatten();
        let numbered = ports.filter_map(|port| {
            Some((port["name"].as_str()?.to_owned(), u16::try_from(port["nodePort"].as_u64()?).ok()?))
        });
        run.ingress_ports = numbered.collect();
    }
    run
}

/// ` --name NAME`, where the name has to be said.
pub(crate) fn flag(name: &str) -> String {
    if name == "default" { String::new() } else { format!(" --name {name}") }
}

/// The lines for `eval`.
pub(crate) fn exports(state: &StateFolder, run: &RunRecord) -> String {
    let all: Vec<String> =
        variables(state, run).into_iter().map(|(name, value)| format!("{name}={}", quoted(&value))).collect();
    format!("export {}\n", all.join(" "))
}

/// What the labs of Istio call these things.
pub(crate) fn variables(state: &StateFolder, run: &RunRecord) -> Vec<(&'static str, String)> {
    let mut all = vec![("KUBECONFIG", state.kubeconfig().display().to_string())];
    let port = |name: &str| run.ingress_ports.get(name).map(u16::to_string);
    if let Some(http) = port("http2") {
        all.push(("GATEWAY_URL", format!("{}:{http}", run.node_address)));
        all.push(("INGRESS_HOST", run.node_address.clone()));
        all.push(("INGRESS_PORT", http));
    }
    let others = [("SECURE_INGRESS_PORT", "https"), ("TCP_INGRESS_PORT", "tcp")];
    all.extend(others.into_iter().filter_map(|(variable, name)| Some((variable, port(name)?))));
    all
}

/// A value that a shell takes as one word.
fn quoted(value: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._:-".contains(c);
    if value.chars().all(plain) { value.to_owned() } else { format!("'{}'", value.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_for_a_shell() {
        let state = StateFolder::at("/tmp/it's here".into(), "default");
        let run: RunRecord = serde_json::from_value(json!({
            "process": {"pid": 1, "started": 2}, "phase": "ready", "message": "",
            "node_address": "127.10.0.1", "ingress_ports": {"http2": 31380, "https": 31390},
        }))
        .unwrap();
        assert_eq!(
            exports(&state, &run),
            "export KUBECONFIG='/tmp/it'\\''s here/kubeconfig' GATEWAY_URL=127.10.0.1:31380 \
             INGRESS_HOST=127.10.0.1 INGRESS_PORT=31380 SECURE_INGRESS_PORT=31390\n"
        );
        assert_eq!(flag("mesh"), " --name mesh");
    }
}
