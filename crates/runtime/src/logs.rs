//! Logs in Istio's text form, `TIME<tab>LEVEL<tab>SCOPE<tab>MESSAGE`, or JSON; levels by scope.
//!
//! A scope is a `tracing` target that is named in code (`target: "ads"`). What names none is of the scope `default`, which
//! the text form leaves out, as Istio's does; libraries print under their own name.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

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
    /// Logs are not set up here, so their levels cannot be changed.
    #[error("this process has not set up its logs")]
    NotSetUp,
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
    let levels = Levels::parse(config.levels.as_deref().unwrap_or("default:info"))?;
    let filter = levels.filter()?;
    let builder = tracing_subscriber::fmt().with_writer(io::stderr);
    // The filter comes last: a handle to it has the type of all that came before.
    let (done, reload): (_, Reload) = if config.json {
        let builder = builder.event_format(IstioJson).with_env_filter(filter).with_filter_reloading();
        let handle = builder.reload_handle();
        (builder.try_init(), Box::new(move |filter| handle.reload(filter)))
    } else {
        let builder = builder.event_format(IstioText).with_env_filter(filter).with_filter_reloading();
        let handle = builder.reload_handle();
        (builder.try_init(), Box::new(move |filter| handle.reload(filter)))
    };
    done.map_err(|_| LogError::Twice)?;
    SETUP.set(Setup { levels: Mutex::new(levels), reload }).map_err(|_| LogError::Twice)
}

/// The levels in force; `None` when [`init`] has not set up logs in this process.
pub fn levels() -> Option<Levels> {
    Some(lock(&SETUP.get()?.levels).clone())
}

/// Changes the levels of the running process.
///
/// # Errors
/// When logs were not set up by [`init`].
pub fn set_levels(levels: Levels) -> Result<(), LogError> {
    let setup = SETUP.get().ok_or(LogError::NotSetUp)?;
    let mut known = lock(&setup.levels);
    (setup.reload)(levels.filter()?).map_err(|_| LogError::NotSetUp)?;
    *known = levels;
    Ok(())
}

/// What [`init`] set up.
struct Setup {
    levels: Mutex<Levels>,
    reload: Reload,
}

type Reload = Box<dyn Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error> + Send + Sync>;

static SETUP: OnceLock<Setup> = OnceLock::new();

fn lock(levels: &Mutex<Levels>) -> MutexGuard<'_, Levels> {
    levels.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Nothing.
    Off,
    /// Errors.
    Error,
    /// And warnings.
    Warning,
    /// And what happens.
    Info,
    /// And why.
    Debug,
    /// And every step.
    Trace,
}

impl Verbosity {
    /// Reads Istio's and Envoy's names: `none` and `off`, `fatal`, `critical` and `error`, `warn` and `warning`, `info`,
    /// `debug`, `trace`.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "none" | "off" => Self::Off,
            "fatal" | "critical" | "error" => Self::Error,
            "warn" | "warning" => Self::Warning,
            "info" => Self::Info,
            "debug" => Self::Debug,
            "trace" => Self::Trace,
            _ => return None,
        })
    }

    /// Envoy's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    fn directive(self) -> &'static str {
        match self {
            Self::Warning => "warn",
            other => other.name(),
        }
    }
}

/// Levels by scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Levels {
    /// Scopes that are not named.
    pub default: Verbosity,
    /// Whether the default holds for the libraries underneath, too; they stay at warnings otherwise.
    pub libraries: bool,
    /// Scopes by name.
    pub scopes: BTreeMap<String, Verbosity>,
}

impl Levels {
    /// Reads Istio's `scope:level,...`; `default` is every scope that is not named, `all` the libraries with them.
    ///
    /// # Errors
    /// Names a level that does not exist.
    pub fn parse(text: &str) -> Result<Self, LogError> {
        let bad = |reason: String| LogError::Levels { text: text.to_owned(), reason };
        let mut out = Self { default: Verbosity::Info, libraries: false, scopes: BTreeMap::new() };
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (scope, level) = part.split_once(':').unwrap_or(("default", part));
            let level = Verbosity::parse(level).ok_or_else(|| bad(format!("unknown level {level:?}")))?;
            match scope {
                "default" | "all" => (out.default, out.libraries) = (level, scope == "all"),
                scope => drop(out.scopes.insert(scope.to_owned(), level)),
            }
        }
        out.filter().map_err(|error| bad(error.to_string()))?;
        Ok(out)
    }

    /// The level of a scope.
    pub fn of(&self, scope: &str) -> Verbosity {
        self.scopes.get(scope).copied().unwrap_or(self.default)
    }

    fn filter(&self) -> Result<EnvFilter, LogError> {
        let mut directives = vec![self.default.directive().to_owned()];
        if !self.libraries && self.default > Verbosity::Warning {
            directives.extend(LIBRARIES.iter().map(|library| format!("{library}=warn")));
        }
        directives.extend(self.scopes.iter().map(|(scope, level)| format!("{scope}={}", level.directive())));
        let text = directives.join(",");
        EnvFilter::try_new(&text).map_err(|error| LogError::Levels { reason: error.to_string(), text })
    }
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
        write!(out, "{}\t{}\t", now(), level(*meta.level()))?;
        if let Some(scope) = scope(meta.target()) {
            write!(out, "{scope}\t")?;
        }
        let mut line = Line::default();
        event.record(&mut line);
        write!(out, "{}", line.message)?;
        for (name, value) in &line.fields {
            write!(out, "\t{name}={value}")?;
        }
        writeln!(out)
    }
}

/// The JSON form, with Istio's names of fields.
struct IstioJson;

impl<S, N> FormatEvent<S, N> for IstioJson
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let meta = event.metadata();
        let mut object = Members::default();
        object.add("level", level(*meta.level()));
        object.add("time", &now());
        object.add("scope", scope(meta.target()).unwrap_or("default"));
        let mut line = Line::default();
        event.record(&mut line);
        object.add("msg", &line.message);
        for (name, value) in &line.fields {
            object.add(name, value);
        }
        writeln!(out, "{{{}}}", object.0)
    }
}

/// Members of a JSON object.
#[derive(Default)]
struct Members(String);

impl Members {
    fn add(&mut self, name: &str, value: &str) {
        let comma = if self.0.is_empty() { "" } else { "," };
        // Text always has a JSON form.
        let json = |text: &str| serde_json::Value::from(text).to_string();
        self.0.push_str(&format!("{comma}{}:{}", json(name), json(value)));
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

/// The time, in microseconds.
fn now() -> String {
    let now = time::OffsetDateTime::now_utc();
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        now.year(),
        u8::from(now.month()),
        now.day(),
        now.hour(),
        now.minute(),
        now.second(),
        now.microsecond()
    )
}

/// The scope that is printed; none for our own code that names none.
fn scope(target: &str) -> Option<&str> {
    let ours = target == "default" || target == "lateen" || target.starts_with("lateen_");
    (!ours && !target.starts_with("lateen::")).then_some(target)
}

/// A number of bytes as Istio writes it: `578B`, `4.0kB`, `1.2MB`.
pub fn size(bytes: usize) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes}B");
    }
    let (mut rest, mut unit) = (bytes as f64 / 1000.0, 0);
    while rest >= 1000.0 && unit + 1 < UNITS.len() {
        (rest, unit) = (rest / 1000.0, unit + 1);
    }
    format!("{rest:.1}{}", UNITS[unit])
}

#[derive(Default)]
struct Line {
    message: String,
    fields: Vec<(&'static str, String)>,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.to_owned());
    }
}

impl Line {
    fn take(&mut self, field: &Field, text: String) {
        match field.name() {
            "message" => self.message.push_str(&text),
            name => self.fields.push((name, text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_istios() {
        let levels = Levels::parse("default:info,ads:debug").unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((levels.of("ads"), levels.of("other")), (Verbosity::Debug, Verbosity::Info));
        assert_eq!(Levels::parse("debug").map(|levels| levels.default).ok(), Some(Verbosity::Debug));
        assert_eq!(Levels::parse("all:none").map(|levels| levels.libraries).ok(), Some(true));
        let error = Levels::parse("ads:loud").map(|_| ()).map_err(|e| e.to_string());
        assert!(error.is_err_and(|text| text.contains("loud")));
    }

    #[test]
    fn only_named_scopes_are_printed() {
        assert_eq!(scope("lateen_control::push::queue"), None);
        assert_eq!(scope("ads"), Some("ads"));
        assert_eq!(scope("default"), None);
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, want) in [(999, "999B"), (4000, "4.0kB"), (1_250_000, "1.2MB")] {
            assert_eq!(size(bytes), want);
        }
    }

    /// What is logged by `log` in one form.
    fn logged<F>(form: F, log: impl FnOnce()) -> String
    where
        F: FormatEvent<tracing_subscriber::Registry, tracing_subscriber::fmt::format::DefaultFields>
            + Send
            + Sync
            + 'static,
    {
        use tracing_subscriber::layer::SubscriberExt as _;

        #[derive(Clone, Default)]
        struct Kept(std::sync::Arc<Mutex<Vec<u8>>>);
        impl io::Write for Kept {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = tracing_subscriber::fmt::layer().event_format(form).with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let bytes = kept.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[test]
    fn the_text_form_is_istios() {
        let text = logged(IstioText, || {
            tracing::info!(target: "cache", ttl = "23h", "returned workload certificate from cache");
            tracing::warn!("Envoy proxy is ready");
        });
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').skip(1).collect()).collect();
        assert_eq!(lines[0], ["info", "cache", "returned workload certificate from cache", "ttl=23h"]);
        assert_eq!(lines[1], ["warn", "Envoy proxy is ready"]);
        assert!(text.starts_with("20") && text.contains("Z\tinfo"), "{text}");
    }

    #[test]
    fn the_json_form_has_istios_fields() {
        let text = logged(IstioJson, || tracing::error!(target: "ads", node = 7, "a \"quoted\" word"));
        let line: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let of = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        assert_eq!((of("level"), of("scope"), of("node")), ("error".into(), "ads".into(), "7".into()));
        assert_eq!(of("msg"), "a \"quoted\" word");
        assert!(of("time").ends_with('Z'));
    }
}
