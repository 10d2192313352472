//! What of the corpora is not compared.

/// Cases of injection that are not compared, and why.
pub(crate) const LEFT_OUT: &[(&str, &str)] =
    &[("060-hello-openshift.yaml", OPENSHIFT), ("061-hello-openshift-custom-injection.yaml", OPENSHIFT)];

/// The proxy's user is the first of a range that OpenShift writes on the pod's namespace. An injected pod of ours runs
/// its proxy as 1337 everywhere, which OpenShift takes with its policy `anyuid`; an injector that looks at namespaces
/// would need to read them all.
const OPENSHIFT: &str = "the proxy's user is not taken from the range of an OpenShift namespace";
