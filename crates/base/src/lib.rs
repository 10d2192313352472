//! The words of the mesh: hosts, namespaces, labels, identities, localities, durations, regular expressions, the clock.
//!
//! Everything here is a value: cheap to clone, ordered, hashable, with one textual form that is Istio's.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod clock;
mod duration;
mod host;
mod labels;
mod locality;
mod names;
pub mod re2;
mod spiffe;

pub use clock::{Clock, FakeClock, SystemClock};
pub use duration::{DurationError, format_duration, parse_duration};
pub use host::Host;
pub use labels::Labels;
pub use locality::Locality;
pub use names::{ClusterId, Namespace, Network, ObjectRef};
pub use spiffe::{SpiffeError, SpiffeId};
