//! Quantities of resources: `100m`, `1.5Gi`, `2e3`.

use std::cmp::Ordering;

use super::value::Val;
use super::{Fault, error};

type Done<'a> = Option<Result<Val<'a>, Fault>>;

/// In billionths, the finest that Kubernetes keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Quantity(i128);

const ONE: i128 = 1_000_000_000;

impl Quantity {
    fn parse(text: &str) -> Option<Self> {
        let (sign, plain) = match text.strip_prefix('-') {
            Some(plain) => (-1, plain),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = plain.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(plain.len());
        let (number, suffix) = plain.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || whole.is_empty() && fraction.is_empty() || number.len() > 30 {
            return None;
        }
        let digits: i128 = [whole, fraction].concat().parse().ok()?;
        let (up, down) = scale(suffix)?;
        let down = down.checked_mul(10i128.checked_pow(fraction.len().try_into().ok()?)?)?;
        let up = up.checked_mul(ONE)?.checked_mul(digits)?;
        // What is finer than the finest is rounded up.
        let value = up / down + i128::from(up % down != 0);
        Some(Self(sign * value))
    }

    fn whole(self) -> Option<i64> {
        (self.0 % ONE == 0).then(|| i64::try_from(self.0 / ONE).ok())?
    }
}

/// What a suffix multiplies and divides by.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    if let Some(exponent) = suffix.strip_prefix(['e', 'E']).filter(|exponent| !exponent.is_empty()) {
        let exponent: i32 = exponent.parse().ok().filter(|exponent| (-18..=18).contains(exponent))?;
        let power = 10i128.checked_pow(exponent.unsigned_abs())?;
        return Some(if exponent < 0 { (1, power) } else { (power, 1) });
    }
    let (ten, two) = (|power: u32| 10i128.pow(power), |power: u32| 1i128 << power);
    Some(match suffix {
        "n" => (1, ten(9)),
        "u" => (1, ten(6)),
        "m" => (1, ten(3)),
        "" => (1, 1),
        "k" => (ten(3), 1),
        "M" => (ten(6), 1),
        "G" => (ten(9), 1),
        "T" => (ten(12), 1),
        "P" => (ten(15), 1),
        "E" => (ten(18), 1),
        "Ki" => (two(10), 1),
        "Mi" => (two(20), 1),
        "Gi" => (two(30), 1),
        "Ti" => (two(40), 1),
        "Pi" => (two(50), 1),
        "Ei" => (two(60), 1),
        _ => return None,
    })
}

pub(super) fn global<'a>(name: &str, args: &[Val<'a>]) -> Done<'a> {
    Some(match (name, args) {
        ("isQuantity", [Val::Text(text)]) => Ok(Val::Bool(Quantity::parse(text).is_some())),
        ("quantity", [Val::Text(text)]) => match Quantity::parse(text) {
            Some(quantity) => Ok(Val::Quantity(quantity)),
            None => error(format!("{text:?} is no quantity")),
        },
        _ => return None,
    })
}

pub(super) fn method<'a>(name: &str, of: Quantity, args: &[Val<'a>]) -> Done<'a> {
    let sum = |other: Option<i128>| match other {
        Some(sum) => Ok(Val::Quantity(Quantity(sum))),
        None => error("quantity overflow"),
    };
    let given = |number: i64| i128::from(number).saturating_mul(ONE);
    Some(match (name, args) {
        ("sign", []) => Ok(Val::Int(of.0.signum() as i64)),
        ("isInteger", []) => Ok(Val::Bool(of.whole().is_some())),
        ("asInteger", []) => match of.whole() {
            Some(whole) => Ok(Val::Int(whole)),
            None => error("cannot convert value to integer"),
        },
        ("asApproximateFloat", []) => Ok(Val::Double(of.0 as f64 / ONE as f64)),
        ("isGreaterThan", [Val::Quantity(other)]) => Ok(Val::Bool(of > *other)),
        ("isLessThan", [Val::Quantity(other)]) => Ok(Val::Bool(of < *other)),
        ("compareTo", [Val::Quantity(other)]) => Ok(Val::Int(match of.cmp(other) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        })),
        ("add", [Val::Quantity(other)]) => sum(of.0.checked_add(other.0)),
        ("sub", [Val::Quantity(other)]) => sum(of.0.checked_sub(other.0)),
        ("add", [Val::Int(other)]) => sum(of.0.checked_add(given(*other))),
        ("sub", [Val::Int(other)]) => sum(of.0.checked_sub(given(*other))),
        _ => return None,
    })
}
