//! Speed against stock Envoy.
fn main() {}
