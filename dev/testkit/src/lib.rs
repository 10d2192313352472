//! Fakes and harnesses for tests: stock Envoy, an ADS client, certificates, an echo server.
