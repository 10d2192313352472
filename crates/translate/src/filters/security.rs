//! Who may connect and ask: AuthorizationPolicy and RequestAuthentication as filters.

pub(crate) mod condition;
mod ext_authz;
mod jwt;
mod patterns;
mod policy;
mod trust_domains;

pub(crate) use policy::security;
