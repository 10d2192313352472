//! `lateen proxy-config log`: levels of a proxy's log.

use serde_json::Value;

use super::Shown;
use crate::cluster::{block_on, client};
use crate::commands::CliError;
use crate::globals::Globals;
use crate::pods::ProxyAdmin;

/// Levels, from much to nothing.
const LEVELS: &[&str] = &["trace", "debug", "info", "warning", "error", "critical", "off"];

/// Arguments.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The pod: [TYPE/]NAME[.NAMESPACE]
    #[arg(value_name = "POD")]
    pod: String,
    /// Levels to set, separated by commas: LEVEL for all, or LOGGER:LEVEL
    #[arg(long, value_delimiter = ',')]
    level: Vec<String>,
    /// Output format: short, json or yaml
    #[arg(short, long, default_value = "short")]
    output: String,
    /// Back to the level `warning` for all
    #[arg(long, short)]
    reset: bool,
}

pub(super) fn run(args: &Args, globals: &Globals) -> Result<(), CliError> {
    if !matches!(args.output.as_str(), "short" | "table" | "json" | "yaml") {
        return Err(CliError(format!("output format {:?} not supported: short, json or yaml", args.output)));
    }
    block_on(async {
        let proxy = ProxyAdmin::find(client(globals).await?, &args.pod, globals).await?;
        let mut levels = proxy.text("POST", "/logging").await?;
        let known: Vec<String> =
            levels.lines().filter_map(|line| Some(line.trim().split_once(':')?.0.to_owned())).collect();
        let wanted = if args.reset { vec!["warning".to_owned()] } else { args.level.clone() };
        let changes = wanted.iter().map(|level| change(level, &known)).collect::<Result<Vec<_>, _>>()?;
        for change in changes {
            levels = proxy.text("POST", &format!("/logging?{change}")).await?;
        }
        let short = format!("{}.{}:\n{levels}", proxy.pod().name, proxy.pod().namespace);
        Shown { short, value: by_logger(&levels) }.print(&args.output)
    })
}

/// The level of each logger, for programs.
fn by_logger(levels: &str) -> Value {
    let pairs = levels.lines().filter_map(|line| line.trim().split_once(": "));
    Value::Object(pairs.map(|(logger, level)| (logger.to_owned(), level.into())).collect())
}

/// The query that asks for a level.
fn change(level: &str, known: &[String]) -> Result<String, CliError> {
    let (logger, level) = match level.split_once([':', '=']) {
        Some((logger, level)) => (Some(logger), level),
        None => (None, level),
    };
    if let Some(logger) = logger
        && !known.iter().any(|known| known == logger)
    {
        return Err(CliError(format!("unrecognized logger name: {logger}")));
    }
    if !LEVELS.contains(&level) {
        return Err(CliError(format!("unrecognized logging level: {level}; one of {}", LEVELS.join(", "))));
    }
    Ok(format!("{}={level}", logger.unwrap_or("level")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_told_to_programs() {
        let levels = by_logger("active loggers:\n  admin: warning\n  pool: debug\n");
        assert_eq!(levels, serde_json::json!({"admin": "warning", "pool": "debug"}));
    }

    #[test]
    fn unknown_loggers_and_levels_are_refused() {
        let known = ["admin".to_owned()];
        assert_eq!(change("admin:debug", &known).unwrap(), "admin=debug");
        assert_eq!(change("info", &known).unwrap(), "level=info");
        assert!(change("nobody:debug", &known).is_err() && change("loud", &known).is_err());
    }
}
