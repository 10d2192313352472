//! Istio kinds, mesh configuration and networks: types, defaults, validation, CRDs; one table of kinds.
