//! Secrets: certificates and authorities.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use super::dump::{Dump, without_type};
use super::{items, row, text};
use crate::commands::CliError;

/// The section of secrets, as the proxy dumps it.
///
/// # Errors
/// When the dump has none.
pub(crate) fn select(dump: &Dump) -> Result<Value, CliError> {
    let sections = dump.sections("SecretsConfigDump")?;
    let mut section = sections.first().map(|section| without_type(section)).unwrap_or_default();
    for list in ["dynamicActiveSecrets", "dynamicWarmingSecrets"] {
        if let Some(list) = section.get_mut(list).and_then(Value::as_array_mut) {
            list.sort_by_key(|entry| place(&entry["secret"]));
        }
    }
    Ok(section)
}

/// Scripts take a proxy's own certificate and its root by their place in the list.
fn place(secret: &Value) -> usize {
    match secret["name"].as_str() {
        Some("default") => 0,
        Some("ROOTCA") => 1,
        _ => 2,
    }
}

/// The table of secrets.
pub(crate) fn table(section: &Value, now: i64) -> Vec<Vec<String>> {
    let head = ["RESOURCE NAME", "TYPE", "STATUS", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE"];
    let mut rows = vec![row(head)];
    for (list, status) in [
        ("/dynamicActiveSecrets", "ACTIVE"),
        ("/dynamicWarmingSecrets", "WARMING"),
        ("/staticSecrets", "ACTIVE"),
    ] {
        for entry in items(section, list) {
            let secret = &entry["secret"];
            let name =
                [text(entry, "/name"), text(secret, "/name")].into_iter().find(|name| !name.is_empty());
            let name = name.unwrap_or_default();
            let (kind, data) = match secret.get("validationContext") {
                Some(context) => ("CA", &context["trustedCa"]),
                None => ("Cert Chain", &secret["tlsCertificate"]["certificateChain"]),
            };
            match certificate(data) {
                Some(found) => {
                    let valid = found.not_before <= now && now <= found.not_after;
                    let (after, before) = (time(found.not_after), time(found.not_before));
                    rows.push(row([name, kind, status, &valid.to_string(), &found.serial, &after, &before]));
                }
                None => rows.push(row([name, kind, status, "false", "", "", ""])),
            }
        }
    }
    rows
}

struct Certificate {
    serial: String,
    not_after: i64,
    not_before: i64,
}

/// The first certificate of a PEM in a secret.
fn certificate(data: &Value) -> Option<Certificate> {
    let pem = match (text(data, "/inlineBytes"), text(data, "/inlineString")) {
        ("", "") => return None,
        ("", string) => string.as_bytes().to_vec(),
        (bytes, _) => STANDARD.decode(bytes).ok()?,
    };
    let first = Pem::iter_from_buffer(&pem).next()?.ok()?;
    let (_, found) = X509Certificate::from_der(&first.contents).ok()?;
    let serial: String = found.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
    let validity = found.validity();
    Some(Certificate {
        serial: serial.trim_start_matches("00").to_owned(),
        not_after: validity.not_after.timestamp(),
        not_before: validity.not_before.timestamp(),
    })
}

/// A time as RFC 3339 writes it.
fn time(seconds: i64) -> String {
    let Ok(time) = ASN1Time::from_timestamp(seconds) else { return String::new() };
    let date = time.to_datetime();
    let (year, month, day) = date.to_calendar_date();
    let (hour, minute, second) = date.to_hms();
    format!("{year:04}-{:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z", u8::from(month))
}
