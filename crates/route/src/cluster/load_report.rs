//! What hosts report of their load with their responses (Open Request Cost Aggregation, `xds.data.orca.v3.OrcaLoadReport`), and
//! the weights that follow from it (`envoy.load_balancing_policies.client_side_weighted_round_robin`).

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use http::HeaderMap;
use prost::Message;

/// A report as text, JSON or base64, which its first word says.
const HEADER: &str = "endpoint-load-metrics";
/// A report as base64, the form of gRPC.
const BINARY_HEADER: &str = "endpoint-load-metrics-bin";

/// A host's load, as far as weights follow from it.
#[derive(Clone, PartialEq, Message, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadReport {
    /// Share of the processor in use; may be above 1.
    #[prost(double, tag = "1")]
    #[serde(alias = "cpu_utilization")]
    pub cpu_utilization: f64,
    /// Share of the memory in use.
    #[prost(double, tag = "2")]
    #[serde(alias = "mem_utilization")]
    pub mem_utilization: f64,
    /// Costs of this request, by the application's names.
    #[prost(btree_map = "string, double", tag = "4")]
    #[serde(alias = "request_cost")]
    pub request_cost: BTreeMap<String, f64>,
    /// Shares in use of what the application names.
    #[prost(btree_map = "string, double", tag = "5")]
    pub utilization: BTreeMap<String, f64>,
    /// Requests per second.
    #[prost(double, tag = "6")]
    #[serde(alias = "rps_fractional")]
    pub rps_fractional: f64,
    /// Failed requests per second.
    #[prost(double, tag = "7")]
    pub eps: f64,
    /// Other figures, by the application's names.
    #[prost(btree_map = "string, double", tag = "8")]
    #[serde(alias = "named_metrics")]
    pub named_metrics: BTreeMap<String, f64>,
    /// What the application itself holds its utilization to be.
    #[prost(double, tag = "9")]
    #[serde(alias = "application_utilization")]
    pub application_utilization: f64,
}

impl LoadReport {
    /// The report in a response's headers or trailers. One that cannot be read is none: a host's mistake costs it its say.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        if let Some(value) = headers.get(BINARY_HEADER) {
            return Self::from_base64(value.as_bytes());
        }
        let (form, report) = headers.get(HEADER)?.to_str().ok()?.split_once(' ')?;
        match form {
            "BIN" => Self::from_base64(report.trim().as_bytes()),
            "JSON" => serde_json::from_str(report).ok(),
            "TEXT" => Self::from_text(report),
            _ => None,
        }
    }

    fn from_base64(text: &[u8]) -> Option<Self> {
        let bytes = STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text)).ok()?;
        Self::decode(&*bytes).ok()
    }

    /// `name=value, name=value`.
    fn from_text(text: &str) -> Option<Self> {
        let mut report = Self::default();
        for pair in text.split(',') {
            let (name, value) = pair.split_once('=')?;
            *report.slot(name.trim())? = value.trim().parse().ok()?;
        }
        Some(report)
    }

    /// Where a figure of this name goes; `None` for names that there are not.
    fn slot(&mut self, name: &str) -> Option<&mut f64> {
        Some(match name {
            "cpu_utilization" => &mut self.cpu_utilization,
            "mem_utilization" => &mut self.mem_utilization,
            "application_utilization" => &mut self.application_utilization,
            "rps_fractional" => &mut self.rps_fractional,
            "eps" => &mut self.eps,
            _ => {
                let (map, key) = name.split_once('.')?;
                let map = match map {
                    "named_metrics" => &mut self.named_metrics,
                    "utilization" => &mut self.utilization,
                    "request_cost" => &mut self.request_cost,
                    _ => return None,
                };
                map.entry(key.to_owned()).or_default()
            }
        })
    }

    fn figure(&self, name: &str) -> Option<f64> {
        match name {
            "cpu_utilization" => Some(self.cpu_utilization),
            "mem_utilization" => Some(self.mem_utilization),
            "application_utilization" => Some(self.application_utilization),
            _ => {
                let (map, key) = name.split_once('.')?;
                let map = match map {
                    "named_metrics" => &self.named_metrics,
                    "utilization" => &self.utilization,
                    "request_cost" => &self.request_cost,
                    _ => return None,
                };
                map.get(key).copied()
            }
        }
    }
}

/// How weights follow from reports.
#[derive(Clone, Debug, PartialEq)]
pub struct ByLoad {
    /// For how long a host has to have reported before it is believed; 10 s unless set.
    pub blackout: Duration,
    /// For how long a report is believed; 3 minutes unless set.
    pub expiration: Duration,
    /// How often weights are made anew; 1 s unless set, at least 100 ms.
    pub update: Duration,
    /// What the share of failed requests is multiplied by before it is added to the utilization; 1 unless set.
    pub error_penalty: f64,
    /// The figures whose greatest is the utilization; where there is none of them, the application's, then the processor's.
    pub metrics: Box<[Box<str>]>,
}

impl ByLoad {
    /// `rps / (utilization + eps / rps * penalty)`, at least 1; `None` where the report says too little for that.
    pub fn weight(&self, report: &LoadReport) -> Option<u32> {
        let positive = |value: &f64| *value > 0.0 && value.is_finite();
        let rps = Some(report.rps_fractional).filter(positive)?;
        let named = self.metrics.iter().filter_map(|name| report.figure(name)).filter(positive);
        let utilization = named
            .reduce(f64::max)
            .or_else(|| Some(report.application_utilization).filter(positive))
            .unwrap_or(report.cpu_utilization);
        let errors = Some(report.eps).filter(positive).unwrap_or(0.0) / rps * self.error_penalty;
        let load = Some(utilization + errors).filter(positive)?;
        // Saturates.
        Some(((rps / load) as u32).max(1))
    }
}

/// The weights of hosts of which some are known: the others get the median of these, or all get 1.
pub fn fill_in(known: &[Option<u32>]) -> Vec<u32> {
    let mut sorted: Vec<u32> = known.iter().filter_map(|weight| *weight).collect();
    sorted.sort_unstable();
    let middle = sorted.len() / 2;
    let median = match sorted.get(middle) {
        None => 1,
        Some(upper) if sorted.len() % 2 == 1 => *upper,
        Some(upper) => ((u64::from(sorted[middle - 1]) + u64::from(*upper)) / 2) as u32,
    };
    known.iter().map(|weight| weight.unwrap_or(median)).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn rules(metrics: &[&str]) -> ByLoad {
        ByLoad {
            blackout: Duration::from_secs(10),
            expiration: Duration::from_secs(180),
            update: Duration::from_secs(1),
            error_penalty: 1.0,
            metrics: metrics.iter().map(|name| (*name).into()).collect(),
        }
    }

    fn read(name: &'static str, value: &str) -> Option<LoadReport> {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        LoadReport::read(&headers)
    }

    #[test]
    fn every_form_says_the_same() {
        let report = LoadReport {
            cpu_utilization: 0.5,
            rps_fractional: 100.0,
            eps: 2.0,
            named_metrics: BTreeMap::from([("queue".to_owned(), 0.75)]),
            ..LoadReport::default()
        };
        let binary = STANDARD.encode(report.encode_to_vec());
        let forms = [
            read(BINARY_HEADER, &binary),
            read(BINARY_HEADER, binary.trim_end_matches('=')),
            read(HEADER, &format!("BIN {binary}")),
            read(HEADER, "TEXT cpu_utilization=0.5, rps_fractional=100,eps=2,named_metrics.queue=0.75"),
            read(
                HEADER,
                r#"JSON {"cpuUtilization":0.5,"rpsFractional":100,"eps":2,"namedMetrics":{"queue":0.75}}"#,
            ),
            read(
                HEADER,
                r#"JSON {"cpu_utilization":0.5,"rps_fractional":100,"eps":2,"named_metrics":{"queue":0.75}}"#,
            ),
        ];
        for form in forms {
            assert_eq!(form.as_ref(), Some(&report));
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_report() {
        for value in
            ["", "TEXT", "TEXT cpu", "TEXT cpu_utilization=x", "TEXT other=1", "JSON {", "BIN %", "YAML a: 1"]
        {
            assert_eq!(read(HEADER, value), None, "{value}");
        }
    }

    #[test]
    fn named_figures_go_before_the_applications_and_that_before_the_processors() {
        let mut report = LoadReport { cpu_utilization: 0.5, rps_fractional: 100.0, ..LoadReport::default() };
        let rules = rules(&["named_metrics.queue", "mem_utilization"]);
        assert_eq!(rules.weight(&report), Some(200));
        report.application_utilization = 0.25;
        assert_eq!(rules.weight(&report), Some(400));
        report.mem_utilization = 0.8;
        assert_eq!(rules.weight(&report), Some(125));
        report.named_metrics.insert("queue".to_owned(), 1.0);
        assert_eq!(rules.weight(&report), Some(100));
        report.eps = 100.0;
        assert_eq!(rules.weight(&report), Some(50), "all fail, which counts as much as a full host");
    }

    #[test]
    fn a_report_without_rate_or_load_gives_no_weight() {
        let rules = rules(&[]);
        assert_eq!(rules.weight(&LoadReport { cpu_utilization: 0.5, ..LoadReport::default() }), None);
        assert_eq!(rules.weight(&LoadReport { rps_fractional: 5.0, ..LoadReport::default() }), None);
        let odd = LoadReport { rps_fractional: f64::NAN, cpu_utilization: 1.0, ..LoadReport::default() };
        assert_eq!(rules.weight(&odd), None);
    }

    #[test]
    fn hosts_without_a_weight_get_the_median() {
        assert_eq!(fill_in(&[None, None]), [1, 1]);
        assert_eq!(fill_in(&[Some(5), None, Some(1), Some(100)]), [5, 5, 1, 100]);
        assert_eq!(fill_in(&[Some(10), None, Some(20)]), [10, 15, 20]);
    }

    proptest! {
        #[test]
        fn nothing_that_a_host_says_panics(form in "(TEXT|JSON|BIN) .{0,60}", rps in any::<f64>(), cpu in any::<f64>(), eps in any::<f64>()) {
            if let Ok(value) = HeaderValue::from_str(&form) {
                let headers = HeaderMap::from_iter([(http::HeaderName::from_static(HEADER), value)]);
                let _ = LoadReport::read(&headers).and_then(|report| rules(&[]).weight(&report));
            }
            let report = LoadReport { rps_fractional: rps, cpu_utilization: cpu, eps, ..LoadReport::default() };
            if let Some(weight) = rules(&[]).weight(&report) {
                prop_assert!(weight >= 1);
            }
        }
    }
}
