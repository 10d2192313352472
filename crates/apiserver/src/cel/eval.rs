//! Evaluation.

use std::sync::Arc;

use cel::IdedExpr;
use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, ListExpr, LiteralValue, SelectExpr, operators,
};
use regex::Regex;

use super::value::{Entries, List, Val};
use super::{Budget, Fault, Program, error, functions, operators as binary};

type Valued<'a> = Result<Val<'a>, Fault>;

/// What an expression can see.
pub(super) struct Env<'a, 'b> {
    program: &'a Program,
    /// Innermost last. What a comprehension gathers may be a fault that is not one in the end.
    scope: Vec<(&'a str, Valued<'a>)>,
    pub(super) budget: &'b Budget,
}

impl<'a, 'b> Env<'a, 'b> {
    pub(super) fn new(program: &'a Program, variables: &[(&'a str, Val<'a>)], budget: &'b Budget) -> Self {
        let scope = variables.iter().map(|(name, value)| (*name, Ok(value.clone()))).collect();
        Self { program, scope, budget }
    }

    pub(super) fn value(&mut self, expression: &'a IdedExpr) -> Valued<'a> {
        self.budget.pay(1)?;
        match &expression.expr {
            Expr::Literal(literal) => Ok(of_literal(literal)),
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) => self.select(select),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => self.list(list),
            Expr::Map(map) => self.map(map.entries.iter().map(|entry| &entry.expr)),
            Expr::Comprehension(comprehension) => self.comprehension(comprehension),
            Expr::Struct(_) | Expr::Unspecified => error("messages cannot be made"),
        }
    }

    fn variable(&self, name: &str) -> Valued<'a> {
        if let Some((_, value)) = self.scope.iter().rev().find(|(known, _)| *known == name) {
            return value.clone();
        }
        match super::check::type_named(name) {
            Some(name) => Ok(Val::Type(name)),
            None => error(format!("undeclared reference to '{name}'")),
        }
    }

    fn select(&mut self, select: &'a SelectExpr) -> Valued<'a> {
        let operand = self.value(&select.operand)?;
        let found = field(&operand, &select.field)?;
        if select.test {
            return Ok(Val::Bool(found.is_some()));
        }
        match (operand, found) {
            (Val::Optional(_), found) => Ok(Val::optional(found)),
            (_, Some(value)) => Ok(value),
            (_, None) => error(format!("no such key: {}", select.field)),
        }
    }

    fn call(&mut self, call: &'a CallExpr) -> Valued<'a> {
        let name = call.func_name.as_str();
        match (name, call.args.as_slice()) {
            (operators::LOGICAL_AND, [a, b]) => self.logic(a, b, false),
            (operators::LOGICAL_OR, [a, b]) => self.logic(a, b, true),
            (operators::LOGICAL_NOT, [a]) => Ok(Val::Bool(!self.truth(a)?)),
            (operators::NOT_STRICTLY_FALSE, [a]) => match self.value(a) {
                Err(Fault::Cost) => Err(Fault::Cost),
                Ok(Val::Bool(is)) => Ok(Val::Bool(is)),
                _ => Ok(Val::Bool(true)),
            },
            (operators::CONDITIONAL, [condition, yes, no]) => {
                if self.truth(condition)? {
                    self.value(yes)
                } else {
                    self.value(no)
                }
            }
            (operators::OPT_SELECT, [operand, name]) => {
                let (operand, name) = (self.value(operand)?, self.value(name)?);
                let Val::Text(name) = name else { return error("a field is named by a string") };
                Ok(Val::optional(field(&operand, &name)?))
            }
            (operators::ADD, [first, second]) if gathers(first) => self.gather(first, second),
            (_, args) => {
                let Some(target) = &call.target else {
                    let args = self.values(args)?;
                    return match binary::apply(name, &args, self.budget) {
                        Some(done) => done,
                        None => functions::call(self, name, None, &args),
                    };
                };
                // `ip.isCanonical(..)` is a function of that name, unless there is a variable `ip`.
                if let Some(qualified) = super::check::qualified(target, name)
                    && !self.scope.iter().any(|(known, _)| target.expr == Expr::Ident((*known).to_owned()))
                {
                    let args = self.values(args)?;
                    return functions::call(self, &qualified, None, &args);
                }
                let target = self.value(target)?;
                let args = self.values(args)?;
                functions::call(self, name, Some(&target), &args)
            }
        }
    }

    fn values(&mut self, all: &'a [IdedExpr]) -> Result<Vec<Val<'a>>, Fault> {
        all.iter().map(|one| self.value(one)).collect()
    }

    fn truth(&mut self, expression: &'a IdedExpr) -> Result<bool, Fault> {
        match self.value(expression)? {
            Val::Bool(is) => Ok(is),
            other => error(format!("no such overload: {} is no bool", other.type_name())),
        }
    }

    /// One side may decide, whatever is wrong with the other.
    fn logic(&mut self, a: &'a IdedExpr, b: &'a IdedExpr, decides: bool) -> Valued<'a> {
        let first = self.truth(a);
        match first {
            Ok(is) if is == decides => return Ok(Val::Bool(decides)),
            Err(Fault::Cost) => return Err(Fault::Cost),
            _ => {}
        }
        match (first, self.truth(b)) {
            (_, Ok(is)) if is == decides => Ok(Val::Bool(decides)),
            (_, Err(Fault::Cost)) => Err(Fault::Cost),
            (Err(fault), _) | (_, Err(fault)) => Err(fault),
            (Ok(_), Ok(_)) => Ok(Val::Bool(!decides)),
        }
    }

    fn list(&mut self, list: &'a ListExpr) -> Valued<'a> {
        let mut items = Vec::with_capacity(list.elements.len());
        for (index, element) in list.elements.iter().enumerate() {
            match (self.value(element)?, list.optional_indices.contains(&index)) {
                (Val::Optional(value), true) => items.extend(value.map(|value| (*value).clone())),
                (value, _) => items.push(value),
            }
        }
        Ok(Val::list(items))
    }

    fn map(&mut self, entries: impl Iterator<Item = &'a EntryExpr>) -> Valued<'a> {
        let mut made: Vec<(Val<'a>, Val<'a>)> = Vec::new();
        for entry in entries {
            let EntryExpr::MapEntry(entry) = entry else { return error("messages cannot be made") };
            let (key, value) = (self.value(&entry.key)?, self.value(&entry.value)?);
            self.budget.pay_for(made.len())?;
            if made.iter().any(|(other, _)| other.same(&key)) {
                return error("a key of a map is repeated");
            }
            match (value, entry.optional) {
                (Val::Optional(value), true) => made.extend(value.map(|value| (key, (*value).clone()))),
                (value, _) => made.push((key, value)),
            }
        }
        Ok(Val::Map(Entries::Made(Arc::new(made))))
    }

    fn comprehension(&mut self, of: &'a ComprehensionExpr) -> Valued<'a> {
        let pairs = of.iter_var2.as_deref();
        let items: List<'a> = match self.value(&of.iter_range)? {
            Val::List(list) if pairs.is_none() => list,
            Val::Map(map) if pairs.is_none() => {
                self.budget.pay_for(map.len())?;
                List::Made(Arc::new(map.iter().map(|(key, _)| key).collect()))
            }
            other => return error(format!("{} cannot be gone through", other.type_name())),
        };
        let start = self.value(&of.accu_init)?;
        let depth = self.scope.len();
        self.scope.push((&of.accu_var, Ok(start)));
        let gathered = self.each(of, &items, depth);
        let result = gathered.and_then(|()| self.value(&of.result));
        self.scope.truncate(depth);
        result
    }

    fn each(&mut self, of: &'a ComprehensionExpr, items: &List<'a>, depth: usize) -> Result<(), Fault> {
        for index in 0..items.len() {
            self.budget.pay(1)?;
            let Some(item) = items.get(index) else { break };
            self.scope.push((&of.iter_var, Ok(item)));
            let goes_on = self.value(&of.loop_cond);
            let step = match goes_on {
                Ok(Val::Bool(false)) => None,
                Err(Fault::Cost) => return Err(Fault::Cost),
                _ => Some(self.value(&of.loop_step)),
            };
            self.scope.truncate(depth + 1);
            match step {
                None => break,
                Some(Err(Fault::Cost)) => return Err(Fault::Cost),
                Some(step) => self.scope[depth].1 = step,
            }
        }
        Ok(())
    }

    /// `gathered + [item]` of a comprehension, without a copy of what is gathered.
    fn gather(&mut self, first: &'a IdedExpr, second: &'a IdedExpr) -> Valued<'a> {
        let more = self.value(second)?;
        let Expr::Ident(name) = &first.expr else { return error("undeclared reference") };
        let place = self.scope.iter_mut().rev().find(|(known, _)| known == name);
        let Some((_, gathered)) = place else { return error(format!("undeclared reference to '{name}'")) };
        let taken = std::mem::replace(gathered, Ok(Val::Null))?;
        match (taken, more) {
            (Val::List(List::Made(mut list)), Val::List(more)) => {
                Arc::make_mut(&mut list).extend(more.iter());
                Ok(Val::List(List::Made(list)))
            }
            (taken, more) => binary::add(&taken, &more, self.budget),
        }
    }

    /// The compiled pattern; one that is not written in the expression is dear.
    pub(super) fn matcher(&self, text: &str) -> Result<std::borrow::Cow<'a, Regex>, Fault> {
        if let Some(known) = self.program.patterns.get(text) {
            return Ok(std::borrow::Cow::Borrowed(known));
        }
        self.budget.pay(10_000 + text.len() as u64 * 100)?;
        super::pattern(text).map(std::borrow::Cow::Owned).map_err(Fault::Error)
    }
}

/// A name that no author can write: what a comprehension gathers.
fn gathers(expression: &IdedExpr) -> bool {
    matches!(&expression.expr, Expr::Ident(name) if name.starts_with('@'))
}

fn field<'a>(operand: &Val<'a>, name: &str) -> Result<Option<Val<'a>>, Fault> {
    match operand {
        Val::Map(map) => Ok(map.field(name)),
        Val::Optional(None) => Ok(None),
        Val::Optional(Some(inner)) => field(inner, name),
        other => error(format!("no such overload: {} has no fields", other.type_name())),
    }
}

fn of_literal(literal: &LiteralValue) -> Val<'_> {
    match literal {
        LiteralValue::Null => Val::Null,
        LiteralValue::Boolean(is) => Val::Bool(*is.inner()),
        LiteralValue::Int(number) => Val::Int(*number.inner()),
        LiteralValue::UInt(number) => Val::Uint(*number.inner()),
        LiteralValue::Double(number) => Val::Double(*number.inner()),
        LiteralValue::String(text) => Val::Text(std::borrow::Cow::Borrowed(text.inner())),
        LiteralValue::Bytes(bytes) => Val::Bytes(bytes.inner().into()),
    }
}
