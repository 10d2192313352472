//! Metrics, access-log formats, trace context.
