//! The commands, one module each.

mod apiserver;
mod app;
mod apply;
mod authz;
mod ca;
mod delete;
mod demo;
mod discovery;
mod down;
mod dump_xds;
mod env;
pub(crate) mod exec;
mod experimental;
mod explain;
mod fortio;
mod get;
mod install;
mod kube_inject;
mod load;
mod logs;
mod manifest;
mod precheck;
mod profile;
mod proxy;
mod proxy_config;
mod proxy_role;
mod proxy_status;
mod request;
mod samples;
mod tag;
mod uninstall;
pub(crate) mod unsupported;
mod up;
mod upgrade;
mod validate;
mod version;
mod wait;

use std::process::ExitCode;

use crate::globals::Globals;

/// What went wrong, in words for the operator: it is printed after `Error: `.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct CliError(pub(crate) String);

impl CliError {
    /// An error of this text.
    pub(crate) fn new(text: impl std::fmt::Display) -> Self {
        Self(text.to_string())
    }
}

/// How a command ends: with an exit code of its own, or an error (exit code 1).
pub(crate) type Outcome = Result<ExitCode, CliError>;

/// Every command. A command is a `clap::Args` struct with `run(self, &Globals) -> Outcome`.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Show Bookinfo in a mesh on this machine
    Demo(demo::Cmd),
    /// Start a local cluster with the mesh in it
    Up(up::Cmd),
    /// End a local cluster
    Down(down::Cmd),
    /// Print how a shell reaches a local cluster
    Env(env::Cmd),
    /// Run a command in a container
    Exec(exec::Cmd),
    /// Show what containers have printed
    Logs(logs::Cmd),
    /// Create or change objects from manifests
    Apply(apply::Cmd),
    /// Delete objects, by manifest or by name
    Delete(delete::Cmd),
    /// Tell where a call goes, and why
    Explain(explain::Cmd),
    /// Show objects
    Get(get::Cmd),
    /// Install the mesh into a cluster
    Install(install::Cmd),
    /// Print or compare the objects of an installation
    #[command(visible_alias = "m")]
    Manifest(manifest::Cmd),
    /// Show the starting points of installations
    Profile(profile::Cmd),
    /// Put proxies into the pods of manifests
    #[command(name = "kube-inject")]
    KubeInject(kube_inject::Cmd),
    /// Take the mesh out of a cluster
    Uninstall(uninstall::Cmd),
    /// Install another version in the place of the one that is there
    Upgrade(upgrade::Cmd),
    /// Give revisions names, which namespaces follow
    Tag(tag::Cmd),
    /// Write the labs' manifests and scripts into a folder
    Samples(samples::Cmd),
    /// Send requests and report, with fortio's flags
    Load(load::Cmd),
    /// What the program fortio does: load, curl, server, version
    #[command(hide = true)]
    Fortio(fortio::Cmd),
    /// Show what a proxy was given
    ///
    /// A group of commands used to retrieve information about proxy configuration from the Envoy config dump.
    #[command(name = "proxy-config", visible_alias = "pc")]
    ProxyConfig(proxy_config::Cmd),
    /// Show how far each proxy follows the control plane, and what it refuses
    #[command(name = "proxy-status", visible_alias = "ps")]
    ProxyStatus(proxy_status::Cmd),
    /// Run the data-plane proxy
    Proxy(proxy::Cmd),
    /// Check manifests, without a cluster
    #[command(visible_alias = "v")]
    Validate(validate::Cmd),
    /// Print the version
    Version(version::Cmd),
    /// Experimental commands, and what is for looking inside
    #[command(name = "experimental", visible_alias = "x", alias = "exp")]
    Experimental(experimental::Cmd),
    /// Run the embedded Kubernetes API alone
    #[command(hide = true)]
    Apiserver(apiserver::Cmd),
    /// Run the control plane
    Discovery(Box<discovery::Cmd>),
    /// Wait until the proxy of this pod is ready
    #[command(hide = true)]
    Wait(wait::Cmd),
    /// Ask the admin interface of this pod's proxy (pilot-agent)
    #[command(hide = true)]
    Request(request::Cmd),
    /// Run a built-in sample application
    #[command(hide = true)]
    App(app::Cmd),
}

impl Command {
    /// Whether it prints an answer and ends, so that it may end when nobody reads on.
    pub(crate) fn only_prints(&self) -> bool {
        if let Self::Manifest(cmd) = self {
            return cmd.only_prints();
        }
        matches!(
            self,
            Self::Env(_)
                | Self::Logs(_)
                | Self::Explain(_)
                | Self::Get(_)
                | Self::Profile(_)
                | Self::KubeInject(_)
                | Self::ProxyConfig(_)
                | Self::Request(_)
                | Self::ProxyStatus(_)
                | Self::Validate(_)
                | Self::Version(_)
        ) || matches!(self, Self::Experimental(cmd) if cmd.only_prints())
    }

    /// Runs it.
    pub(crate) fn run(self, globals: &Globals) -> Outcome {
        match self {
            Self::Demo(cmd) => cmd.run(globals),
            Self::Up(cmd) => cmd.run(globals),
            Self::Down(cmd) => cmd.run(globals),
            Self::Env(cmd) => cmd.run(globals),
            Self::Exec(cmd) => cmd.run(globals),
            Self::Logs(cmd) => cmd.run(globals),
            Self::Apply(cmd) => cmd.run(globals),
            Self::Delete(cmd) => cmd.run(globals),
            Self::Explain(cmd) => cmd.run(globals),
            Self::Get(cmd) => cmd.run(globals),
            Self::Install(cmd) => cmd.run(globals),
            Self::Manifest(cmd) => cmd.run(globals),
            Self::KubeInject(cmd) => cmd.run(globals),
            Self::Profile(cmd) => cmd.run(globals),
            Self::Uninstall(cmd) => cmd.run(globals),
            Self::Upgrade(cmd) => cmd.run(globals),
            Self::Tag(cmd) => cmd.run(globals),
            Self::Samples(cmd) => cmd.run(globals),
            Self::Load(cmd) => cmd.run(globals),
            Self::Fortio(cmd) => cmd.run(globals),
            Self::ProxyConfig(cmd) => cmd.run(globals),
            Self::ProxyStatus(cmd) => cmd.run(globals),
            Self::Proxy(cmd) => cmd.run(globals),
            Self::Validate(cmd) => cmd.run(globals),
            Self::Version(cmd) => cmd.run(globals),
            Self::Experimental(cmd) => cmd.run(globals),
            Self::Apiserver(cmd) => cmd.run(globals),
            Self::Discovery(cmd) => cmd.run(globals),
            Self::Wait(cmd) => cmd.run(globals),
            Self::Request(cmd) => cmd.run(globals),
            Self::App(cmd) => cmd.run(globals),
        }
    }
}
