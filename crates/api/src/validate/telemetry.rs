//! `Telemetry`.

use std::time::Duration;

use super::Problems;
use super::path::Path;
use super::security::target;
use crate::kinds::Telemetry;
use crate::kinds::telemetry::{CustomTag, Metrics, TagOperation, Tracing};

pub(super) fn check(spec: &Telemetry, at: &Path<'_>, out: &mut Problems) {
    target(spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs, at, out);
    if spec.tracing.len() > 1 {
        out.warn(&at.field("tracing"), "multiple tracing is not currently supported");
    }
    for (i, one) in spec.tracing.iter().enumerate() {
        tracing(one, &at.field("tracing").item(i), out);
    }
    for (i, one) in spec.metrics.iter().enumerate() {
        metrics(one, &at.field("metrics").item(i), out);
    }
    for (i, one) in spec.access_logging.iter().enumerate() {
        let at = &at.field("accessLogging");
        let at = &at.item(i);
        if let Some(filter) = &one.filter {
            out.check(&at.field("filter").field("expression"), expression(&filter.expression));
        }
    }
}

fn tracing(tracing: &Tracing, at: &Path<'_>, out: &mut Problems) {
    if tracing.providers.len() > 1 {
        out.warn(&at.field("providers"), "multiple providers is not currently supported");
    }
    let percent = tracing.random_sampling_percentage;
    let wild = percent.is_some_and(|percent| !(0.0..=100.0).contains(&percent));
    let message = "sampling rate must be in range [0.0 - 100.0]";
    out.error_if(wild, &at.field("randomSamplingPercentage"), message);
    for (name, tag) in &tracing.custom_tags {
        let at = &at.field("customTags");
        let at = &at.entry(name);
        out.error_if(name.is_empty(), at, "tag name may not be empty");
        match tag {
            CustomTag::Unset => out.error(at, format!("tag {name:?} may not have a nil value")),
            CustomTag::Literal(tag) | CustomTag::Formatter(tag) => {
                let message = format!("literal tag {name:?} may not have an empty value");
                out.error_if(tag.value.is_empty(), at, message);
            }
            CustomTag::Environment(tag) | CustomTag::Header(tag) => {
                let message = format!("tag {name:?} may not have an empty name of its source");
                out.error_if(tag.name.is_empty(), at, message);
            }
        }
    }
}

fn metrics(metrics: &Metrics, at: &Path<'_>, out: &mut Problems) {
    let often = metrics.reporting_interval.is_some_and(|interval| interval < Duration::from_millis(1));
    out.error_if(often, &at.field("reportingInterval"), "reporting interval must be 1ms at least");
    for (i, change) in metrics.overrides.iter().enumerate() {
        let at = &at.field("overrides");
        let at = &at.item(i);
        for (name, tag) in &change.tag_overrides {
            let at = &at.field("tagOverrides");
            let at = &at.entry(name);
            match tag.operation {
                TagOperation::Upsert => {
                    let message = "tag override: value must be set when operation is UPSERT";
                    out.error_if(tag.value.is_empty(), at, message);
                }
                TagOperation::Remove => {
                    let message = "tag override: value must not be set when operation is REMOVE";
                    out.error_if(!tag.value.is_empty(), at, message);
                }
            }
        }
    }
}

/// The shape of a CEL expression: brackets and quotes that match, and an operator between operands.
fn expression(text: &str) -> Result<(), String> {
    let mut open = Vec::new();
    let mut quote = None;
    let mut escaped = false;
    let mut last = ' ';
    let mut operand = false;
    for c in text.chars() {
        if let Some(q) = quote {
            if c == q && !escaped {
                quote = None;
            }
            escaped = c == '\\' && !escaped;
            continue;
        }
        if operand
            && last.is_whitespace()
            && (c.is_ascii_alphanumeric() || c == '_')
            && !text.contains(" in ")
        {
            return Err(format!("expression is invalid: an operator is missing before {c:?} in {text:?}"));
        }
        match c {
            '"' | '\'' => quote = Some(c),
            '(' | '[' | '{' => open.push(c),
            ')' | ']' | '}' => {
                let wanted = match c {
                    ')' => '(',
                    ']' => '[',
                    _ => '{',
                };
                if open.pop() != Some(wanted) {
                    return Err(format!("expression is invalid: {c:?} without its opening in {text:?}"));
                }
            }
            _ => {}
        }
        if !c.is_whitespace() {
            operand = c.is_ascii_alphanumeric() || "_)]}\"'".contains(c);
        }
        last = c;
    }
    if quote.is_some() || !open.is_empty() {
        return Err(format!("expression is invalid: unbalanced brackets or quotes in {text:?}"));
    }
    if !text.trim().is_empty() && !operand {
        return Err(format!("expression is invalid: it ends with an operator: {text:?}"));
    }
    Ok(())
}
