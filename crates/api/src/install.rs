//! `IstioOperator`: what an installation shall be, as `lateen install -f` and `--set` take it.
//!
//! A specification is put together from layers ([`layer`]): a profile, files, `--set` flags ([`SetPath`]), each overlaid
//! on the one before. [`IstioOperator::read`] then types it, and refuses what it does not know by its path. Source of
//! names and meanings: Istio's `operator/v1alpha1` API and its charts' values.

pub mod layer;
mod operator;
mod path;
#[cfg(test)]
mod tests;
mod values;

pub use operator::{
    ComponentSpec, Components, GatewaySpec, IstioOperator, IstioOperatorSpec, K8sObjectOverlay,
    KubernetesResources, PathValue,
};
pub use path::{PathError, SetPath};
pub use values::{default_values, lookup};
