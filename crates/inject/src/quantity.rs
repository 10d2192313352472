//! Kubernetes' quantities in the form in which its API shows them.

use serde_json::{Map, Value, json};

/// The resources of a container with each amount in canonical form; amounts that are null are left out.
pub(crate) fn canonical_resources(resources: &Value) -> Value {
    let Some(groups) = resources.as_object() else { return json!({}) };
    let mut all = Map::new();
    for (group, amounts) in groups.iter().filter(|(_, amounts)| !amounts.is_null()) {
        let amounts = match amounts {
            Value::Object(amounts) => {
                let given = amounts.iter().filter(|(_, amount)| !amount.is_null());
                Value::Object(given.map(|(name, amount)| (name.clone(), json!(canonical(amount)))).collect())
            }
            other => other.clone(),
        };
        all.insert(group.clone(), amounts);
    }
    Value::Object(all)
}

/// `2000m` as `2`, `1024Mi` as `1Gi`; what is no whole multiple stays.
fn canonical(amount: &Value) -> String {
    let text = amount.as_str().map_or_else(|| amount.to_string(), str::to_owned);
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (Ok(mut number), unit) = (text[..digits].parse::<u64>(), &text[digits..]) else { return text };
    for (units, step) in [(BINARY, 1024), (DECIMAL, 1000)] {
        let Some(mut at) = units.iter().position(|known| *known == unit) else { continue };
        while number > 0 && number.is_multiple_of(step) && at + 1 < units.len() {
            number /= step;
            at += 1;
        }
        return format!("{number}{}", units[at]);
    }
    text
}

/// Whether a text is a quantity: a number that is not negative, with a unit of Kubernetes' or an exponent.
pub(crate) fn is_quantity(text: &str) -> bool {
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    let end = unsigned.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(unsigned.len());
    let (number, unit) = unsigned.split_at(end);
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    let is_number = digits > 0 && number.len() - digits <= 1;
    let is_exponent = || {
        let exponent = unit.strip_prefix(['e', 'E']).unwrap_or_default();
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        !exponent.is_empty() && exponent.bytes().all(|byte| byte.is_ascii_digit())
    };
    is_number && (BINARY.contains(&unit) || SMALL.contains(&unit) || DECIMAL.contains(&unit) || is_exponent())
}

/// What a quantity comes to, in whole units; nothing for what is none.
pub(crate) fn value(text: &str) -> Option<f64> {
    if !is_quantity(text) {
        return None;
    }
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '+')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let scale =
        match (BINARY.iter().position(|one| *one == unit), DECIMAL.iter().position(|one| *one == unit)) {
            (Some(at), _) => 1024_f64.powi(i32::try_from(at).ok()? + 1),
            (None, Some(at)) => 1000_f64.powi(i32::try_from(at).ok()? - 1),
            (None, None) if unit == "n" => 1e-9,
            (None, None) if unit == "u" => 1e-6,
            (None, None) => return text.parse().ok(),
        };
    number.parse::<f64>().ok().map(|number| number * scale)
}

const SMALL: &[&str] = &["n", "u"];
const BINARY: &[&str] = &["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL: &[&str] = &["m", "", "k", "M", "G", "T", "P", "E"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_numbers_with_units() {
        for good in ["100m", "1", "1.5", ".5Gi", "40Mi", "1e3", "2E-1", "3E", "+1", "10n", "5k"] {
            assert!(is_quantity(good), "{good}");
        }
        for bad in ["", "m", "-1", "1,5", "100 m", "1GB", "1.2.3", "e3", "1e", "ten", "1K", "0x10", "."] {
            assert!(!is_quantity(bad), "{bad}");
        }
    }

    #[test]
    fn units_are_counted() {
        for (text, want) in [("1Ki", 1024.0), ("1500m", 1.5), ("2k", 2000.0), ("1e3", 1000.0), ("5u", 5e-6)] {
            assert!((value(text).unwrap() - want).abs() < want * 1e-9, "{text}");
        }
        assert_eq!(value("ten"), None);
    }

    #[test]
    fn amounts_are_shown_as_the_api_shows_them() {
        for (given, want) in [
            ("2000m", "2"),
            ("1024Mi", "1Gi"),
            ("100m", "100m"),
            ("40Mi", "40Mi"),
            ("1500m", "1500m"),
            ("0", "0"),
        ] {
            assert_eq!(canonical(&json!(given)), want);
        }
        assert_eq!(canonical(&json!(2)), "2");
        assert_eq!(
            canonical_resources(&json!({ "limits": { "cpu": null, "memory": "1024Ki" }, "requests": null })),
            json!({ "limits": { "memory": "1Mi" } })
        );
    }
}
