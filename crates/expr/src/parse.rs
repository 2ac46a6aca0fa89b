//! From source text to the compiled form: limits, the fast path, and CEL's parser.

mod convert;
mod fast;
pub(crate) mod limits;
mod syntax;

pub(crate) use convert::is_reserved;

use std::sync::Arc;

use cel::Env;

use crate::Problem;
use crate::ast::{Node, Span};

/// Longest source, in bytes.
pub(crate) const MAX_SOURCE: usize = 16 << 10;
/// Deepest nesting of an expression.
pub(crate) const MAX_DEPTH: usize = 96;

/// A compiled expression and what is known of it without a scope.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) root: Node,
    pub(crate) depth: usize,
    /// Paths of free names, sorted, without repetition.
    pub(crate) references: Vec<Vec<Arc<str>>>,
    /// The root name of every free path, in the order of the source.
    pub(crate) roots: Vec<(Arc<str>, Span)>,
}

pub(crate) fn parse(source: &str) -> Result<Parsed, Vec<Problem>> {
    if source.len() > MAX_SOURCE {
        return Err(vec![Problem {
            span: 0..source.len(),
            message: format!(
                "the expression has {} bytes; {MAX_SOURCE} are the most allowed",
                source.len()
            ),
            hint: Some("compute parts of it in `set` steps".to_owned()),
        }]);
    }
    if source.trim().is_empty() {
        return Err(vec![Problem {
            span: 0..source.len(),
            message: "the expression is empty".to_owned(),
            hint: None,
        }]);
    }
    if let Some(root) = fast::parse(source) {
        return convert::finish(root);
    }
    limits::check(source)?;
    let (expr, info) = Env::default()
        .parser()
        .enable_optional_syntax(false)
        .enable_ident_escape_syntax(false)
        .max_recursion_depth(u16::try_from(MAX_DEPTH * 2).unwrap_or(u16::MAX))
        .parse_with_source_info(source)
        .map_err(|errors| syntax::problems(source, &errors))?;
    convert::convert(source, &info, expr)
}
