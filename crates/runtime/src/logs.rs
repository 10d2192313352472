//! Logs in Istio's text form, `TIME<tab>LEVEL<tab>SCOPE<tab>MESSAGE`, or JSON; levels by scope.
//!
//! A scope is a `tracing` target. Scopes named in code (`target: "ads"`) print as they are; a Rust module path prints
//! as its package's short name.

use std::fmt;
use std::io;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Why the log settings were refused.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level list is malformed.
    #[error("--log_output_level {text:?}: {reason}; write scope:level,..., such as default:info,ads:debug")]
    Levels {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Logs were already set up in this process.
    #[error("logs are already set up in this process")]
    Twice,
}

/// How a process logs.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Istio's `--log_output_level`: `scope:level,...`; `default` is every scope that is not named.
    pub levels: Option<String>,
    /// One JSON object a line instead of text.
    pub json: bool,
}

/// Sets the process's logs up, on standard error.
///
/// # Errors
/// When the levels are malformed, or logs are set up already.
pub fn init(config: &Config) -> Result<(), LogError> {
    let filter = filter(config.levels.as_deref().unwrap_or("default:info"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let done = if config.json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.event_format(IstioText).try_init()
    };
    done.map_err(|_| LogError::Twice)
}

/// `scope:level,...` as a filter. The libraries underneath stay at warnings unless `all` is named.
fn filter(levels: &str) -> Result<EnvFilter, LogError> {
    let bad = |reason: &str| LogError::Levels { text: levels.to_owned(), reason: reason.to_owned() };
    let mut directives = Vec::new();
    for part in levels.split(',').filter(|part| !part.is_empty()) {
        let (scope, level) = part.split_once(':').unwrap_or(("default", part));
        let level = match level.to_ascii_lowercase().as_str() {
            "none" => "off",
            "fatal" | "error" => "error",
            "warn" | "warning" => "warn",
            "info" => "info",
            "debug" => "debug",
            "trace" => "trace",
            other => return Err(bad(&format!("unknown level {other:?}"))),
        };
        match scope {
            "default" | "all" => {
                directives.insert(0, level.to_owned());
                for library in LIBRARIES.iter().filter(|_| scope == "default" && level != "off") {
                    directives.push(format!("{library}=warn"));
                }
            }
            scope => directives.push(format!("{scope}={level}")),
        }
    }
    EnvFilter::try_new(directives.join(",")).map_err(|error| bad(&error.to_string()))
}

const LIBRARIES: &[&str] =
    &["hyper", "hyper_util", "h2", "rustls", "tower", "tonic", "kube", "kube_client", "kube_runtime"];

/// The text form.
struct IstioText;

impl<S, N> FormatEvent<S, N> for IstioText
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let meta = event.metadata();
        let level = match *meta.level() {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG | Level::TRACE => "debug",
        };
        let now = time::OffsetDateTime::now_utc();
        write!(
            out,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z\t{level}\t",
            now.year(),
            u8::from(now.month()),
            now.day(),
            now.hour(),
            now.minute(),
            now.second(),
            now.microsecond()
        )?;
        if let Some(scope) = scope(meta.target()) {
            write!(out, "{scope}\t")?;
        }
        let mut line = Line::default();
        event.record(&mut line);
        writeln!(out, "{}{}", line.message, line.fields)
    }
}

/// `lateen_control::push` prints as `control`; a scope named in code prints as it is.
fn scope(target: &str) -> Option<&str> {
    let scope = target.strip_prefix("lateen_").map_or(target, |path| path.split("::").next().unwrap_or(path));
    (scope != "default" && scope != "lateen").then_some(scope)
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        use fmt::Write as _;
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, "\t{name}={value:?}"),
        };
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            name => self.fields.push_str(&format!("\t{name}={value}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_istios() {
        assert!(filter("default:info,ads:debug").is_ok());
        assert!(filter("debug").is_ok());
        assert!(filter("all:none").is_ok());
        let error = filter("ads:loud").map(|_| ()).map_err(|e| e.to_string());
        assert!(error.is_err_and(|text| text.contains("loud")));
    }

    #[test]
    fn scopes_are_short() {
        assert_eq!(scope("lateen_control::push::queue"), Some("control"));
        assert_eq!(scope("ads"), Some("ads"));
        assert_eq!(scope("default"), None);
    }
}
