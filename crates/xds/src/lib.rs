//! The aggregated discovery protocol: one state machine, client and server; gRPC adapters beside it.
