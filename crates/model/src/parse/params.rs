//! Definitions of parameters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kapell_expr::{Object, Template, Type, Value};

use crate::convert::{Source, from_source};
use crate::language;
use crate::limits;
use crate::spec::Param;
use crate::yaml::{Entry, Kind, Node};

use super::Context;
use super::fields::Fields;
use super::scope::{RunIs, Scope, object_type, top_names};
use super::template::{self, Secrets};

/// The parameters and the type of `params`.
pub(crate) fn read(cx: &mut Context<'_>, node: &Node) -> (Vec<Param>, Type) {
    let entries = cx.entries(node, "`params`");
    if entries.len() > limits::PARAMS {
        let message = format!("a workflow has at most {} parameters", limits::PARAMS);
        cx.error_hint(
            "limit",
            node.span,
            message,
            "put what belongs together into one map",
        );
        return (Vec::new(), Type::Any);
    }
    let types: Vec<Option<Type>> = entries
        .iter()
        .map(|entry| declared_type(cx, entry))
        .collect();
    let mut object = Object {
        name: "params".to_owned(),
        ..Object::default()
    };
    for (entry, of) in entries.iter().zip(&types) {
        object
            .fields
            .insert(entry.key.to_string(), of.clone().unwrap_or(Type::Any));
    }
    let all = Type::Object(Arc::new(object));
    let scope = Scope::top(top_names(all.clone(), RunIs::New));
    let params: Vec<Param> = entries
        .iter()
        .zip(types)
        .filter_map(|(entry, of)| read_one(cx, entry, of.unwrap_or(Type::Any), &scope))
        .collect();
    refuse_cycles(cx, entries, &params);
    (params, all)
}

fn declared_type(cx: &mut Context<'_>, entry: &Entry) -> Option<Type> {
    let node = entry
        .value
        .map()?
        .iter()
        .find(|field| &*field.key == "type")
        .map(|field| &field.value)?;
    cx.type_name(node)
}

fn read_one(cx: &mut Context<'_>, entry: &Entry, ty: Type, scope: &Scope<'_>) -> Option<Param> {
    let named = cx.expression_name(&entry.key, entry.key_span, "parameter");
    let fields = cx.fields(&entry.value, &language::PARAM)?;
    let file = fields
        .get("type")
        .and_then(Node::scalar)
        .is_some_and(|scalar| scalar.text.trim() == "file");
    let ty = if file { Type::String } else { ty };
    let allowed = fields.get("enum").map(|node| {
        let items = cx.items(node, "`enum`");
        items
            .iter()
            .filter_map(|item| literal_of(cx, item, &ty, "enum", scope))
            .collect::<Vec<_>>()
    });
    if let Some(node) = fields
        .get("enum")
        .filter(|_| allowed.as_ref().is_some_and(Vec::is_empty))
    {
        cx.error("wrong-form", node.span, "`enum` allows nothing");
    }
    let bound = bound_type(&ty);
    let bound_of = |cx: &mut Context<'_>, key: &'static str| {
        let node = fields.get(key)?;
        let Some(bound) = &bound else {
            cx.error_hint(
                "bad-bound",
                node.span,
                format!("`{key}` means nothing for {ty}"),
                "it bounds numbers, dates, times, text and lists",
            );
            return None;
        };
        literal_of(cx, node, bound, key, scope)
    };
    let (min, max) = (bound_of(cx, "min"), bound_of(cx, "max"));
    if let (Some(min), Some(max), Some(node)) = (&min, &max, fields.get("max"))
        && crate::params::less(max, min)
    {
        cx.error("out-of-range", node.span, "`max` is less than `min`");
    }
    let pattern = pattern(cx, &fields, &ty);
    let param = Param {
        name: entry.key.clone(),
        file,
        default: fields
            .get("default")
            .and_then(|node| default(cx, node, &ty, scope)),
        allowed,
        min,
        max,
        pattern,
        fixed: fields
            .get("fixed")
            .and_then(|node| cx.bool(node, "fixed"))
            .unwrap_or(false),
        description: cx.prose(fields.get("description"), "description"),
        ty,
    };
    if let (Some(Template::Literal(value)), Some(node)) = (&param.default, fields.get("default"))
        && value.size() > limits::PARAMS_BYTES
    {
        let message = format!(
            "the parameters of a run take at most {} bytes, and this default alone takes {}",
            limits::PARAMS_BYTES,
            value.size()
        );
        cx.error_hint(
            "limit",
            node.span,
            message,
            "pass large data as a file or by its address",
        );
    }
    if let (Some(fixed), None) = (
        fields.entry("fixed").filter(|_| param.fixed),
        fields.get("default"),
    ) {
        cx.error(
            "fixed-without-default",
            fixed.key_span,
            format!("`{}` is fixed and has no default", entry.key),
        );
    }
    if let (Some(Template::Literal(value)), Some(node)) = (&param.default, fields.get("default"))
        && let Err(why) = crate::params::within(&param, value)
    {
        cx.error(
            "bad-default",
            node.span,
            format!("the default of `{}` {why}", entry.key),
        );
    }
    named.then_some(param)
}

/// What bounds of a type are: a value of it, or the length of text and lists.
fn bound_type(ty: &Type) -> Option<Type> {
    match ty {
        Type::Int | Type::Float | Type::Date | Type::Timestamp | Type::Duration => Some(ty.clone()),
        Type::String | Type::List(_) => Some(Type::Int),
        Type::Any | Type::Null | Type::Bool | Type::Bytes | Type::Map(_) | Type::Object(_) => None,
    }
}

fn pattern(cx: &mut Context<'_>, fields: &Fields<'_>, ty: &Type) -> Option<String> {
    let node = fields.get("pattern")?;
    let text = cx.literal(node, "pattern", "patterns are fixed")?;
    if *ty != Type::String {
        cx.error(
            "bad-bound",
            node.span,
            format!("`pattern` is for text, and this is {ty}"),
        );
        return None;
    }
    match crate::params::compile(&text) {
        Ok(_) => Some(text.to_string()),
        Err(why) => {
            cx.error(
                "bad-pattern",
                node.span,
                format!("`{text}` is not a regular expression: {why}"),
            );
            None
        }
    }
}

/// A literal value of a type; what it is instead, is said.
fn literal_of(
    cx: &mut Context<'_>,
    node: &Node,
    ty: &Type,
    what: &str,
    scope: &Scope<'_>,
) -> Option<Value> {
    let (template, _) = written(cx, node, ty, what, scope)?;
    let Template::Literal(value) = template else {
        cx.error(
            "literal-only",
            node.span,
            format!("`{what}` takes no expressions"),
        );
        return None;
    };
    converted(cx, node, &value, ty, what)
}

fn converted(
    cx: &mut Context<'_>,
    node: &Node,
    value: &Value,
    ty: &Type,
    what: &str,
) -> Option<Value> {
    match from_source(value, ty, Source::Typed) {
        Ok(value) => Some(value),
        Err(why) => {
            cx.error("wrong-type", node.span, format!("`{what}` {why}"));
            None
        }
    }
}

/// Text stays as written where text is declared, inside lists and maps too. Null is an error there.
fn written(
    cx: &mut Context<'_>,
    node: &Node,
    ty: &Type,
    what: &str,
    scope: &Scope<'_>,
) -> Option<(Template, Type)> {
    match (ty, &node.kind) {
        (Type::String, Kind::Scalar(_)) => {
            let (template, of) = cx.typed_text(node, what, scope, Secrets::Refused)?;
            // What an expression gives becomes text or is refused where it is evaluated.
            let literal = matches!(template, Template::Literal(_));
            Some((template, if literal { of } else { Type::Any }))
        }
        (Type::List(of), Kind::List(items)) => {
            let read: Vec<_> = items
                .iter()
                .map(|item| written(cx, item, of, what, scope))
                .collect();
            let (templates, types): (Vec<_>, Vec<_>) = read
                .into_iter()
                .collect::<Option<Vec<_>>>()?
                .into_iter()
                .unzip();
            let of = Type::List(Arc::new(Type::join_all(&types)));
            Some((template::list(templates), of))
        }
        (Type::Map(of), Kind::Map(entries)) => {
            let mut templates = Vec::with_capacity(entries.len());
            let mut types = Vec::with_capacity(entries.len());
            for entry in entries {
                cx.literal_key(entry);
                if let Some((template, found)) = written(cx, &entry.value, of, what, scope) {
                    templates.push((entry.key.clone(), template));
                    types.push((entry.key.to_string(), found));
                }
            }
            (templates.len() == entries.len())
                .then(|| (template::map(templates), object_type("the map", types)))
        }
        _ => cx.value(node, scope, Secrets::Refused),
    }
}

fn default(cx: &mut Context<'_>, node: &Node, ty: &Type, scope: &Scope<'_>) -> Option<Template> {
    let (template, found) = written(cx, node, ty, "default", scope)?;
    if let Template::Literal(value) = &template {
        return converted(cx, node, value, ty, "default").map(Template::Literal);
    }
    if !may_become(&found, ty) {
        cx.error(
            "wrong-type",
            node.span,
            format!("`default` is {ty}, and this gives {found}"),
        );
        return None;
    }
    Some(template)
}

/// A value for a parameter that is given in a file: as written where text is declared, else held
/// against its type and, if it is literal, against its bounds.
pub(crate) fn supplied(
    cx: &mut Context<'_>,
    node: &Node,
    param: &Param,
    scope: &Scope<'_>,
) -> Option<Template> {
    let (template, found) = written(cx, node, &param.ty, &param.name, scope)?;
    let Template::Literal(value) = &template else {
        if may_become(&found, &param.ty) {
            return Some(template);
        }
        let message = format!("`{}` is {}, and this gives {found}", param.name, param.ty);
        cx.error("wrong-type", node.span, message);
        return None;
    };
    let value = converted(cx, node, value, &param.ty, &param.name)?;
    if let Err(why) = crate::params::within(param, &value) {
        cx.error("bad-param", node.span, format!("`{}` {why}", param.name));
        return None;
    }
    Some(Template::Literal(value))
}

/// Whether a value of type `found` may convert to `ty`.
fn may_become(found: &Type, ty: &Type) -> bool {
    match (found, ty) {
        (Type::Any, _)
        | (_, Type::Any)
        | (Type::Int, Type::Float)
        | (Type::String, Type::Date | Type::Timestamp | Type::Duration) => true,
        (Type::List(found), Type::List(ty)) | (Type::Map(found), Type::Map(ty)) => {
            may_become(found, ty)
        }
        (Type::Object(found), Type::Map(ty)) => {
            found.fields.values().all(|field| may_become(field, ty))
        }
        (found, ty) => found == ty,
    }
}

/// What follows a root in the expressions of a template: of `params` the names of those it reads.
pub(crate) fn references(template: &Template, of: &str) -> BTreeSet<Arc<str>> {
    fn walk(template: &Template, of: &str, found: &mut BTreeSet<Arc<str>>) {
        let mut add = |program: &kapell_expr::Program| {
            for path in program.references() {
                if let [root, name, ..] = path.as_slice()
                    && &**root == of
                {
                    found.insert(name.clone());
                }
            }
        };
        match template {
            Template::Literal(_) => {}
            Template::Expr(program) => add(program),
            Template::Text(text) => text.programs().into_iter().for_each(add),
            Template::List(items) => items.iter().for_each(|item| walk(item, of, found)),
            Template::Map(entries) => entries.iter().for_each(|(_, value)| walk(value, of, found)),
        }
    }
    let mut found = BTreeSet::new();
    walk(template, of, &mut found);
    found
}

/// Refuses defaults that need each other.
fn refuse_cycles(cx: &mut Context<'_>, entries: &[Entry], params: &[Param]) {
    let reads: BTreeMap<&str, BTreeSet<Arc<str>>> = params
        .iter()
        .filter_map(|param| Some((&*param.name, references(param.default.as_ref()?, "params"))))
        .collect();
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for entry in entries {
        let mut path: Vec<&str> = Vec::new();
        let mut at = &*entry.key;
        // Follows the first reference that is not known to end, until there is none or it repeats.
        loop {
            if let Some(from) = path.iter().position(|name| *name == at) {
                let mut names = path.split_off(from);
                done.extend(&names);
                names.push(at);
                cx.error_hint(
                    "cycle",
                    entry.key_span,
                    format!(
                        "defaults need each other in a circle: {}",
                        names.join(" -> ")
                    ),
                    "give one of them a default that does not use the others",
                );
                break;
            }
            let next = reads.get(at).and_then(|named| {
                let mut known = named.iter().filter_map(|name| reads.get_key_value(&**name));
                known.find_map(|(name, _)| (!done.contains(name)).then_some(*name))
            });
            if let Some(next) = next {
                path.push(at);
                at = next;
            } else {
                done.insert(at);
                match path.pop() {
                    Some(previous) => at = previous,
                    None => break,
                }
            }
        }
    }
}
