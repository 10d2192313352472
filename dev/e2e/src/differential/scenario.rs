//! The text of scenarios.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::Problem;
use super::call::Call;
use super::tokens::Token;
use super::world::World;

/// A file of scenarios on one topic.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The topic.
    pub about: String,
    /// What holds for each scenario that does not say otherwise.
    #[serde(default)]
    pub defaults: Setting,
    /// The scenarios.
    pub scenarios: Vec<Scenario>,
}

/// Where a scenario plays.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Setting {
    /// The kind of proxy: `sidecar` (outbound listeners of the usual form, bound), `loopback` (the HTTP proxy of loopback
    /// isolation), `inbound` (a workload's listeners), `gateway`.
    pub proxy: Option<Kind>,
    /// Labels and locality of the proxy, where they matter.
    pub node: Option<Node>,
    /// Services in place of the usual ones.
    pub world: Option<World>,
    /// What lies over the default mesh configuration.
    pub mesh: Option<Value>,
    /// Tokens by name, which steps have as `${jwt:NAME}`; those of a scenario lie over those of its file.
    pub tokens: Option<BTreeMap<String, Token>>,
}

/// The kind of proxy that a scenario is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The outbound side of a sidecar; the kernel's redirection is replaced by listeners that are bound.
    #[default]
    Sidecar,
    /// The outbound side in loopback isolation: an HTTP proxy.
    Loopback,
    /// The inbound side.
    Inbound,
    /// An ingress or egress gateway.
    Gateway,
}

/// Who the proxy is.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its workload's labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// `region/zone/subzone`.
    #[serde(default)]
    pub locality: String,
    /// Its namespace.
    #[serde(default)]
    pub namespace: String,
    /// More of its metadata.
    #[serde(default)]
    pub metadata: BTreeMap<String, Value>,
}

/// Configuration, requests, and what is to come of them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// What has to be so, in plain words.
    pub name: String,
    /// Which topics (see `scenarios/README.md`) or which section of a seed it is for.
    #[serde(default)]
    pub covers: String,
    /// Where it plays.
    #[serde(flatten)]
    pub setting: Setting,
    /// Istio objects as YAML; `${POD}` is that pod's address, `${certs}` the folder of certificates.
    #[serde(default)]
    pub config: String,
    /// What is done, in order: calls as text (see [`Call`]), and pauses.
    pub steps: Vec<Step>,
    /// Figures of `/stats` at the end: a cluster (`PORT|SUBSET|HOST`) or a prefix, then names and values; `null` where only
    /// both proxies have to agree.
    #[serde(default)]
    pub stats: BTreeMap<String, BTreeMap<String, Option<u64>>>,
    /// Parts of the observations that are not compared, each with its reason: a difference on purpose.
    #[serde(default)]
    pub differs: BTreeMap<String, String>,
}

/// A step.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Step {
    /// A call.
    Call(String),
    /// Something else.
    Pause(Pause),
}

/// A pause.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Pause {
    /// Until that time is over, in milliseconds.
    Sleep(u64),
    /// Until a figure (`PORT|SUBSET|HOST NAME`) has that value in both proxies.
    Until {
        /// The figure.
        stat: String,
        /// Its value.
        is: u64,
    },
    /// The resolver answers otherwise from now on: pods by name; no pod is a failure, `null` a name that there is not.
    Names(BTreeMap<String, Option<Vec<String>>>),
}

impl Pause {
    /// The time of a plain pause.
    pub(crate) fn time(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }
}

impl Scenario {
    /// The scenario's calls and pauses; `filled` puts addresses in the place of pods, and tokens in that of their names.
    ///
    /// # Errors
    /// Says which line cannot be read, or that nothing is expected.
    pub(crate) fn steps(
        &self,
        filled: impl Fn(&str) -> Result<String, Problem>,
    ) -> Result<Vec<Result<Call, Pause>>, Problem> {
        let read = |step: &Step| match step {
            Step::Call(text) => {
                let call = filled(text).and_then(|text| text.parse());
                call.map(Ok).map_err(|error| format!("step {text:?}: {error}"))
            }
            Step::Pause(pause) => Ok(Err(pause.clone())),
        };
        let steps: Vec<Result<Call, Pause>> = self.steps.iter().map(read).collect::<Result<_, Problem>>()?;
        let expects = steps.iter().flatten().any(|call| !call.expected.is_empty());
        match expects {
            true => Ok(steps),
            false => Err("no step says what is expected (`=> ...`): it would hold for any proxy".to_owned()),
        }
    }
}

/// Reads all files of a folder, by name.
///
/// # Errors
/// Names the file and the line.
pub fn load(folder: &Path) -> Result<Vec<(String, File)>, Problem> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    let read = |path: PathBuf| {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(&path).map_err(|error| failed(&error))?;
        let mut file: File = serde_saphyr::from_str(&text).map_err(|error| failed(&error))?;
        let defaults = file.defaults.clone();
        file.scenarios.iter_mut().for_each(|scenario| scenario.setting.complete(&defaults));
        let topic = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok((topic, file))
    };
    paths.into_iter().map(read).collect()
}

impl Setting {
    /// Takes from the file's defaults what is not said.
    fn complete(&mut self, defaults: &Self) {
        self.proxy = self.proxy.or(defaults.proxy);
        self.node = self.node.take().or_else(|| defaults.node.clone());
        self.world = self.world.take().or_else(|| defaults.world.clone());
        self.mesh = self.mesh.take().or_else(|| defaults.mesh.clone());
        let mut tokens = defaults.tokens.clone().unwrap_or_default();
        tokens.extend(self.tokens.take().unwrap_or_default());
        self.tokens = Some(tokens);
    }

    /// Tokens by name.
    pub(crate) fn tokens(&self) -> &BTreeMap<String, Token> {
        static NONE: BTreeMap<String, Token> = BTreeMap::new();
        self.tokens.as_ref().unwrap_or(&NONE)
    }
}
