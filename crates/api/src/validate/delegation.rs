//! Virtual services that refine the routes of another.

use super::Problems;
use super::path::Path;
use crate::kinds::VirtualService;
use crate::kinds::virtual_service::HttpRoute;

/// A virtual service without hosts: HTTP alone, and no gateways, since those are the root's.
pub(super) fn delegate(spec: &VirtualService, at: &Path<'_>, out: &mut Problems) {
    for (field, there, what) in [
        ("gateways", !spec.gateways.is_empty(), "gateways"),
        ("tls", !spec.tls.is_empty(), "tls"),
        ("tcp", !spec.tcp.is_empty(), "tcp"),
    ] {
        out.error_if(
            there,
            &at.field(field),
            format!("delegate virtual service must have no {what} specified"),
        );
    }
}

/// A route that hands over to a delegate: it may say nothing itself about where requests go.
pub(super) fn root(route: &HttpRoute, at: &Path<'_>, out: &mut Problems) {
    let Some(delegate) = &route.delegate else { return };
    out.error_if(delegate.name.is_empty(), &at.field("delegate").field("name"), "delegate name is required");
    for (field, there) in [
        ("route", !route.route.is_empty()),
        ("redirect", route.redirect.is_some()),
        ("directResponse", route.direct_response.is_some()),
    ] {
        let message = format!("root HTTP route {} must not specify both delegate and {field}", route.name);
        out.error_if(there, &at.field(field), message);
    }
}
