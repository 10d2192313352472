//! Times as text, in Envoy's letters.

use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderValue;

/// Dates as text, made once a second.
#[derive(Debug, Default)]
pub(crate) struct DateCache {
    second: u64,
    iso: Vec<u8>,
    http: Option<(u64, HeaderValue)>,
}

impl DateCache {
    /// `2026-11-21T13:30:00.123Z`
    pub(crate) fn write_iso(&mut self, at: SystemTime, out: &mut Vec<u8>) {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != since.as_secs() || self.iso.is_empty() {
            self.second = since.as_secs();
            self.iso.clear();
            write_time(at, "%Y-%m-%dT%H:%M:%S.", &mut self.iso);
        }
        out.extend_from_slice(&self.iso);
        let millis = since.subsec_millis();
        out.extend_from_slice(&[digit(millis / 100), digit(millis / 10), digit(millis), b'Z']);
    }

    /// The `date` header for now.
    pub(crate) fn http(&mut self) -> HeaderValue {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if let Some((at, value)) = &self.http
            && *at == second
        {
            return value.clone();
        }
        let text = httpdate::fmt_http_date(now);
        let value = HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""));
        self.http = Some((second, value.clone()));
        value
    }
}

fn digit(n: u32) -> u8 {
    b'0' + u8::try_from(n % 10).unwrap_or_default()
}

/// Writes a time by strftime's letters and Envoy's `%3f`, `%6f`, `%9f`, `%f`, `%s`.
pub(super) fn write_time(at: SystemTime, format: &str, out: &mut Vec<u8>) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (year, month, day) = civil(since.as_secs() / 86_400);
    let (hour, minute, second) =
        ((since.as_secs() / 3600) % 24, (since.as_secs() / 60) % 60, since.as_secs() % 60);
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        // Writing to a Vec cannot fail.
        let _ = match chars.next() {
            Some('Y') => write!(out, "{year:04}"),
            Some('m') => write!(out, "{month:02}"),
            Some('d') => write!(out, "{day:02}"),
            Some('H') => write!(out, "{hour:02}"),
            Some('M') => write!(out, "{minute:02}"),
            Some('S') => write!(out, "{second:02}"),
            Some('T') => write!(out, "{hour:02}:{minute:02}:{second:02}"),
            Some('F') => write!(out, "{year:04}-{month:02}-{day:02}"),
            Some('z') => write!(out, "+0000"),
            Some('Z') => write!(out, "UTC"),
            Some('s') => write!(out, "{}", since.as_secs()),
            Some('f') => write!(out, "{:09}", since.subsec_nanos()),
            Some('%') => write!(out, "%"),
            Some(width @ ('3' | '6' | '9')) if chars.as_str().starts_with('f') => {
                chars.next();
                match width {
                    '3' => write!(out, "{:03}", since.subsec_millis()),
                    '6' => write!(out, "{:06}", since.subsec_micros()),
                    _ => write!(out, "{:09}", since.subsec_nanos()),
                }
            }
            Some(other) => write!(out, "%{other}"),
            None => write!(out, "%"),
        };
    }
}

/// Year, month and day of a day number since 1970, by the proleptic Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_written_as_envoy_does() {
        let at = UNIX_EPOCH + Duration::new(1_763_731_805, 7_000_000);
        let mut out = Vec::new();
        DateCache::default().write_iso(at, &mut out);
        out.push(b' ');
        write_time(at, "%Y/%m/%dT%H:%M:%S%z %s.%3f", &mut out);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "2025-11-21T13:30:05.007Z 2025/11/21T13:30:05+0000 1763731805.007"
        );
        assert_eq!(civil(59), (1970, 3, 1));
        assert_eq!(civil(11_016), (2000, 2, 29));
    }
}
