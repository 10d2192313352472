//! Operators on values.

use std::cmp::Ordering;
use std::sync::Arc;

use cel::common::ast::operators::*;

use super::value::Val;
use super::{Budget, Fault, error};

type Valued<'a> = Result<Val<'a>, Fault>;

/// `None`: it is no operator.
pub(super) fn apply<'a>(name: &str, args: &[Val<'a>], budget: &Budget) -> Option<Valued<'a>> {
    Some(match (name, args) {
        (EQUALS, [a, b]) => same(a, b, budget).map(Val::Bool),
        (NOT_EQUALS, [a, b]) => same(a, b, budget).map(|is| Val::Bool(!is)),
        (LESS, [a, b]) => ordered(name, a, b, budget, Ordering::is_lt),
        (LESS_EQUALS, [a, b]) => ordered(name, a, b, budget, Ordering::is_le),
        (GREATER, [a, b]) => ordered(name, a, b, budget, Ordering::is_gt),
        (GREATER_EQUALS, [a, b]) => ordered(name, a, b, budget, Ordering::is_ge),
        (ADD, [a, b]) => add(a, b, budget),
        (SUBSTRACT | MULTIPLY | DIVIDE | MODULO, [a, b]) => arithmetic(name, a, b),
        (NEGATE, [Val::Int(n)]) => n.checked_neg().map(Val::Int).ok_or_else(overflow),
        (NEGATE, [Val::Double(n)]) => Ok(Val::Double(-n)),
        (NEGATE, [a]) => error(format!("no such overload: -{}", a.type_name())),
        (INDEX, [of, key]) => match at(of, key) {
            Ok(Some(value)) => {
                Ok(if matches!(of, Val::Optional(_)) { Val::optional(Some(value)) } else { value })
            }
            Ok(None) if matches!(of, Val::Optional(_)) => Ok(Val::optional(None)),
            Ok(None) => error("no such key, or index out of bounds"),
            Err(fault) => Err(fault),
        },
        (OPT_INDEX, [of, key]) => at(of, key).map(Val::optional),
        (IN, [item, among]) => within(item, among, budget),
        _ => return None,
    })
}

fn overflow() -> Fault {
    Fault::Error("integer overflow".into())
}

fn same(a: &Val<'_>, b: &Val<'_>, budget: &Budget) -> Result<bool, Fault> {
    pay_deep(a, budget)?;
    Ok(a.same(b))
}

/// Pays for all that is in the value.
fn pay_deep(value: &Val<'_>, budget: &Budget) -> Result<(), Fault> {
    budget.pay_for(value.size())?;
    match value {
        Val::List(list) => list.iter().try_for_each(|item| pay_deep(&item, budget)),
        // A lookup among values that were made is a search.
        Val::Map(map) => map.iter().try_for_each(|(_, value)| {
            budget.pay_for(map.len())?;
            pay_deep(&value, budget)
        }),
        _ => Ok(()),
    }
}

fn ordered<'a>(
    name: &str,
    a: &Val<'a>,
    b: &Val<'a>,
    budget: &Budget,
    is: fn(Ordering) -> bool,
) -> Valued<'a> {
    budget.pay_for(a.size().min(b.size()))?;
    match (a, b, a.order(b)) {
        (Val::Quantity(_), ..) => error(overload(name, a, b)),
        (_, _, Some(order)) => Ok(Val::Bool(is(order))),
        (Val::Double(_), ..) | (_, Val::Double(_), _) => Ok(Val::Bool(false)),
        _ => error(overload(name, a, b)),
    }
}

fn overload(name: &str, a: &Val<'_>, b: &Val<'_>) -> String {
    format!("no such overload: {} {} {}", a.type_name(), name.trim_matches('_'), b.type_name())
}

pub(super) fn add<'a>(a: &Val<'a>, b: &Val<'a>, budget: &Budget) -> Valued<'a> {
    match (a, b) {
        (Val::Text(a), Val::Text(b)) => {
            budget.pay_for(a.len() + b.len())?;
            Ok(Val::text([&**a, &**b].concat()))
        }
        (Val::Bytes(a), Val::Bytes(b)) => {
            budget.pay_for(a.len() + b.len())?;
            Ok(Val::Bytes([&**a, &**b].concat().into()))
        }
        (Val::List(a), Val::List(b)) => {
            budget.pay((a.len() + b.len()) as u64)?;
            Ok(Val::list(a.iter().chain(b.iter()).collect()))
        }
        (Val::Time(at), Val::Duration(by)) | (Val::Duration(by), Val::Time(at)) => {
            at.checked_add(*by).map(Val::Time).ok_or_else(overflow)
        }
        _ => arithmetic(ADD, a, b),
    }
}

fn arithmetic<'a>(name: &str, a: &Val<'a>, b: &Val<'a>) -> Valued<'a> {
    let nothing = || Fault::Error("divide by zero".into());
    let whole = |value: Option<i64>| value.map(Val::Int).ok_or_else(overflow);
    let count = |value: Option<u64>| value.map(Val::Uint).ok_or_else(overflow);
    match (name, a, b) {
        (DIVIDE | MODULO, Val::Int(_), Val::Int(0)) | (DIVIDE | MODULO, Val::Uint(_), Val::Uint(0)) => {
            Err(nothing())
        }
        (ADD, Val::Int(a), Val::Int(b)) => whole(a.checked_add(*b)),
        (SUBSTRACT, Val::Int(a), Val::Int(b)) => whole(a.checked_sub(*b)),
        (MULTIPLY, Val::Int(a), Val::Int(b)) => whole(a.checked_mul(*b)),
        (DIVIDE, Val::Int(a), Val::Int(b)) => whole(a.checked_div(*b)),
        (MODULO, Val::Int(a), Val::Int(b)) => whole(a.checked_rem(*b)),
        (ADD, Val::Uint(a), Val::Uint(b)) => count(a.checked_add(*b)),
        (SUBSTRACT, Val::Uint(a), Val::Uint(b)) => count(a.checked_sub(*b)),
        (MULTIPLY, Val::Uint(a), Val::Uint(b)) => count(a.checked_mul(*b)),
        (DIVIDE, Val::Uint(a), Val::Uint(b)) => count(a.checked_div(*b)),
        (MODULO, Val::Uint(a), Val::Uint(b)) => count(a.checked_rem(*b)),
        (ADD, Val::Double(a), Val::Double(b)) => Ok(Val::Double(a + b)),
        (SUBSTRACT, Val::Double(a), Val::Double(b)) => Ok(Val::Double(a - b)),
        (MULTIPLY, Val::Double(a), Val::Double(b)) => Ok(Val::Double(a * b)),
        (DIVIDE, Val::Double(a), Val::Double(b)) => Ok(Val::Double(a / b)),
        (ADD, Val::Duration(a), Val::Duration(b)) => {
            a.checked_add(*b).map(Val::Duration).ok_or_else(overflow)
        }
        (SUBSTRACT, Val::Duration(a), Val::Duration(b)) => {
            a.checked_sub(*b).map(Val::Duration).ok_or_else(overflow)
        }
        (SUBSTRACT, Val::Time(a), Val::Duration(b)) => a.checked_sub(*b).map(Val::Time).ok_or_else(overflow),
        (SUBSTRACT, Val::Time(a), Val::Time(b)) => Ok(Val::Duration(*a - *b)),
        _ => error(overload(name, a, b)),
    }
}

fn at<'a>(of: &Val<'a>, key: &Val<'a>) -> Result<Option<Val<'a>>, Fault> {
    match (of, key) {
        (Val::List(list), Val::Int(index)) => {
            Ok(usize::try_from(*index).ok().and_then(|index| list.get(index)))
        }
        (Val::List(list), Val::Uint(index)) => {
            Ok(usize::try_from(*index).ok().and_then(|index| list.get(index)))
        }
        (Val::Map(map), key) => Ok(map.get(key)),
        (Val::Optional(None), _) => Ok(None),
        (Val::Optional(Some(inner)), key) => at(&Arc::clone(inner), key),
        _ => error(format!("no such overload: {}[{}]", of.type_name(), key.type_name())),
    }
}

fn within<'a>(item: &Val<'a>, among: &Val<'a>, budget: &Budget) -> Valued<'a> {
    match among {
        Val::List(list) => {
            budget.pay(list.len() as u64 / 4)?;
            pay_deep(item, budget)?;
            Ok(Val::Bool(list.contains(item)))
        }
        Val::Map(map) => {
            budget.pay_for(map.len())?;
            Ok(Val::Bool(map.get(item).is_some()))
        }
        other => error(format!("no such overload: in {}", other.type_name())),
    }
}
