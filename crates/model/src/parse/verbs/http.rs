//! `http`.

use std::sync::Arc;

use kapell_expr::{Part, Template, Type};

use crate::language;
use crate::parse::Context;
use crate::parse::scope::{Scope, object_type};
use crate::parse::template::Secrets;
use crate::spec::{Http, HttpAuth};
use crate::yaml::{Entry, Node};

pub(super) fn read(cx: &mut Context<'_>, node: &Node, item: &Scope<'_>) -> Option<Http> {
    let fields = cx.fields(node, &language::HTTP)?;
    let methods =
        ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].map(|method| (method, method));
    let has_body = fields.get("json").is_some() || fields.get("body").is_some();
    let usual = if has_body { "POST" } else { "GET" };
    let method = fields
        .get("method")
        .map_or(Some(usual), |node| cx.choice(node, "method", &methods));
    if let (Some(_), Some(body)) = (fields.get("json"), fields.entry("body")) {
        cx.error_hint(
            "one-of",
            body.key_span,
            "a request has one body, and here are `json` and `body`",
            "keep one of them",
        );
    }
    let url = fields.get("url").and_then(|node| url(cx, node, item));
    let headers = fields.get("headers").map(|node| {
        let entries = cx.entries(node, "`headers`");
        cx.named_texts(entries, item, Secrets::Allowed, header_fine)
    });
    Some(Http {
        method: method?.into(),
        query: fields
            .get("query")
            .and_then(|node| cx.values_map(node, "`query`", item, Secrets::Refused)),
        headers: headers.unwrap_or_default(),
        json: fields
            .get("json")
            .and_then(|node| cx.value(node, item, Secrets::Refused))
            .map(|(template, _)| template),
        body: fields
            .get("body")
            .and_then(|node| cx.text(node, "body", item, Secrets::Refused)),
        auth: fields.get("auth").and_then(|node| auth(cx, node, item)),
        url: url?,
    })
}

fn url(cx: &mut Context<'_>, node: &Node, item: &Scope<'_>) -> Option<Template> {
    let url = cx.text(node, "url", item, Secrets::Refused)?;
    let start = match &url {
        Template::Literal(value) => value.as_str(),
        Template::Text(text) => text.parts.first().and_then(|part| match part {
            Part::Literal(text) => Some(&**text),
            Part::Expr(_) | Part::Secret(_) => None,
        }),
        Template::Expr(_) | Template::List(_) | Template::Map(_) => None,
    };
    if start.is_some_and(|start| !start.starts_with("http://") && !start.starts_with("https://")) {
        cx.error(
            "bad-url",
            node.span,
            "`url` starts with `https://` or `http://`",
        );
        return None;
    }
    Some(url)
}

fn header_fine(cx: &mut Context<'_>, entry: &Entry) -> bool {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let fine = !entry.key.is_empty() && entry.key.chars().all(token);
    if !fine {
        cx.error(
            "bad-name",
            entry.key_span,
            format!("`{}` cannot name a header", entry.key),
        );
    }
    fine
}

fn auth(cx: &mut Context<'_>, node: &Node, item: &Scope<'_>) -> Option<HttpAuth> {
    let fields = cx.fields(node, &language::AUTH)?;
    let mut text = |key: &'static str| {
        fields
            .get(key)
            .map(|node| cx.text(node, key, item, Secrets::Allowed))
    };
    match (text("bearer"), text("user"), text("password")) {
        (Some(bearer), None, None) => bearer.map(HttpAuth::Bearer),
        (None, Some(user), Some(password)) => Some(HttpAuth::Basic {
            user: user?,
            password: password?,
        }),
        _ => {
            cx.error_hint(
                "one-of",
                fields.span,
                "`auth` takes `bearer`, or `user` and `password`",
                "keep one way",
            );
            None
        }
    }
}

/// The type of the output.
pub(super) fn output() -> Type {
    let headers = Type::Map(Arc::new(Type::String));
    object_type(
        "the response",
        [
            ("status", Type::Int),
            ("headers", headers),
            ("body", Type::Any),
        ],
    )
}
