//! The control plane: sources to registry to translation to discovery; webhooks, status, debug endpoints.
