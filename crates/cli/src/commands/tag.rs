//! `lateen tag`: names for revisions, which namespaces follow.

use std::process::ExitCode;

use lateen_kube::install::Installer;
use lateen_kube::{Client, KubeError, ResourceKind};
use lateen_manifests::tags::{DEFAULT_TAG, TAG_LABEL, Tag};
use serde_json::{Value, json};

use super::{CliError, Outcome};
use crate::cluster::{self, block_on};
use crate::globals::Globals;
use crate::install::{confirmed, yaml};
use crate::table;

/// The group.
#[derive(clap::Args)]
pub(crate) struct Cmd {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Have a tag stand for a revision
    Set(Set),
    /// Print the objects that `set` would apply
    Generate(Set),
    /// Show tags, their revisions, and the namespaces that follow them
    #[command(visible_alias = "show")]
    List {
        /// Output format: json
        #[arg(long, short)]
        output: Option<String>,
    },
    /// Remove a tag
    #[command(visible_alias = "delete")]
    Remove {
        /// The tag
        tag: String,
        /// Do not ask
        #[arg(long = "skip-confirmation", short = 'y')]
        yes: bool,
    },
}

/// Arguments of `tag set` and `tag generate`.
#[derive(clap::Args)]
struct Set {
    /// The tag
    tag: String,
    /// The revision that it stands for
    #[arg(long, short)]
    revision: String,
    /// Whether a tag may come to stand for another revision
    #[arg(long)]
    overwrite: bool,
    /// Do not ask
    #[arg(long = "skip-confirmation", short = 'y')]
    yes: bool,
    /// Not in use: a tag has one kind of name
    #[arg(long, hide = true)]
    webhook_name: Option<String>,
}

fn webhooks() -> ResourceKind {
    ResourceKind::new(
        "admissionregistration.k8s.io",
        "v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        false,
    )
}

impl Cmd {
    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        block_on(async {
            let client = cluster::client(globals).await?;
            match self.command {
                Command::Set(set) => set.apply(client, globals).await,
                Command::Generate(set) => {
                    let injector = set.injector(&client, globals).await?;
                    print!("{}", yaml(&set.tag(&injector, globals).objects())?);
                    Ok(ExitCode::SUCCESS)
                }
                Command::List { output } => list(&client, globals, output.as_deref()).await,
                Command::Remove { tag, yes } => remove(&client, globals, &tag, yes).await,
            }
        })
    }
}

impl Set {
    /// The injector of the revision; a tag copies where it is and by what it is trusted.
    async fn injector(&self, client: &Client, globals: &Globals) -> Result<Value, CliError> {
        let selector = format!("istio.io/rev={},!{TAG_LABEL}", self.revision);
        let found = listed(client, globals, &webhooks(), Some(&selector)).await?;
        found.into_iter().next().ok_or_else(|| {
            CliError(format!(
                "cannot modify tag: no revision {:?} is installed (`kubectl get mutatingwebhookconfigurations -L istio.io/rev` shows what is)",
                self.revision
            ))
        })
    }

    fn tag<'a>(&'a self, injector: &'a Value, globals: &'a Globals) -> Tag<'a> {
        let client = &injector["webhooks"][0]["clientConfig"];
        Tag {
            name: &self.tag,
            revision: &self.revision,
            namespace: client["service"]["namespace"].as_str().unwrap_or(&globals.istio_namespace),
            bundle: client["caBundle"].as_str(),
        }
    }

    async fn apply(&self, client: Client, globals: &Globals) -> Outcome {
        let injector = self.injector(&client, globals).await?;
        let tag = self.tag(&injector, globals);
        let there = match client.get(&webhooks(), "", &tag.object_name()).await {
            Err(KubeError::Status { code: 404, .. }) => None,
            there => Some(there?),
        };
        let old = there.as_ref().and_then(|there| there["metadata"]["labels"]["istio.io/rev"].as_str());
        if let Some(old) = old.filter(|old| *old != self.revision && !self.overwrite) {
            return Err(CliError(format!(
                "revision tag {:?} exists and stands for revision {old:?}: add --overwrite to change it",
                self.tag
            )));
        }
        if self.tag == DEFAULT_TAG && self.revision != DEFAULT_TAG {
            let question = format!(
                "Pods of namespaces labelled istio-injection=enabled will be injected by revision {:?} from now on. Proceed? (y/N)",
                self.revision
            );
            if !confirmed(&question, self.yes, false)? {
                println!("Cancelled.");
                return Ok(ExitCode::FAILURE);
            }
        }
        Installer::new(client, None).apply_all(&tag.objects()).await?;
        println!(
            "Revision tag {:?} created, referencing control plane revision {:?}. To enable injection using this\n\
             revision tag, use 'kubectl label namespace <NAMESPACE> istio.io/rev={}'",
            self.tag, self.revision, self.tag
        );
        Ok(ExitCode::SUCCESS)
    }
}

async fn listed(
    client: &Client,
    globals: &Globals,
    kind: &ResourceKind,
    selector: Option<&str>,
) -> Result<Vec<Value>, CliError> {
    cluster::answer(globals, &format!("listing {}", kind.plural), client.list(kind, None, selector)).await
}

async fn list(client: &Client, globals: &Globals, output: Option<&str>) -> Outcome {
    let found = listed(client, globals, &webhooks(), Some(TAG_LABEL)).await?;
    let kind = ResourceKind::new("", "v1", "Namespace", "namespaces", false);
    let namespaces = listed(client, globals, &kind, None).await?;
    let mut tags = Vec::new();
    for object in &found {
        let label = |key: &str| object["metadata"]["labels"][key].as_str().unwrap_or_default().to_owned();
        let (tag, revision) = (label(TAG_LABEL), label("istio.io/rev"));
        let follows = |namespace: &&Value| follows(&namespace["metadata"]["labels"], &tag);
        let names: Vec<&str> =
            namespaces.iter().filter(follows).filter_map(|n| n["metadata"]["name"].as_str()).collect();
        tags.push((tag.clone(), revision, names.join(",")));
    }
    tags.sort();
    match output {
        Some("json") => {
            let tags: Vec<Value> = tags
                .iter()
                .map(|(tag, revision, names)| {
                    let names: Vec<&str> = names.split(',').filter(|name| !name.is_empty()).collect();
                    json!({ "tag": tag, "revision": revision, "namespaces": names })
                })
                .collect();
            println!("{:#}", json!(tags));
        }
        Some(other) => return Err(CliError(format!("unknown output format {other:?}: json"))),
        None => {
            let mut rows = vec![["TAG", "REVISION", "NAMESPACES"].map(str::to_owned).to_vec()];
            rows.extend(tags.into_iter().map(|(tag, revision, names)| vec![tag, revision, names]));
            println!("{}", table::columns(&rows).trim_end());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn follows(labels: &Value, tag: &str) -> bool {
    let injection = labels["istio-injection"].as_str();
    match injection {
        Some(word) => word == "enabled" && tag == DEFAULT_TAG,
        None => labels["istio.io/rev"] == tag,
    }
}

async fn remove(client: &Client, globals: &Globals, name: &str, yes: bool) -> Outcome {
    let found = listed(client, globals, &webhooks(), Some(&format!("{TAG_LABEL}={name}"))).await?;
    if found.is_empty() {
        return Err(CliError(format!("cannot remove tag {name:?}: there is none")));
    }
    let kind = ResourceKind::new("", "v1", "Namespace", "namespaces", false);
    let users = listed(client, globals, &kind, None).await?;
    let users: Vec<&str> = users
        .iter()
        .filter(|namespace| follows(&namespace["metadata"]["labels"], name))
        .filter_map(|namespace| namespace["metadata"]["name"].as_str())
        .collect();
    if !users.is_empty() {
        let question = format!(
            "Caution, found {} namespace(s) still injected by tag {name:?}: {}. Proceed with removal? (y/N)",
            users.len(),
            users.join(", ")
        );
        if !confirmed(&question, yes, false)? {
            println!("Cancelled.");
            return Ok(ExitCode::FAILURE);
        }
    }
    for object in &found {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        client.delete(&webhooks(), "", name).await?;
    }
    if name == DEFAULT_TAG {
        let kind = ResourceKind::new(
            "admissionregistration.k8s.io",
            "v1",
            "ValidatingWebhookConfiguration",
            "validatingwebhookconfigurations",
            false,
        );
        for object in client.list(&kind, None, Some(&format!("{TAG_LABEL}={name}"))).await? {
            client.delete(&kind, "", object["metadata"]["name"].as_str().unwrap_or_default()).await?;
        }
    }
    println!("Revision tag {name} removed");
    Ok(ExitCode::SUCCESS)
}
