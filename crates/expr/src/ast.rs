//! The compiled form of an expression: what the checker and the evaluator walk.

use std::ops::Range;
use std::sync::Arc;

use regex::Regex;

use crate::Value;
use crate::functions::Function;

/// Bytes of the source, from start to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Self {
        // Sources are below 16 KiB, so both always fit.
        let narrow = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        Self {
            start: narrow(start),
            end: narrow(end),
        }
    }

    pub(crate) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    pub(crate) fn to(self, other: Self) -> Self {
        Self {
            start: self.start.min(other.start),
            end: self.end.max(other.end),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) span: Span,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Literal(Value),
    /// A name of the scope and the fields selected from it.
    Path(Path),
    /// A variable of an enclosing macro, by its place on the stack of variables.
    Local {
        slot: usize,
        name: Arc<str>,
    },
    Select {
        operand: Box<Node>,
        field: Name,
    },
    /// `has(operand.field)` where the operand is not a path.
    Has {
        operand: Box<Node>,
        field: Name,
    },
    /// `has(a.b.c)`: all names of the path, the tested one last.
    HasPath(Path),
    Index {
        operand: Box<Node>,
        index: Box<Node>,
    },
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<[Node; 2]>),
    Or(Box<[Node; 2]>),
    Cond(Box<[Node; 3]>),
    Binary(BinaryOp, Box<[Node; 2]>),
    List(Box<[Node]>),
    Map(Box<[(Node, Node)]>),
    Macro(Box<Macro>),
    Coalesce(Box<[Node]>),
    Call(Box<Call>),
}

#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) text: Arc<str>,
    pub(crate) span: Span,
}

/// At least one name.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) names: Vec<Arc<str>>,
    pub(crate) spans: Vec<Span>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BinaryOp {
    Add,
    Sub,
    Mul,
    Div,
    Rem,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
}

impl BinaryOp {
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Sub => "-",
            Self::Mul => "*",
            Self::Div => "/",
            Self::Rem => "%",
            Self::Eq => "==",
            Self::Ne => "!=",
            Self::Lt => "<",
            Self::Le => "<=",
            Self::Gt => ">",
            Self::Ge => ">=",
            Self::In => "in",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MacroKind {
    All,
    Exists,
    ExistsOne,
    Filter,
    Map,
    MinBy,
    MaxBy,
    SortBy,
}

impl MacroKind {
    pub(crate) const ALL: [(&'static str, Self); 9] = [
        ("all", Self::All),
        ("exists", Self::Exists),
        ("exists_one", Self::ExistsOne),
        ("existsOne", Self::ExistsOne),
        ("filter", Self::Filter),
        ("map", Self::Map),
        ("min_by", Self::MinBy),
        ("max_by", Self::MaxBy),
        ("sort_by", Self::SortBy),
    ];

    pub(crate) fn by_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, kind)| *kind)
    }

    pub(crate) fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("", |(name, _)| name)
    }
}

/// `list.macro(variable, body)`; `map` also has a form with a condition before the body.
#[derive(Debug)]
pub(crate) struct Macro {
    pub(crate) kind: MacroKind,
    pub(crate) list: Node,
    /// The place of the variable on the stack of variables.
    pub(crate) slot: usize,
    pub(crate) condition: Option<Node>,
    pub(crate) body: Node,
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) name: Name,
    /// `None`: no such function, or none that takes arguments of this number.
    pub(crate) function: Option<&'static Function>,
    /// Called as `args[0].name(args[1..])`.
    pub(crate) method: bool,
    pub(crate) args: Vec<Node>,
    /// The compiled pattern of `matches` where it is a literal.
    pub(crate) regex: Option<Regex>,
}

impl Node {
    /// Calls `visit` with each direct child, in the order of the source.
    pub(crate) fn for_each_child<'a>(&'a self, visit: &mut dyn FnMut(&'a Node)) {
        match &self.kind {
            Kind::Literal(_) | Kind::Path(_) | Kind::HasPath(_) | Kind::Local { .. } => {}
            Kind::Select { operand, .. }
            | Kind::Has { operand, .. }
            | Kind::Not(operand)
            | Kind::Negate(operand) => visit(operand),
            Kind::Index { operand, index } => {
                visit(operand);
                visit(index);
            }
            Kind::And(sides) | Kind::Or(sides) | Kind::Binary(_, sides) => {
                sides.iter().for_each(visit);
            }
            Kind::Cond(parts) => parts.iter().for_each(visit),
            Kind::List(items) | Kind::Coalesce(items) => items.iter().for_each(visit),
            Kind::Map(entries) => {
                for (key, value) in entries {
                    visit(key);
                    visit(value);
                }
            }
            Kind::Macro(call) => {
                visit(&call.list);
                if let Some(condition) = &call.condition {
                    visit(condition);
                }
                visit(&call.body);
            }
            Kind::Call(call) => call.args.iter().for_each(visit),
        }
    }
}
