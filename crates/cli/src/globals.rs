//! Flags that every command takes, spelt as istioctl spells them.

use std::path::PathBuf;
use std::time::Duration;

use lateen_base::parse_duration;

/// Flags common to all commands.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Globals {
    /// Kubernetes configuration file; the default is what KUBECONFIG names
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Kubernetes configuration context
    #[arg(long, global = true)]
    pub(crate) context: Option<String>,
    /// Kubernetes namespace
    #[arg(long, short = 'n', global = true)]
    pub(crate) namespace: Option<String>,
    /// Kubernetes namespace where the control plane runs
    #[arg(long, short = 'i', global = true, default_value = "istio-system", value_name = "NAMESPACE")]
    pub(crate) istio_namespace: String,
    /// How long one answer of the API server may take (commands that install, and those that look after revisions)
    #[arg(
        long = "kubeclient-timeout",
        global = true,
        hide = true,
        default_value = "15s",
        value_parser = parse_duration,
        value_name = "DURATION"
    )]
    pub(crate) answer_within: Duration,
}

impl Globals {
    /// The kubeconfig file that was named; none leaves it to `KUBECONFIG`, which may list several.
    pub(crate) fn kubeconfig_file(&self) -> Option<PathBuf> {
        self.kubeconfig.clone()
    }
}
