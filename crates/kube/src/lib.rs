//! The only package on kube-rs: typed watches, leases, token review.
