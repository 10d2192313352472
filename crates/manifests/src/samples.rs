//! The sample applications' manifests, as the folder `samples` of the repository has them.

/// Bookinfo's services, accounts and deployments.
pub const BOOKINFO: &str = include_str!("../../../samples/bookinfo/platform/kube/bookinfo.yaml");
/// The gateway and virtual service that let the world in to Bookinfo.
pub const BOOKINFO_GATEWAY: &str = include_str!("../../../samples/bookinfo/networking/bookinfo-gateway.yaml");
/// Bookinfo's destination rules, one subset per version.
pub const BOOKINFO_DESTINATION_RULES: &str =
    include_str!("../../../samples/bookinfo/networking/destination-rule-all.yaml");
