//! Keys that mean nothing on some verbs.

use super::Context;
use super::fields::Fields;
use super::step::Class;
use crate::yaml::Node;

/// Keys that mean nothing on a verb of this class.
pub(crate) fn refuse(cx: &mut Context<'_>, fields: &Fields<'_>, verb: &str, class: Class) {
    if class != Class::Attempts {
        if let Some(entry) = fields.entry("locks") {
            cx.error_hint(
                "locks-not-here",
                entry.key_span,
                format!("`{verb}` makes no attempts, and a lock is held for an attempt"),
                "put the lock on the steps inside, or limit starts with `strategy`",
            );
        }
        for key in [
            "env",
            "artifacts",
            "queue",
            "resources",
            "fairness",
            "once",
            "idempotent",
        ] {
            if let Some(entry) = fields.entry(key) {
                let hint = match class {
                    Class::Container => "put it on the steps inside, or into `defaults`",
                    Class::Child => "it belongs into the other workflow",
                    Class::Attempts | Class::Engine => "remove it",
                };
                cx.warn(
                    "no-effect",
                    entry.key_span,
                    format!("`{key}` does nothing on {} step", one(verb)),
                    hint,
                );
            }
        }
    }
    if let Some(entry) = fields
        .entry("with")
        .filter(|_| !matches!(verb, "shell" | "exec" | "python" | "workflow"))
    {
        cx.warn(
            "no-effect",
            entry.key_span,
            format!("`with` does nothing on {} step", one(verb)),
            "write the values where they are used",
        );
    }
    if let Some(entry) = fields.entry("retry").filter(|_| class == Class::Engine) {
        cx.warn(
            "no-effect",
            entry.key_span,
            format!("`retry` does nothing on {} step", one(verb)),
            "remove it",
        );
    }
    if let Some(entry) = fields
        .entry("timeout")
        .filter(|_| matches!(verb, "await" | "approval"))
    {
        cx.error_hint(
            "timeout-not-here",
            entry.key_span,
            format!("the timeout of {} is in the verb", one(verb)),
            format!("write `{verb}: {{ …, timeout: … }}`"),
        );
    }
    refuse_outputs(cx, fields, verb);
}

/// The verb with its article.
fn one(verb: &str) -> String {
    let article = if verb.starts_with(['a', 'e']) {
        "an"
    } else {
        "a"
    };
    format!("{article} `{verb}`")
}

fn refuse_outputs(cx: &mut Context<'_>, fields: &Fields<'_>, verb: &str) {
    if let Some(entry) = fields
        .entry("outputs")
        .filter(|_| matches!(verb, "loop" | "switch"))
    {
        let is = if verb == "loop" {
            "the last vars and `iterations`"
        } else {
            "the taken branch's"
        };
        cx.error_hint(
            "outputs-not-here",
            entry.key_span,
            format!("the output of a `{verb}` is {is}"),
            "to shape it, add a `set` step behind",
        );
    }
    let file = fields
        .get("outputs")
        .and_then(Node::map)
        .and_then(|entries| entries.iter().find(|entry| &*entry.key == "file"));
    if let Some(entry) = file.filter(|_| !matches!(verb, "shell" | "exec" | "steps")) {
        cx.error_hint(
            "outputs-not-here",
            entry.key_span,
            format!("{} step writes no output file", one(verb)),
            "`outputs.file` is for `shell` and `exec`",
        );
    }
}
