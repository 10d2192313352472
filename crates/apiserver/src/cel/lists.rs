//! Functions of lists.

use std::cmp::Ordering;

use super::eval::Env;
use super::value::{List, Val};
use super::{Fault, error, operators};

type Done<'a> = Option<Result<Val<'a>, Fault>>;

pub(super) fn global<'a>(env: &Env<'a, '_>, name: &str, args: &[Val<'a>]) -> Done<'a> {
    let (Some(operation), [Val::List(a), Val::List(b)]) = (name.strip_prefix("sets."), args) else {
        return None;
    };
    if let Err(fault) = env.budget.pay((a.len() as u64).saturating_mul(b.len() as u64)) {
        return Some(Err(fault));
    }
    let holds = |all: &List<'a>, of: &List<'a>| of.iter().all(|item| all.contains(&item));
    Some(Ok(Val::Bool(match operation {
        "contains" => holds(a, b),
        "equivalent" => holds(a, b) && holds(b, a),
        "intersects" => b.iter().any(|item| a.contains(&item)),
        _ => return None,
    })))
}

pub(super) fn method<'a>(env: &Env<'a, '_>, name: &str, list: &List<'a>, args: &[Val<'a>]) -> Done<'a> {
    Some(match (name, args) {
        ("size", []) => Ok(Val::Int(list.len() as i64)),
        ("isSorted", []) => sorted(env, list),
        ("min", []) => extreme(list, Ordering::Less),
        ("max", []) => extreme(list, Ordering::Greater),
        ("sum", []) => sum(env, list),
        ("indexOf", [wanted]) => Ok(place(list.iter().position(|item| item.same(wanted)))),
        ("lastIndexOf", [wanted]) => {
            let last = (0..list.len()).rev().find(|at| list.get(*at).is_some_and(|item| item.same(wanted)));
            Ok(place(last))
        }
        ("join", []) => join(env, list, ""),
        ("join", [Val::Text(by)]) => join(env, list, by),
        _ => return None,
    })
}

fn place<'a>(at: Option<usize>) -> Val<'a> {
    Val::Int(at.map_or(-1, |at| at as i64))
}

fn sorted<'a>(env: &Env<'a, '_>, list: &List<'a>) -> Result<Val<'a>, Fault> {
    let mut before: Option<Val<'a>> = None;
    for item in list.iter() {
        env.budget.pay_for(item.size())?;
        match before.map(|before| before.order(&item)) {
            Some(None) => return error("no such overload: isSorted of items that have no order"),
            Some(Some(Ordering::Greater)) => return Ok(Val::Bool(false)),
            _ => before = Some(item),
        }
    }
    Ok(Val::Bool(true))
}

fn extreme<'a>(list: &List<'a>, wanted: Ordering) -> Result<Val<'a>, Fault> {
    let mut items = list.iter();
    let Some(mut best) = items.next() else { return error("min and max of an empty list") };
    for item in items {
        match item.order(&best) {
            None => return error("no such overload: min and max of items that have no order"),
            Some(order) if order == wanted => best = item,
            Some(_) => {}
        }
    }
    Ok(best)
}

fn sum<'a>(env: &Env<'a, '_>, list: &List<'a>) -> Result<Val<'a>, Fault> {
    let mut items = list.iter();
    let Some(first) = items.next() else { return Ok(Val::Int(0)) };
    if !matches!(first, Val::Int(_) | Val::Uint(_) | Val::Double(_) | Val::Duration(_)) {
        return error(format!("no such overload: sum of {}", first.type_name()));
    }
    items.try_fold(first, |sum, item| operators::add(&sum, &item, env.budget))
}

fn join<'a>(env: &Env<'a, '_>, list: &List<'a>, by: &str) -> Result<Val<'a>, Fault> {
    let mut out = String::new();
    for (index, item) in list.iter().enumerate() {
        let Val::Text(text) = &item else {
            return error(format!("no such overload: join of {}", item.type_name()));
        };
        env.budget.pay_for(text.len() + by.len())?;
        if index > 0 {
            out.push_str(by);
        }
        out.push_str(text);
    }
    Ok(Val::text(out))
}
