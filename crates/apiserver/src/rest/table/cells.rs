//! How values look in cells.

use serde_json::Value;

/// The time since an RFC 3339 time, as kubectl writes it: `5s`, `3m12s`, `4h`, `12d`.
pub(super) fn age(at: &str) -> String {
    let parsed = time::OffsetDateTime::parse(at, &time::format_description::well_known::Rfc3339);
    match parsed {
        Ok(at) => duration((time::OffsetDateTime::now_utc() - at).whole_seconds()),
        Err(_) => "<unknown>".into(),
    }
}

/// Seconds as kubectl writes them.
pub(super) fn duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let with = |big: i64, unit: &str, rest: i64, small: &str| match rest {
        0 => format!("{big}{unit}"),
        rest => format!("{big}{unit}{rest}{small}"),
    };
    match seconds {
        s if s < -1 => "<invalid>".into(),
        s if s < 0 => "0s".into(),
        s if s < 120 => format!("{s}s"),
        s if minutes < 10 => with(minutes, "m", s % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => with(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => with(days, "d", hours % 24, "h"),
        _ if days < 730 => format!("{days}d"),
        _ if days < 2920 => with(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// A value of any type in a cell of text: strings bare, everything else as JSON.
pub(super) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Text, or a word for nothing.
pub(super) fn or(value: &Value, nothing: &str) -> String {
    value.as_str().filter(|t| !t.is_empty()).unwrap_or(nothing).to_owned()
}

/// The items of a list.
pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Joined, or `<none>`.
pub(super) fn join(words: impl IntoIterator<Item = String>) -> String {
    let words: Vec<String> = words.into_iter().collect();
    if words.is_empty() { "<none>".into() } else { words.join(",") }
}

/// A map of labels as text, or `<none>`.
pub(super) fn labels(value: &Value) -> String {
    join(value.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", text(value))))
}

/// A LabelSelector as text.
pub(super) fn selector(value: &Value) -> String {
    let mut words: Vec<String> = value["matchLabels"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", text(v)))
        .collect();
    for expression in list(&value["matchExpressions"]) {
        let key = or(&expression["key"], "");
        let values = list(&expression["values"]).iter().map(text).collect::<Vec<_>>().join(",");
        words.push(match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("DoesNotExist") => format!("!{key}"),
            _ => key,
        });
    }
    join(words)
}

#[cfg(test)]
mod tests {
    #[test]
    fn durations_look_like_kubectls() {
        let cases = [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (599, "9m59s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (30_000, "8h"),
            (200_000, "2d7h"),
            (864_000, "10d"),
            (-5, "<invalid>"),
        ];
        for (seconds, text) in cases {
            assert_eq!(super::duration(seconds), text, "{seconds}");
        }
    }
}
