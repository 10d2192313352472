//! `ProxyConfig`: settings of the proxies of a namespace or workload.

use std::collections::BTreeMap;

use super::selector::LabelSelector;
use crate::field::message;

message! {
    /// Settings of proxies. See https://istio.io/docs/reference/config/networking/proxy-config/.
    pub struct ProxyConfig {
        /// The workloads it is for; all of the namespace when absent.
        selector: Option<LabelSelector>,
        /// Worker threads; zero means one per core.
        concurrency: Option<i32> [Min(0), Nullable],
        /// Further environment variables.
        environment_variables: BTreeMap<String, String> [Each(&[MaxLength(2048)])],
        /// The image.
        image: Option<ProxyImage>,
    }
}

message! {
    /// The image of a proxy.
    pub struct ProxyImage {
        /// Its type: default, debug or distroless.
        image_type: String,
    }
}
