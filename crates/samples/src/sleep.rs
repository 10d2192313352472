//! sleep: a place to run commands in. It sleeps as long as it is told, or is whatever other program it is told to be.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::{AppError, server};

/// Sleeps, or becomes the program of the command line; without one it sleeps until it is ended.
///
/// # Errors
/// An interval that is none, or a program that the machine does not have.
pub(crate) async fn run(words: &[String]) -> Result<(), AppError> {
    let Some((program, args)) = words.split_first() else { return server::until_terminated().await };
    let name = Path::new(program).file_name().unwrap_or_default();
    if name != "sleep" {
        let error = Command::new(program).args(args).exec();
        return Err(AppError::Setting(format!("exec: \"{program}\": {error}")));
    }
    match interval(args)? {
        None => server::until_terminated().await,
        Some(time) => tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            ended = server::until_terminated() => ended,
        },
    }
}

/// The sum of the intervals, each a number with `s`, `m`, `h`, `d` or none of them; none is forever.
fn interval(words: &[String]) -> Result<Option<Duration>, AppError> {
    if words.is_empty() {
        return Err(AppError::Setting("sleep: missing operand".to_owned()));
    }
    let mut seconds = 0.0;
    for word in words {
        let bad = || AppError::Setting(format!("sleep: invalid time interval '{word}'"));
        let (number, unit) = match word.strip_suffix(['s', 'm', 'h', 'd']) {
            Some(number) => (number, &word[number.len()..]),
            None => (word.as_str(), "s"),
        };
        let number: f64 = number.parse().map_err(|_| bad())?;
        if number.is_nan() || number < 0.0 {
            return Err(bad());
        }
        seconds += number
            * match unit {
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86_400.0,
                _ => 1.0,
            };
    }
    // Longer than a machine lives is forever.
    Ok(Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|time| *time < Duration::from_secs(u64::from(u32::MAX))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Option<u64>, String> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        interval(&words).map(|time| time.map(|time| time.as_secs())).map_err(|error| error.to_string())
    }

    #[test]
    fn intervals_are_those_of_sleep() {
        assert_eq!(of("3650d"), Ok(Some(3650 * 86_400)));
        assert_eq!(of("1m 2.0s 3"), Ok(Some(65)));
        assert_eq!((of("infinity"), of("inf")), (Ok(None), Ok(None)));
        assert_eq!(of("1x"), Err("sleep: invalid time interval '1x'".to_owned()));
        assert!(of("-1").is_err() && of("").is_err() && of("nan").is_err());
    }

    #[tokio::test]
    async fn a_short_sleep_ends_and_an_unknown_program_is_named() {
        run(&["/bin/sleep".to_owned(), "0.01".to_owned()]).await.unwrap();
        let error = run(&["/no/such/program".to_owned()]).await.unwrap_err().to_string();
        assert!(error.contains("/no/such/program"), "{error}");
    }
}
