//! `/logging`: the levels of the running process, by Envoy's grammar.

use http::StatusCode;
use lateen_runtime::logs::{self, LogError, Verbosity};

use super::Query;

/// The scopes that a proxy logs under.
const SCOPES: [&str; 5] = ["admin", "ads", "config", "connection", "upstream"];

const USAGE: &str = "usage: /logging?<name>=<level> (change single level)\n\
  usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)\n\
  usage: /logging?level=<level> (change all levels)\n\
  levels: trace debug info warning error critical off\n";

/// Why levels are not changed.
#[derive(Debug, thiserror::Error)]
enum Wrong {
    #[error("invalid number of parameters")]
    Parameters,
    #[error("empty logger name or empty logger level")]
    Empty,
    #[error("unknown logger name")]
    Name,
    #[error("unknown logger level")]
    Level,
    #[error(transparent)]
    Logs(#[from] LogError),
}

/// Changes levels as a query says, and lists them all.
pub(super) fn answer(query: &Query) -> (StatusCode, String) {
    match change(query) {
        Ok(()) => (StatusCode::OK, list()),
        Err(wrong @ Wrong::Logs(_)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("error: {wrong}\n")),
        Err(wrong) => (StatusCode::BAD_REQUEST, format!("error: {wrong}\n\n{USAGE}")),
    }
}

fn list() -> String {
    let Some(levels) = logs::levels() else { return "active loggers:\n".to_owned() };
    let mut names: Vec<&str> = SCOPES.to_vec();
    names.extend(levels.scopes.keys().map(String::as_str));
    names.sort_unstable();
    names.dedup();
    let mut out = format!("active loggers:\n  default: {}\n", levels.default.name());
    for name in names {
        out.push_str(&format!("  {name}: {}\n", levels.of(name).name()));
    }
    out
}

fn change(query: &Query) -> Result<(), Wrong> {
    let mut parameters = query.0.iter();
    let Some((name, value)) = parameters.next() else { return Ok(()) };
    if parameters.next().is_some() {
        return Err(Wrong::Parameters);
    }
    let mut levels = logs::levels().ok_or(LogError::NotSetUp)?;
    let level = |text: &str| Verbosity::parse(text).ok_or(Wrong::Level);
    let pairs: Vec<(&str, &str)> = match name.as_str() {
        "level" => {
            levels.default = level(value)?;
            levels.scopes.clear();
            Vec::new()
        }
        "paths" => value.split(',').map(|pair| pair.split_once(':').unwrap_or((pair, ""))).collect(),
        name => vec![(name, value)],
    };
    for (name, text) in pairs {
        match name {
            _ if name.is_empty() || text.is_empty() => return Err(Wrong::Empty),
            "default" => levels.default = level(text)?,
            name if SCOPES.contains(&name) || levels.scopes.contains_key(name) => {
                levels.scopes.insert(name.to_owned(), level(text)?);
            }
            _ => return Err(Wrong::Name),
        }
    }
    Ok(logs::set_levels(levels)?)
}
