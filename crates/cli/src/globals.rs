//! Flags that every command takes, spelt as istioctl spells them.

use std::path::PathBuf;

/// Flags common to all commands.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct Globals {
    /// Kubernetes configuration file
    #[arg(long, global = true, env = "KUBECONFIG", value_name = "FILE", hide_env_values = true)]
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
}

impl Globals {
    /// The kubeconfig file that was named; none where `KUBECONFIG` lists several, which kube-rs merges itself.
    pub(crate) fn kubeconfig_file(&self) -> Option<PathBuf> {
        self.kubeconfig.clone().filter(|path| !path.to_string_lossy().contains(':'))
    }
}
