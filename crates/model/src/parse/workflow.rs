//! The top level of a file.

use std::sync::Arc;

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use kapell_expr::{Object, Template, Type};

use crate::language;
use crate::spec::{FailurePolicy, Graph, Named, Param, Spec, Strategy, Trigger};
use crate::yaml::Node;

use super::Context;
use super::containers;
use super::fields::Fields;
use super::graph;
use super::params;
use super::scope::{GraphView, RunIs, Scope, top_names};
use super::step::{Around, Defaults};
use super::triggers;

/// Reads a file's root.
pub(crate) fn read(cx: &mut Context<'_>, root: &Node) -> Option<Spec> {
    let fields = cx.fields(root, &language::WORKFLOW)?;
    let roots: Vec<&Node> = [fields.get("steps"), fields.get("finally")]
        .into_iter()
        .flatten()
        .collect();
    if !graph::survey(cx, &roots) {
        return None;
    }
    let (params, params_type) = fields
        .get("params")
        .map_or_else(|| (Vec::new(), no_params()), |node| params::read(cx, node));
    let new = Scope::top(top_names(params_type.clone(), RunIs::New));
    let started = Scope::top(top_names(params_type, RunIs::Started));
    let timeout = fields
        .get("timeout")
        .and_then(|node| cx.duration(node, "timeout"));
    if let (Some(node), Some(SignedDuration::ZERO)) = (fields.get("timeout"), timeout) {
        cx.no_time(node, "timeout");
    }
    cx.run_timeout = timeout;

    let timezone = fields
        .get("timezone")
        .and_then(|node| timezone(cx, node))
        .unwrap_or_else(|| "UTC".into());
    let triggers = triggers(cx, &fields, &timezone, &params);
    let (graph, finally, outputs) = graphs(cx, &fields, &started);
    let strategy = fields.get("strategy").map(|node| cx.strategy(node, &new));
    let policies = [
        ("finish_running", FailurePolicy::FinishRunning),
        ("fail_fast", FailurePolicy::FailFast),
        ("continue", FailurePolicy::Continue),
    ];
    Some(Spec {
        workflow: name(cx, &fields, "workflow").unwrap_or_default(),
        namespace: name(cx, &fields, "namespace"),
        description: cx.prose(fields.get("description"), "description"),
        owner: cx.prose(fields.get("owner"), "owner"),
        tags: tags(cx, &fields),
        labels: fields
            .get("labels")
            .map(|node| cx.labels(node, &new))
            .unwrap_or_default(),
        timezone,
        priority: fields
            .get("priority")
            .and_then(|node| cx.count(node, "priority", (0, 100)))
            .and_then(|priority| u8::try_from(priority).ok())
            .unwrap_or(50),
        params,
        strategy: strategy.unwrap_or_else(Strategy::default),
        max_parallelism: fields
            .get("max_parallelism")
            .and_then(|node| cx.count(node, "max_parallelism", (1, 1_000_000))),
        on_step_failure: fields
            .get("on_step_failure")
            .and_then(|node| cx.choice(node, "on_step_failure", &policies))
            .unwrap_or_default(),
        timeout,
        deadline: fields
            .get("deadline")
            .and_then(|node| cx.deadline(node, &new)),
        notify: fields
            .get("notify")
            .map(|node| cx.notify(node))
            .unwrap_or_default(),
        triggers,
        retention: fields
            .get("retention")
            .map(|node| cx.retention(node))
            .unwrap_or_default(),
        graph,
        finally,
        outputs,
    })
}

fn triggers(
    cx: &mut Context<'_>,
    fields: &Fields<'_>,
    timezone: &str,
    params: &[Param],
) -> Vec<Trigger> {
    let Some(node) = fields.get("triggers") else {
        return Vec::new();
    };
    let of = triggers::Of {
        timezone,
        params,
        params_node: fields.get("params"),
    };
    let triggers = triggers::read(cx, node, &of);
    triggers::warn_of_intervals(cx, &of, &triggers);
    triggers
}

/// The steps, `finally` and the run's outputs.
fn graphs(
    cx: &mut Context<'_>,
    fields: &Fields<'_>,
    started: &Scope<'_>,
) -> (Graph, Option<Graph>, Named<Template>) {
    let around = Around {
        env: fields.get("env"),
        defaults: defaults(cx, fields),
        finally: false,
    };
    let (graph, view) = match fields.get("steps") {
        Some(node) => graph::read(cx, node, started, &around),
        None => (Graph::default(), GraphView::new(Vec::new(), &[], &[])),
    };
    let after = started.all(&view);
    // `finally` runs outside the run's timeout.
    cx.run_timeout = None;
    let around = Around {
        finally: true,
        ..around
    };
    let finally = fields
        .get("finally")
        .map(|node| graph::read(cx, node, &after, &around).0);
    let outputs = fields
        .get("outputs")
        .map(|node| containers::outputs(cx, node, "`outputs`", &after).0);
    (graph, finally, outputs.unwrap_or_default())
}

fn no_params() -> Type {
    Type::Object(Arc::new(Object {
        name: "params".to_owned(),
        ..Object::default()
    }))
}

fn name(cx: &mut Context<'_>, fields: &Fields<'_>, key: &'static str) -> Option<Arc<str>> {
    let node = fields.get(key)?;
    let name = cx.literal(
        node,
        key,
        "names are fixed; to tell runs apart use `labels`",
    )?;
    cx.plain_name(&name, node.span, key).then_some(name)
}

fn tags(cx: &mut Context<'_>, fields: &Fields<'_>) -> Vec<String> {
    let Some(node) = fields.get("tags") else {
        return Vec::new();
    };
    let items = cx.one_or_many(node, "`tags`");
    let tags = items.iter().filter_map(|item| {
        Some((
            cx.literal(
                item,
                "tags",
                "tags are fixed; for values of a run use `labels`",
            )?,
            item.span,
        ))
    });
    let tags: Vec<_> = tags.collect();
    cx.without_repeats(tags, "tags")
        .into_iter()
        .map(|(tag, _)| tag.to_string())
        .collect()
}

pub(crate) fn timezone(cx: &mut Context<'_>, node: &Node) -> Option<Arc<str>> {
    let name = cx.literal(node, "timezone", "the time zone is fixed")?;
    if TimeZone::get(&name).is_ok() {
        return Some(name);
    }
    cx.no_zone(node, &name);
    None
}

impl Context<'_> {
    /// Says that there is no such time zone.
    pub(crate) fn no_zone(&mut self, node: &Node, name: &str) {
        let known: Vec<String> = jiff::tz::db()
            .available()
            .map(|name| name.to_string())
            .collect();
        let near = self.nearest(name, known.iter().map(String::as_str));
        let hint = near.map_or_else(
            || "write an IANA name such as `Europe/Berlin`, or `UTC`".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        self.error_hint(
            "unknown-timezone",
            node.span,
            format!("there is no time zone `{name}`"),
            hint,
        );
    }
}

/// `defaults` by key. What its maps hold is checked here, their values with each step.
fn defaults<'n>(cx: &mut Context<'_>, fields: &Fields<'n>) -> Defaults<'n> {
    let Some(fields) = fields
        .get("defaults")
        .and_then(|node| cx.fields(node, &language::DEFAULTS))
    else {
        return Defaults::default();
    };
    for (key, section) in [
        ("retry", &language::RETRY),
        ("resources", &language::RESOURCES),
    ] {
        if let Some(node) = fields.get(key) {
            cx.fields(node, section);
        }
    }
    Defaults {
        retry: fields.get("retry"),
        timeout: fields.get("timeout"),
        queue: fields.get("queue"),
        env: fields.get("env"),
        resources: fields.get("resources"),
    }
}
