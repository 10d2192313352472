//! Istio kinds, mesh configuration and networks: types, defaults, validation, CRDs; one table of kinds.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod admission;
pub mod crd;
pub mod field;
mod grpc_status;
pub mod install;
pub mod kinds;
mod manifest;
pub mod mesh;
mod object;
pub mod validate;

pub use crd::{crd, crds};
pub use field::{FieldError, FieldErrors};
pub use grpc_status::grpc_status;
pub use kinds::{Column, KINDS, Kind, KindInfo, Spec};
pub use manifest::{Document, parse_yaml, value as yaml_value};
pub use object::{Object, ObjectError, Origin, parse_json, reference_of};
pub use validate::{Problem, Severity, validate};
