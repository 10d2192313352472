//! Start-up, readiness, drain, shutdown, logs, the admin-server skeleton.
