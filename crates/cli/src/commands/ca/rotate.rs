//! `x ca rotate|status`: the mesh's root exchanged for another, and how far that is.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use lateen_base::parse_duration;
use lateen_ca::chain::Facts;
use lateen_ca::exchange::{Holding, Stage};
use lateen_kube::Client;
use serde::Serialize;

use super::gate::{Gate, Laggard, short};
use super::look::{self, Look, Seen, control_planes, look};
use super::store::{Stored, from_folder, self_signed};
use crate::cluster::{block_on, client};
use crate::commands::{CliError, Outcome};
use crate::globals::Globals;
use crate::table::columns;

/// How often everybody is asked while a step waits.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Laggards that are told one by one.
const TOLD: usize = 10;

/// Arguments of `x ca rotate`.
#[derive(clap::Args)]
pub(super) struct Rotate {
    /// Folder of the new authority: ca-cert.pem, ca-key.pem, cert-chain.pem and root-cert.pem; a self-signed root is
    /// made when none is named
    #[arg(long, value_name = "DIR", conflicts_with = "abort")]
    from: Option<PathBuf>,
    /// Lifetime of a self-signed root that is made
    #[arg(long, default_value = "87600h", value_parser = parse_duration, value_name = "DURATION")]
    lifetime: Duration,
    /// End after the next step
    #[arg(long)]
    step: bool,
    /// Turn an exchange around: the old root signs again, and the new one is dropped
    #[arg(long)]
    abort: bool,
    /// Go on although some lag; they are named, and will refuse others or be refused
    #[arg(long)]
    force: bool,
    /// Contexts of other clusters of the mesh, by commas: their proxies are asked, too
    #[arg(long, value_delimiter = ',', value_name = "CONTEXTS")]
    remote_contexts: Vec<String>,
    /// How long a step waits for everybody
    #[arg(long, default_value = "5m", value_parser = parse_duration, value_name = "DURATION")]
    timeout: Duration,
    /// Output format: text or json; progress goes to standard error with json
    #[arg(long, short, default_value = "text", value_parser = ["text", "json"])]
    output: String,
}

/// Arguments of `x ca status`.
#[derive(clap::Args)]
pub(super) struct Status {
    /// Contexts of other clusters of the mesh, by commas: their proxies are asked, too
    #[arg(long, value_delimiter = ',', value_name = "CONTEXTS")]
    remote_contexts: Vec<String>,
    /// Output format: table, json or yaml
    #[arg(long, short, default_value = "table", value_parser = ["table", "json", "yaml"])]
    output: String,
}

/// What is printed at the end, and by `status`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// The secret, as `NAMESPACE/NAME`.
    secret: String,
    /// `none`, `trusting` or `switched`.
    stage: &'static str,
    /// The root under which certificates are signed.
    signs: Root,
    /// The other root of an exchange.
    #[serde(skip_serializing_if = "Option::is_none")]
    other: Option<Root>,
    proxies: Vec<Seen>,
    /// Who is not as far as the next step needs.
    lagging: Vec<Laggard>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Root {
    subject: String,
    serial: String,
    sha256: String,
}

impl From<Facts> for Root {
    fn from(facts: Facts) -> Self {
        Self { subject: facts.subject, serial: facts.serial, sha256: facts.sha256 }
    }
}

impl Rotate {
    pub(super) fn run(self, globals: &Globals) -> Outcome {
        let text = self.output == "text";
        let report = block_on(async {
            let client = client(globals).await?;
            let stored = stored(&client, globals).await?;
            let others = remote_clients(&self.remote_contexts, globals).await?;
            let mut rotation = Rotation { arguments: &self, globals, client, others, to_stderr: !text };
            let stored = rotation.run(stored).await?;
            rotation.report(&stored).await
        })?;
        if !text {
            println!("{}", serde_json::to_string_pretty(&report).map_err(CliError::new)?);
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Status {
    pub(super) fn run(self, globals: &Globals) -> Outcome {
        let report = block_on(async {
            let client = client(globals).await?;
            let stored = stored(&client, globals).await?;
            let others = remote_clients(&self.remote_contexts, globals).await?;
            let look = look(&client, &others, globals, &roots(&stored.holding)).await?;
            report(&stored, look)
        })?;
        match self.output.as_str() {
            "json" => println!("{}", serde_json::to_string_pretty(&report).map_err(CliError::new)?),
            "yaml" => print!("{}", serde_saphyr::to_string(&report).map_err(CliError::new)?),
            _ => print!("{}", report.text()),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Clients of the clusters that these contexts of the kubeconfig name.
async fn remote_clients(contexts: &[String], globals: &Globals) -> Result<Vec<Client>, CliError> {
    let mut clients = Vec::new();
    for context in contexts {
        let globals = Globals { context: Some(context.clone()), ..globals.clone() };
        clients.push(client(&globals).await?);
    }
    Ok(clients)
}

/// The secret that every control plane takes its authority from.
async fn stored(client: &Client, globals: &Globals) -> Result<Stored, CliError> {
    let control_planes = control_planes(client, globals).await?;
    let secrets: BTreeSet<&str> =
        control_planes.iter().map(|(_, authority)| authority.secret.as_str()).collect();
    match secrets.into_iter().collect::<Vec<_>>()[..] {
        [secret] => Stored::read(client, secret).await,
        ref several => Err(CliError(format!(
            "control planes take their authority from different secrets: {}; restart them so that all use one",
            several.join(", ")
        ))),
    }
}

/// An exchange on its way.
struct Rotation<'a> {
    arguments: &'a Rotate,
    globals: &'a Globals,
    client: Client,
    /// Those of other clusters.
    others: Vec<Client>,
    to_stderr: bool,
}

impl Rotation<'_> {
    /// Goes on from wherever the secret says that it is.
    async fn run(&mut self, stored: Stored) -> Result<Stored, CliError> {
        let now = SystemTime::now();
        let mut stored = stored;
        if self.arguments.abort {
            let back = stored.holding.clone().abort(now).map_err(CliError::new)?;
            self.say(&format!("turned around: root {} signs", name(&back)?));
            stored = stored.write(&self.client, &back).await?;
            if back.exchange.is_none() || self.arguments.step {
                return Ok(stored);
            }
        } else if stored.holding.exchange.is_none() {
            stored = self.begin(stored).await?;
            if self.arguments.step {
                return Ok(stored);
            }
        } else if self.arguments.from.is_some() {
            return Err(CliError(
                "an exchange is going on already: go on with it without --from, or undo it by --abort".into(),
            ));
        }
        loop {
            stored = match stored.holding.exchange {
                Some((Stage::Trusting, _)) => self.switch(stored).await?,
                Some((Stage::Switched, _)) => return self.finish(stored).await,
                None => return Ok(stored),
            };
            if self.arguments.step {
                return Ok(stored);
            }
        }
    }

    async fn begin(&mut self, stored: Stored) -> Result<Stored, CliError> {
        let new = match &self.arguments.from {
            Some(folder) => from_folder(folder)?,
            None => self_signed(&stored.holding, self.arguments.lifetime)?,
        };
        let next = stored.holding.clone().begin(new, SystemTime::now()).map_err(CliError::new)?;
        let (old, new) = (name(&next)?, other(&next)?);
        self.say(&format!(
            "1 of 3: root {new} is to be trusted beside {old}, in secret {}",
            stored.reference()
        ));
        stored.write(&self.client, &next).await
    }

    async fn switch(&mut self, stored: Stored) -> Result<Stored, CliError> {
        let roots = stored.holding.roots().map_err(CliError::new)?;
        let gate = Gate::Trusts(roots.into_iter().map(|root| root.sha256).collect());
        self.wait(&stored, &gate, "trust both roots").await?;
        let next = stored.holding.clone().switch(SystemTime::now()).map_err(CliError::new)?;
        self.say(&format!("2 of 3: root {} signs", name(&next)?));
        stored.write(&self.client, &next).await
    }

    async fn finish(&mut self, stored: Stored) -> Result<Stored, CliError> {
        let (kept, dropped) = (root(&stored.holding)?, other_root(&stored.holding)?);
        let gate = Gate::Shows(kept.sha256.clone());
        self.wait(&stored, &gate, "have certificates under the root that signs").await?;
        let next = stored.holding.clone().finish().map_err(CliError::new)?;
        self.say(&format!("3 of 3: root {} is dropped", short(&dropped.sha256)));
        let stored = stored.write(&self.client, &next).await?;
        let gate = Gate::Forgot(dropped.sha256);
        match self.lag(&stored, &gate, "have dropped the other root").await? {
            lagging if lagging.is_empty() => {
                self.say(&format!("done: root {} alone is trusted", short(&kept.sha256)));
            }
            // The exchange is over, and nobody is refused; what lags drops the root when it next asks.
            lagging => eprintln!("Warning: the exchange is done, but {}", told(&lagging, "have heard of it")),
        }
        Ok(stored)
    }

    /// Waits until nobody lags. Who lags then is an error, or, with `--force`, named.
    async fn wait(&mut self, stored: &Stored, gate: &Gate, what: &str) -> Result<(), CliError> {
        let lagging = self.lag(stored, gate, what).await?;
        if lagging.is_empty() {
            return Ok(());
        }
        let text = told(&lagging, what);
        if self.arguments.force {
            eprintln!("Warning: {text}\nGoing on by --force: they will refuse others, or be refused.");
            return Ok(());
        }
        Err(CliError(format!(
            "{text}\nNothing is lost: the same command goes on from here, --abort turns around, --force goes on without \
             them"
        )))
    }

    /// Waits until nobody lags, but not for ever; tells who lags then.
    async fn lag(&mut self, stored: &Stored, gate: &Gate, what: &str) -> Result<Vec<Laggard>, CliError> {
        let started = Instant::now();
        let mut said = String::new();
        loop {
            let out_of_time = started.elapsed() >= self.arguments.timeout;
            match look(&self.client, &self.others, self.globals, &roots(&stored.holding)).await {
                Ok(look) => {
                    let lagging = gate.laggards(&look);
                    let words =
                        format!("  {} of {} proxies {what}", gate.met_by(&look.proxies), look.proxies.len());
                    if words != said {
                        self.say(&words);
                        said = words;
                    }
                    if lagging.is_empty() || out_of_time {
                        return Ok(lagging);
                    }
                }
                // A control plane that restarts, for one: who cannot be asked is not ahead.
                Err(error) if out_of_time => return Err(error),
                Err(_) => {}
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn report(&self, stored: &Stored) -> Result<Report, CliError> {
        report(stored, look(&self.client, &self.others, self.globals, &roots(&stored.holding)).await?)
    }

    fn say(&self, words: &str) {
        if self.to_stderr { eprintln!("{words}") } else { println!("{words}") }
    }
}

fn told(lagging: &[Laggard], what: &str) -> String {
    let mut text = format!("{} lag behind the others, which {what}:", lagging.len());
    for laggard in lagging.iter().take(TOLD) {
        text += &format!("\n  {laggard}");
    }
    if lagging.len() > TOLD {
        text += &format!("\n  and {} more: `lateen x ca status` names all", lagging.len() - TOLD);
    }
    text
}

/// The PEM texts of all roots that a holding knows.
fn roots(holding: &Holding) -> String {
    let other = holding.exchange.as_ref().map(|(_, other)| other.roots.as_str());
    format!("{}\n{}", holding.signer.roots, other.unwrap_or_default())
}

fn root(holding: &Holding) -> Result<Facts, CliError> {
    holding.signer.root().map_err(CliError::new)
}

fn other_root(holding: &Holding) -> Result<Facts, CliError> {
    match &holding.exchange {
        Some((_, other)) => other.root().map_err(CliError::new),
        None => Err(CliError("no exchange is going on".into())),
    }
}

fn name(holding: &Holding) -> Result<String, CliError> {
    root(holding).map(|root| short(&root.sha256).to_owned())
}

fn other(holding: &Holding) -> Result<String, CliError> {
    other_root(holding).map(|root| short(&root.sha256).to_owned())
}

fn report(stored: &Stored, look: Look) -> Result<Report, CliError> {
    let holding = &stored.holding;
    let signs = root(holding)?;
    let (stage, gate) = match holding.exchange {
        None => ("none", Gate::Shows(signs.sha256.clone())),
        Some((stage @ Stage::Trusting, _)) => {
            let all = holding.roots().map_err(CliError::new)?;
            (stage.as_str(), Gate::Trusts(all.into_iter().map(|root| root.sha256).collect()))
        }
        Some((stage @ Stage::Switched, _)) => (stage.as_str(), Gate::Shows(signs.sha256.clone())),
    };
    Ok(Report {
        secret: stored.reference(),
        stage,
        signs: signs.into(),
        other: other_root(holding).ok().map(Root::from),
        lagging: gate.laggards(&look),
        proxies: look.proxies,
    })
}

impl Report {
    fn text(&self) -> String {
        let mut text = format!("Secret: {}\nExchange: {}\n", self.secret, self.stage);
        let line = |what: &str, root: &Root| {
            format!("{what}: {}, serial number {}, {}\n", short(&root.sha256), root.serial, root.subject)
        };
        text += &line("Signs", &self.signs);
        if let Some(other) = &self.other {
            text += &line("Other root", other);
        }
        let mut rows = vec![["PROXY", "TRUSTS", "CERTIFICATE UNDER"].map(str::to_owned).to_vec()];
        for seen in &self.proxies {
            let trusts: Vec<&str> = seen.trusts.iter().map(|root| short(root)).collect();
            let shows = seen.shows.as_deref().map_or("unknown", short);
            rows.push(vec![look::name(&self.proxies, seen), trusts.join(","), shows.to_owned()]);
        }
        text += &format!("\n{}", columns(&rows));
        for laggard in &self.lagging {
            text += &format!("Lags: {laggard}\n");
        }
        text
    }
}
