//! Results: as a table, as JSON, as a chart.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::bytes::Taken;

/// One measurement of one proxy.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    /// Microseconds of processor time per request, at full load.
    pub(crate) cpu_us_per_request: f64,
    /// Requests a second, at full load.
    pub(crate) requests_per_second: f64,
    /// Median latency at half of Envoy's peak load, in milliseconds.
    pub(crate) p50_ms: f64,
    /// 99th percentile of it.
    pub(crate) p99_ms: f64,
}

/// The rounds of one case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Case {
    /// Its name.
    pub(crate) name: String,
    /// Our rounds.
    pub(crate) ours: Vec<Figures>,
    /// Envoy's.
    pub(crate) envoy: Vec<Figures>,
}

/// Bytes through one proxy.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    /// Megabytes a second.
    pub(crate) mb_per_second: f64,
    /// Seconds of processor time per gigabyte.
    pub(crate) cpu_s_per_gb: f64,
}

impl Rate {
    /// Of what was taken, and the processor time of the proxies meanwhile.
    pub(crate) fn new(taken: Taken, used: Duration) -> Self {
        let bytes = taken.bytes.max(1) as f64;
        Self {
            mb_per_second: bytes / 1e6 / taken.elapsed.as_secs_f64(),
            cpu_s_per_gb: used.as_secs_f64() / (bytes / 1e9),
        }
    }

    fn median(rounds: &[Self]) -> Self {
        Self {
            mb_per_second: middle(rounds, |rate| rate.mb_per_second),
            cpu_s_per_gb: middle(rounds, |rate| rate.cpu_s_per_gb),
        }
    }
}

/// The rounds of one case of bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flow {
    /// Its name.
    pub(crate) name: String,
    /// Our rounds.
    pub(crate) ours: Vec<Rate>,
    /// Envoy's.
    pub(crate) envoy: Vec<Rate>,
}

/// Idle memory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// With so many clusters.
    pub(crate) clusters: usize,
    /// Ours, in MB.
    pub(crate) ours_mb: f64,
    /// Envoy's.
    pub(crate) envoy_mb: f64,
}

/// All results.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// By case.
    pub(crate) cases: Vec<Case>,
    /// Bytes, by case.
    pub(crate) flows: Vec<Flow>,
    /// By number of clusters.
    pub(crate) memory: Vec<Memory>,
}

/// The middle of the rounds' values.
fn middle<T>(rounds: &[T], of: impl Fn(&T) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The median round, figure by figure.
fn median(rounds: &[Figures]) -> Figures {
    Figures {
        cpu_us_per_request: middle(rounds, |f| f.cpu_us_per_request),
        requests_per_second: middle(rounds, |f| f.requests_per_second),
        p50_ms: middle(rounds, |f| f.p50_ms),
        p99_ms: middle(rounds, |f| f.p99_ms),
    }
}

fn ratio(ours: f64, envoy: f64) -> f64 {
    if envoy > 0.0 { (ours / envoy * 1000.0).round() / 1000.0 } else { 0.0 }
}

fn figures(f: Figures) -> Value {
    json!({
        "cpu_us_per_request": (f.cpu_us_per_request * 100.0).round() / 100.0,
        "requests_per_second": f.requests_per_second.round(),
        "p50_ms": f.p50_ms,
        "p99_ms": f.p99_ms,
    })
}

impl Report {
    /// For programs.
    pub(crate) fn json(&self) -> Value {
        let cases: Vec<Value> = self
            .cases
            .iter()
            .map(|case| {
                let (ours, envoy) = (median(&case.ours), median(&case.envoy));
                json!({
                    "name": case.name,
                    "ours": figures(ours),
                    "envoy": figures(envoy),
                    "ratio": {
                        "cpu_per_request": ratio(ours.cpu_us_per_request, envoy.cpu_us_per_request),
                        "requests_per_second": ratio(ours.requests_per_second, envoy.requests_per_second),
                        "p99": ratio(ours.p99_ms, envoy.p99_ms),
                    },
                })
            })
            .collect();
        let memory: Vec<Value> = self
            .memory
            .iter()
            .map(|m| {
                let (ours, envoy) = ((m.ours_mb * 10.0).round() / 10.0, (m.envoy_mb * 10.0).round() / 10.0);
                json!({"clusters": m.clusters, "ours_mb": ours, "envoy_mb": envoy, "ratio": ratio(ours, envoy)})
            })
            .collect();
        let rate = |rate: Rate| {
            json!({
                "mb_per_second": rate.mb_per_second.round(),
                "cpu_s_per_gb": (rate.cpu_s_per_gb * 1000.0).round() / 1000.0,
            })
        };
        let flows = self.flows.iter().map(|flow| {
            let (ours, envoy) = (Rate::median(&flow.ours), Rate::median(&flow.envoy));
            json!({
                "name": flow.name,
                "ours": rate(ours),
                "envoy": rate(envoy),
                "ratio": {
                    "mb_per_second": ratio(ours.mb_per_second, envoy.mb_per_second),
                    "cpu_s_per_gb": ratio(ours.cpu_s_per_gb, envoy.cpu_s_per_gb),
                },
            })
        });
        let flows: Vec<Value> = flows.collect();
        json!({"cases": cases, "flows": flows, "memory": memory})
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut out = String::new();
        for [a, b, c, d, e] in self.rows() {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{a:<8} {b:<22} {c:>12} {d:>12} {e:>8}");
        }
        out
    }

    /// For pages.
    pub(crate) fn markdown(&self) -> String {
        let mut rows = self.rows().into_iter();
        let mut out = String::new();
        if let Some(titles) = rows.next() {
            let _ = writeln!(out, "| {} |\n|---|---|---:|---:|---:|", titles.join(" | ").to_lowercase());
        }
        for row in rows {
            let _ = writeln!(out, "| {} |", row.join(" | "));
        }
        out
    }

    /// The titles, and a row for every figure.
    fn rows(&self) -> Vec<[String; 5]> {
        let mut rows = vec![["CASE", "FIGURE", "OURS", "ENVOY", "RATIO"].map(str::to_owned)];
        let mut row = |case: &str, figure: &str, ours: f64, envoy: f64| {
            let (case, figure) = (case.to_owned(), figure.to_owned());
            let ratio = ratio(ours, envoy);
            rows.push([case, figure, format!("{ours:.2}"), format!("{envoy:.2}"), format!("{ratio:.2}")]);
        };
        for case in &self.cases {
            let (ours, envoy) = (median(&case.ours), median(&case.envoy));
            for (name, of) in FIGURES {
                row(&case.name, name, of(&ours), of(&envoy));
            }
        }
        for flow in &self.flows {
            let (ours, envoy) = (Rate::median(&flow.ours), Rate::median(&flow.envoy));
            row(&flow.name, "MB/s", ours.mb_per_second, envoy.mb_per_second);
            row(&flow.name, "cpu s/GB", ours.cpu_s_per_gb, envoy.cpu_s_per_gb);
        }
        for m in &self.memory {
            row("memory", &format!("MB, {} clusters", m.clusters), m.ours_mb, m.envoy_mb);
        }
        rows
    }
}

type Figure = (&'static str, fn(&Figures) -> f64);

const FIGURES: &[Figure] = &[
    ("cpu us/request", |f| f.cpu_us_per_request),
    ("requests/s", |f| f.requests_per_second),
    ("p50 ms", |f| f.p50_ms),
    ("p99 ms", |f| f.p99_ms),
];

/// Bars of ours against Envoy's, as an SVG picture.
pub(crate) fn chart(report: &Report) -> String {
    let mut bars: Vec<(String, f64, f64)> = Vec::new();
    for case in &report.cases {
        let (ours, envoy) = (median(&case.ours), median(&case.envoy));
        bars.push((
            format!("{} CPU us/request", case.name),
            ours.cpu_us_per_request,
            envoy.cpu_us_per_request,
        ));
        bars.push((format!("{} p99 ms", case.name), ours.p99_ms, envoy.p99_ms));
    }
    for flow in &report.flows {
        let (ours, envoy) = (Rate::median(&flow.ours), Rate::median(&flow.envoy));
        bars.push((format!("{} CPU s/GB", flow.name), ours.cpu_s_per_gb, envoy.cpu_s_per_gb));
    }
    for m in &report.memory {
        bars.push((format!("MB with {} clusters", m.clusters), m.ours_mb, m.envoy_mb));
    }
    let height = 40 + bars.len() * 44;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"640\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\"><rect width=\"100%\" height=\"100%\" fill=\"white\"/><text x=\"10\" y=\"20\" \
         font-size=\"14\">Lateen (dark) and Envoy (light): less is better</text>"
    );
    for (index, (name, ours, envoy)) in bars.iter().enumerate() {
        let y = 36 + index * 44;
        let largest = ours.max(*envoy).max(f64::MIN_POSITIVE);
        let _ = write!(out, "<text x=\"10\" y=\"{}\">{name}</text>", y + 18);
        for (offset, value, colour) in [(2, ours, "#1d4e89"), (20, envoy, "#a9c6e8")] {
            let width = value / largest * 360.0;
            let _ = write!(
                out,
                "<rect x=\"180\" y=\"{}\" width=\"{width:.0}\" height=\"16\" fill=\"{colour}\"/><text x=\"{:.0}\" \
                 y=\"{}\">{value:.2}</text>",
                y + offset,
                186.0 + width,
                y + offset + 13,
            );
        }
    }
    out.push_str("</svg>\n");
    out
}
