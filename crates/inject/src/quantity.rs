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
    const BINARY: &[&str] = &["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const DECIMAL: &[&str] = &["m", "", "k", "M", "G", "T", "P", "E"];
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

#[cfg(test)]
mod tests {
    use super::*;

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
