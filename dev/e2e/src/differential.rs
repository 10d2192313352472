//! The differential suite: scenarios of Istio configuration and requests, run on our proxy and on stock Envoy.
//!
//! A scenario is text (`scenarios/*.yaml`, the form is told in `scenarios/README.md`). Its objects and its small world go
//! through `translate` into one control plane; our proxy and a stock Envoy take them by delta ADS, and both have to accept
//! them. Then both get the same requests, in front of the same scripted workloads, and what the client saw, what the
//! workloads saw, the access logs and the asked-for figures have to agree, and to be what the scenario says.
//!
//! The modules in the order in which a scenario meets them: `scenario` (the text), `call` (one request's line), `world`
//! (manifests of services and pods), `configuration`, `plane` (control plane), `subject` (a proxy), `workload`,
//! `authorizer` and `behaviour` (upstreams), `authority` and `tokens` (what callers prove themselves by), `client`, `log` and `observe` (what is compared), `judge` (comparison), `run` (lanes).

mod authority;
mod authorizer;
mod behaviour;
mod call;
mod client;
mod configuration;
mod judge;
mod log;
mod names;
mod observe;
mod plane;
mod run;
mod scenario;
mod subject;
mod tcp_client;
mod tokens;
mod workload;
mod world;

pub use run::{Verdict, run_all};
pub use scenario::{File, Scenario, load};

use std::time::Duration;

/// Every wait ends here.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// What goes wrong with the suite itself, or a scenario's text.
pub(crate) type Problem = String;
