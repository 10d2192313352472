//! Durations and points in time.

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

use super::value::Val;
use super::{Fault, error};

type Done<'a> = Option<Result<Val<'a>, Fault>>;

/// `1h30m`, `250ms`, `-5s`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (negative, plain) = match text.strip_prefix('-') {
        Some(plain) => (true, plain),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let parsed = lateen_base::parse_duration(plain).map_err(|error| error.to_string())?;
    let duration = Duration::try_from(parsed).map_err(|error| error.to_string())?;
    Ok(if negative { -duration } else { duration })
}

/// As protobuf writes it: seconds.
pub(super) fn duration_text(duration: Duration) -> String {
    let sign = if duration.is_negative() { "-" } else { "" };
    format!("{sign}{}", lateen_base::format_duration(duration.unsigned_abs()))
}

pub(super) fn global<'a>(name: &str, args: &[Val<'a>]) -> Done<'a> {
    Some(match (name, args) {
        ("duration", [Val::Duration(duration)]) => Ok(Val::Duration(*duration)),
        ("duration", [Val::Text(text)]) => parse_duration(text).map(Val::Duration).map_err(Fault::Error),
        ("timestamp", [Val::Time(at)]) => Ok(Val::Time(*at)),
        ("timestamp", [Val::Int(seconds)]) => match OffsetDateTime::from_unix_timestamp(*seconds) {
            Ok(at) => Ok(Val::Time(at)),
            Err(_) => error("timestamp overflow"),
        },
        ("timestamp", [Val::Text(text)]) => match OffsetDateTime::parse(text, &Rfc3339) {
            Ok(at) => Ok(Val::Time(at)),
            Err(_) => error(format!("{text:?} is no timestamp")),
        },
        _ => return None,
    })
}

pub(super) fn of_time<'a>(name: &str, at: OffsetDateTime) -> Done<'a> {
    let at = at.to_offset(time::UtcOffset::UTC);
    Some(Ok(Val::Int(match name {
        "getFullYear" => i64::from(at.year()),
        "getMonth" => i64::from(u8::from(at.month())) - 1,
        "getDate" => i64::from(at.day()),
        "getDayOfMonth" => i64::from(at.day()) - 1,
        "getDayOfWeek" => i64::from(at.weekday().number_days_from_sunday()),
        "getDayOfYear" => i64::from(at.ordinal()) - 1,
        "getHours" => i64::from(at.hour()),
        "getMinutes" => i64::from(at.minute()),
        "getSeconds" => i64::from(at.second()),
        "getMilliseconds" => i64::from(at.millisecond()),
        _ => return None,
    })))
}

pub(super) fn of_duration<'a>(name: &str, duration: Duration) -> Done<'a> {
    Some(Ok(Val::Int(match name {
        "getHours" => duration.whole_hours(),
        "getMinutes" => duration.whole_minutes(),
        "getSeconds" => duration.whole_seconds(),
        "getMilliseconds" => i64::from(duration.subsec_milliseconds()),
        _ => return None,
    })))
}
