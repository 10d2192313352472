//! `/certs`: certificates in use.

use std::time::{SystemTime, UNIX_EPOCH};

use lateen_ca::tls::PeerCertificate;
use serde_json::{Value, json};

use crate::store::{Store, describe_secret};

/// As Envoy's `Certificates` message.
pub(super) fn json(store: &Store) -> Value {
    let mut certificates = Vec::new();
    for entry in store.secrets.values() {
        let Some((is_chain, described)) = describe_secret(&entry.secret) else { continue };
        let details: Vec<Value> = described.iter().map(detail).collect();
        let member = if is_chain { "cert_chain" } else { "ca_cert" };
        certificates.push(json!({member: details}));
    }
    json!({"certificates": certificates})
}

fn detail(certificate: &PeerCertificate) -> Value {
    let names: Vec<Value> = certificate
        .uris
        .iter()
        .map(|uri| json!({"uri": uri}))
        .chain(certificate.dns_names.iter().map(|dns| json!({"dns": dns})))
        .collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    json!({
        "path": "<inline>",
        "serial_number": certificate.serial,
        "subject_alt_names": names,
        "days_until_expiration": ((certificate.not_after - now) / 86_400).max(0).to_string(),
        "valid_from": date(certificate.not_before),
        "expiration_time": date(certificate.not_after),
    })
}

fn date(seconds: i64) -> String {
    let seconds = u64::try_from(seconds).unwrap_or(0);
    let text = super::timestamp(UNIX_EPOCH + std::time::Duration::from_secs(seconds));
    text.replace(".000Z", "Z")
}
