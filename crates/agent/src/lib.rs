//! Beside each proxy: bootstrap, certificates, discovery forwarding, health ports.
