//! Envoy's admin interface, as far as tests read it. It fits our proxy's admin, too.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

use super::EnvoyError;

/// An admin interface.
#[derive(Clone, Copy, Debug)]
pub struct Admin {
    address: SocketAddr,
}

impl Admin {
    /// The admin at an address.
    pub fn at(address: SocketAddr) -> Self {
        Self { address }
    }

    pub(super) fn nowhere() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The body of a page.
    ///
    /// # Errors
    /// When it cannot be reached or answers with another status than 200.
    pub fn get(&self, path: &str) -> Result<String, EnvoyError> {
        self.request("GET", path)
    }

    /// Posts to a page that changes something.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn post(&self, path: &str) -> Result<String, EnvoyError> {
        self.request("POST", path)
    }

    /// A page as JSON, as `/config_dump?include_eds`.
    ///
    /// # Errors
    /// As [`Self::get`], and when it is no JSON.
    pub fn json(&self, path: &str) -> Result<Value, EnvoyError> {
        let text = self.get(path)?;
        serde_json::from_str(&text).map_err(|error| EnvoyError::Admin(format!("{path}: {error}")))
    }

    /// A counter or gauge of `/stats`; 0 when it does not exist.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn stat(&self, name: &str) -> Result<u64, EnvoyError> {
        let text = self.get("/stats?format=text")?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Ok(line.and_then(|value| value.trim().parse().ok()).unwrap_or(0))
    }

    /// Resources that it rejected, by their update's error: empty when all is well.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn rejected(&self) -> Result<Vec<String>, EnvoyError> {
        let mut out = Vec::new();
        collect_errors(&self.json("/config_dump")?, &mut out);
        Ok(out)
    }

    fn request(&self, method: &str, path: &str) -> Result<String, EnvoyError> {
        let bad = |what: String| EnvoyError::Admin(format!("{path}: {what}"));
        let bytes = self.exchange(method, path).map_err(|error| bad(error.to_string()))?;
        let end =
            bytes.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(|| bad("no whole answer".into()))?;
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let body = &bytes[end + 4..];
        let body = match head.contains("transfer-encoding: chunked") {
            true => unchunk(body).ok_or_else(|| bad("no whole chunk".into()))?,
            false => body.to_vec(),
        };
        let body = String::from_utf8_lossy(&body).into_owned();
        match head.split(' ').nth(1) {
            Some("200") => Ok(body),
            _ => Err(bad(format!("{}: {body}", head.lines().next().unwrap_or_default()))),
        }
    }

    fn exchange(&self, method: &str, path: &str) -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(10))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        )?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// A body out of its chunks.
fn unchunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let end = bytes.windows(2).position(|w| w == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).ok()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(out);
        }
        out.extend_from_slice(bytes.get(end + 2..end + 2 + size)?);
        bytes = bytes.get(end + size + 4..)?;
    }
}

fn collect_errors(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(error) = fields.get("error_state") {
                let name = fields.get("name").and_then(Value::as_str).unwrap_or("?");
                out.push(format!("{name}: {}", error["details"].as_str().unwrap_or_default()));
            }
            fields.values().for_each(|field| collect_errors(field, out));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_errors(item, out)),
        _ => {}
    }
}
