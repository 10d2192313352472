//! The report, with fortio's closing lines.

use serde_json::{Value, json};

use super::Options;
use super::run::{Outcome, Sizes};

const PERCENTILES: &[f64] = &[50.0, 75.0, 90.0, 99.0, 99.9];

/// The report as text.
pub(crate) fn text(options: &Options, outcome: &Outcome) -> String {
    let calls: u64 = outcome.codes.values().sum();
    let seconds = outcome.elapsed.as_secs_f64();
    let mut text = String::new();
    for percentile in PERCENTILES {
        let micros = outcome.latency.value_at_percentile(*percentile);
        text += &format!("# target {percentile}% {:.6}\n", micros as f64 / 1e6);
    }
    text += &format!(
        "Sockets used: {} (for perfect keepalive, would be {})\n",
        outcome.sockets, options.connections
    );
    text += "Jitter: false\n";
    for (code, count) in &outcome.codes {
        text += &format!("Code {code:>3} : {count} ({:.1} %)\n", 100.0 * *count as f64 / calls.max(1) as f64);
    }
    text += &format!("Response Header Sizes : {}\n", sizes(&outcome.heads));
    text += &format!("Response Body/Total Sizes : {}\n", sizes(&outcome.sizes));
    text += &format!(
        "All done {calls} calls (plus 0 warmup) {:.3} ms avg, {:.1} qps\n",
        outcome.latency.mean() / 1000.0,
        calls as f64 / seconds.max(1e-9)
    );
    text
}

fn sizes(sizes: &Sizes) -> String {
    let count = sizes.count.max(1) as f64;
    let mean = sizes.sum as f64 / count;
    let deviation = (sizes.squares / count - mean * mean).max(0.0).sqrt();
    format!(
        "count {} avg {} +/- {} min {} max {} sum {}",
        sizes.count,
        significant(mean, 8),
        significant(deviation, 4),
        sizes.min,
        sizes.max,
        sizes.sum
    )
}

/// A number of at least 0 with so many significant digits and no zeros at the end (Go's `%.8g`).
fn significant(number: f64, digits: usize) -> String {
    let magnitude = if number > 0.0 { number.log10().floor() } else { 0.0 };
    let decimals = (digits as f64 - 1.0 - magnitude).clamp(0.0, 16.0);
    let text = format!("{number:.*}", decimals as usize);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// The report as JSON, with fortio's names.
pub(crate) fn json(options: &Options, outcome: &Outcome) -> Value {
    let calls: u64 = outcome.codes.values().sum();
    let seconds = outcome.elapsed.as_secs_f64();
    let percentiles: Vec<Value> = PERCENTILES
        .iter()
        .map(|percentile| {
            let micros = outcome.latency.value_at_percentile(*percentile);
            json!({ "Percentile": percentile, "Value": micros as f64 / 1e6 })
        })
        .collect();
    let codes: serde_json::Map<String, Value> =
        outcome.codes.iter().map(|(code, count)| (code.to_string(), json!(count))).collect();
    json!({
        "URL": options.url.to_string(),
        "NumThreads": options.connections,
        "ActualDuration": outcome.elapsed.as_nanos() as u64,
        "ActualQPS": calls as f64 / seconds.max(1e-9),
        "SocketCount": outcome.sockets,
        "RetCodes": codes,
        "DurationHistogram": {
            "Count": calls,
            "Avg": outcome.latency.mean() / 1e6,
            "Min": outcome.latency.min() as f64 / 1e6,
            "Max": outcome.latency.max() as f64 / 1e6,
            "Percentiles": percentiles,
        },
        "Sizes": { "Count": outcome.sizes.count, "Sum": outcome.sizes.sum },
        "HeaderSizes": { "Count": outcome.heads.count, "Sum": outcome.heads.sum },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_as_fortio_writes_them() {
        let line = |all: &[u64]| {
            let mut heads = Sizes::default();
            all.iter().for_each(|size| heads.record(*size));
            sizes(&heads)
        };
        let mixed: Vec<u64> = [230; 5].into_iter().chain([231; 5]).chain([0; 10]).collect();
        assert_eq!(line(&mixed), "count 20 avg 115.25 +/- 115.3 min 0 max 231 sum 2305");
        assert_eq!(line(&[1, 1, 2]), "count 3 avg 1.3333333 +/- 0.4714 min 1 max 2 sum 4");
        assert_eq!(line(&[]), "count 0 avg 0 +/- 0 min 0 max 0 sum 0");
    }
}
