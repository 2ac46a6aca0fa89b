//! What starts runs by itself.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use kapell_expr::{Template, Type};

use crate::Time;
use crate::language::{self, TRIGGER};
use crate::limits;
use crate::spec::{
    Catchup, Param, Schedule, SignalSource, SignalTrigger, Timing, Trigger, TriggerKind, Webhook,
};
use crate::yaml::{Entry, Kind, Node, Span};

use super::Context;
use super::fields::Fields;
use super::params::{self, references};
use super::scope::{Scope, object_type, trigger_names};
use super::signals::signal_type;
use super::template::{self, Secrets};
use super::workflow::timezone;

/// What triggers know of their workflow.
pub(crate) struct Of<'a> {
    /// IANA name.
    pub(crate) timezone: &'a str,
    pub(crate) params: &'a [Param],
    /// As written.
    pub(crate) params_node: Option<&'a Node>,
}

/// Keys that belong to some kinds alone.
const ONLY: [(&str, &[&str]); 8] = [
    ("timezone", &["cron", "every"]),
    ("catchup", &["cron", "every"]),
    ("jitter", &["cron", "every"]),
    ("start", &["cron", "every"]),
    ("end", &["cron", "every"]),
    ("match", &["signal"]),
    ("within", &["signals"]),
    ("dedupe", &["signal", "signals", "webhook"]),
];

const FIXED_NAME: &str =
    "names of signals are fixed; tell them apart by `match`, by their key or by their payload";

/// `triggers`: a list.
pub(crate) fn read(cx: &mut Context<'_>, node: &Node, of: &Of<'_>) -> Vec<Trigger> {
    let items = cx.items(node, "`triggers`");
    if items.len() > limits::TRIGGERS {
        let message = format!("a workflow has at most {} triggers", limits::TRIGGERS);
        cx.error_hint("limit", node.span, message, "one signal may stand for many");
        return Vec::new();
    }
    let mut named: HashMap<Arc<str>, Span> = HashMap::new();
    let mut triggers = Vec::with_capacity(items.len());
    for item in items {
        let Some((trigger, span)) = read_one(cx, item, of) else {
            continue;
        };
        if named.insert(trigger.name.clone(), span).is_some() {
            cx.error_hint(
                "repeated-name",
                span,
                format!("two triggers are called `{}`", trigger.name),
                "give each a `name` of its own: it stays the same trigger over versions",
            );
        }
        triggers.push(trigger);
    }
    triggers
}

fn read_one(cx: &mut Context<'_>, node: &Node, of: &Of<'_>) -> Option<(Trigger, Span)> {
    let fields = cx.fields(node, &TRIGGER)?;
    let verb = the_kind(cx, &fields)?;
    for (key, kinds) in ONLY {
        if let Some(entry) = fields.entry(key).filter(|_| !kinds.contains(&&*verb.key)) {
            misplaced(cx, entry, &verb.key, kinds);
        }
    }
    let (name, span) = match fields.get("name") {
        Some(node) => (
            cx.literal(node, "name", "a trigger is known by its name")
                .filter(|name| cx.plain_name(name, node.span, "trigger")),
            node.span,
        ),
        None => (Some(verb.key.clone()), verb.key_span),
    };
    let started_by = started_by(&verb.key, &verb.value);
    let scope = Scope::top(trigger_names(&started_by));
    let kind = match &*verb.key {
        "cron" | "every" => schedule(cx, verb, &fields, of)
            .map(Box::new)
            .map(TriggerKind::Schedule),
        "signal" | "signals" => signals(cx, verb, &fields, &scope)
            .map(Box::new)
            .map(TriggerKind::Signal),
        _ => webhook(cx, verb, &fields, &scope).map(TriggerKind::Webhook),
    };
    let with = with(cx, &fields, verb, of, &scope);
    let when = fields
        .get("when")
        .and_then(|node| cx.condition(node, "when", &scope));
    let paused = fields
        .get("paused")
        .and_then(|node| cx.bool(node, "paused"))
        .unwrap_or(false);
    let trigger = Trigger {
        name: name?,
        kind: kind?,
        with,
        when,
        paused,
    };
    Some((trigger, span))
}

/// The one key that says what it waits for.
fn the_kind<'n>(cx: &mut Context<'_>, fields: &Fields<'n>) -> Option<&'n Entry> {
    const KINDS: &str = "`cron`, `every`, `signal`, `signals` or `webhook`";
    let mut kinds = fields.verbs();
    let first = kinds.next();
    if first.is_none() && fields.others().next().is_none() {
        let span = Span {
            start: fields.span.start,
            end: fields.span.start,
        };
        cx.error_hint(
            "no-kind",
            span,
            "a trigger says what it waits for",
            format!("add {KINDS}"),
        );
    }
    if let (Some(first), Some(second)) = (first, kinds.next()) {
        cx.error_hint(
            "two-kinds",
            second.key_span,
            format!(
                "a trigger has `{}` or `{}`, not both",
                first.key, second.key
            ),
            "make two triggers of it",
        );
    }
    // One without a value was reported with the keys.
    first.filter(|entry| !entry.value.is_null())
}

fn misplaced(cx: &mut Context<'_>, entry: &Entry, kind: &str, kinds: &[&str]) {
    let hint = match (&*entry.key, kind) {
        ("match", "signals") => "put it on the signal that it is about".to_owned(),
        ("match", _) => "use `when`".to_owned(),
        ("dedupe", _) => "a due time starts one run".to_owned(),
        ("timezone", _) => "set the workflow's `timezone`".to_owned(),
        _ => format!("it belongs to `{}`", kinds.join("` and `")),
    };
    let message = format!("`{}` means nothing on a `{kind}` trigger", entry.key);
    cx.error_hint("key-not-here", entry.key_span, message, hint);
}

/// What expressions of a trigger see of what started it: a name and its type.
fn started_by(kind: &str, node: &Node) -> Vec<(String, Type)> {
    match kind {
        "signal" | "webhook" => vec![("signal".to_owned(), signal_type())],
        "signals" => {
            let aliases = node.map().unwrap_or_default();
            let aliases = aliases
                .iter()
                .map(|entry| (entry.key.to_string(), signal_type()));
            vec![("signals".to_owned(), object_type("signals", aliases))]
        }
        _ => Vec::new(),
    }
}

fn schedule(
    cx: &mut Context<'_>,
    verb: &Entry,
    fields: &Fields<'_>,
    of: &Of<'_>,
) -> Option<Schedule> {
    let timing = if &*verb.key == "cron" {
        cx.cron(&verb.value).map(Timing::Cron)
    } else {
        every(cx, &verb.value).map(Timing::Every)
    };
    let timezone = fields.get("timezone").map(|node| timezone(cx, node));
    let zone = timezone.clone().flatten();
    let zone = TimeZone::get(zone.as_deref().unwrap_or(of.timezone)).unwrap_or(TimeZone::UTC);
    let catchup = fields
        .get("catchup")
        .map_or(Some(Catchup::default()), |node| catchup(cx, node));
    let jitter = fields
        .get("jitter")
        .and_then(|node| Some((cx.duration(node, "jitter")?, node)));
    if let (Some(timing), Some((jitter, node))) = (&timing, jitter) {
        check_jitter(cx, timing, jitter, node);
    }
    let start = fields
        .get("start")
        .and_then(|node| moment(cx, node, "start", &zone));
    let end = fields
        .get("end")
        .and_then(|node| Some((moment(cx, node, "end", &zone)?, node)));
    if let (Some(start), Some((end, node))) = (start, end)
        && end <= start
    {
        cx.error("out-of-range", node.span, "`end` is not after `start`");
    }
    Some(Schedule {
        timing: timing?,
        timezone: match timezone {
            Some(read) => Some(read?),
            None => None,
        },
        catchup: catchup?,
        jitter: jitter
            .map(|(jitter, _)| jitter)
            .filter(|jitter| !jitter.is_zero()),
        start,
        end: end.map(|(end, _)| end),
    })
}

/// A start that is late by more than the time to the next due time would come after that one's.
fn check_jitter(cx: &mut Context<'_>, timing: &Timing, jitter: SignedDuration, node: &Node) {
    let (gap, which) = match timing {
        Timing::Every(every) => (Some(*every), "they"),
        Timing::Cron(text) => (super::cron::shortest_gap(text), "the nearest of them"),
    };
    if let Some(gap) = gap.filter(|gap| jitter >= *gap) {
        cx.error_hint(
            "out-of-range",
            node.span,
            "`jitter` is shorter than the time between two due times",
            format!("{which} are {} apart", kapell_expr::format_duration(gap)),
        );
    }
}

fn every(cx: &mut Context<'_>, node: &Node) -> Option<SignedDuration> {
    let every = cx.duration(node, "every")?;
    if every < SignedDuration::from_secs(1) {
        cx.error_hint(
            "out-of-range",
            node.span,
            "`every` is at least `1s`",
            "for more than one run a second send a signal",
        );
        return None;
    }
    Some(every)
}

/// A word, or a map with its details.
fn catchup(cx: &mut Context<'_>, node: &Node) -> Option<Catchup> {
    const ALL: Catchup = Catchup::All {
        max: limits::CATCHUP,
        within: None,
        pace: None,
    };
    let modes = [
        ("latest", Catchup::Latest),
        ("none", Catchup::None),
        ("all", ALL),
    ];
    if node.scalar().is_some() {
        return cx.choice(node, "catchup", &modes);
    }
    let fields = cx.fields(node, &language::CATCHUP)?;
    let mode = cx.choice(fields.get("mode")?, "mode", &modes)?;
    if !matches!(mode, Catchup::All { .. }) {
        for key in ["max", "within", "pace"] {
            if let Some(entry) = fields.entry(key) {
                cx.error_hint(
                    "key-not-here",
                    entry.key_span,
                    format!("`{key}` bounds `mode: all`, and this makes up for one at most"),
                    "remove it, or write `mode: all`",
                );
            }
        }
        return Some(mode);
    }
    Some(Catchup::All {
        max: fields
            .get("max")
            .and_then(|node| cx.count(node, "max", (1, limits::CATCHUP)))
            .unwrap_or(limits::CATCHUP),
        within: fields
            .get("within")
            .and_then(|node| positive(cx, node, "within")),
        pace: fields
            .get("pace")
            .and_then(|node| cx.duration(node, "pace"))
            .filter(|pace| !pace.is_zero()),
    })
}

fn positive(cx: &mut Context<'_>, node: &Node, what: &str) -> Option<SignedDuration> {
    let span = cx.duration(node, what)?;
    if span.is_zero() {
        cx.no_time(node, what);
        return None;
    }
    Some(span)
}

/// A fixed instant; a date, or a time without an offset, is in the trigger's time zone.
fn moment(cx: &mut Context<'_>, node: &Node, what: &str, zone: &TimeZone) -> Option<Time> {
    let text = cx.literal(node, what, "when a schedule starts and ends is fixed")?;
    let local = || {
        let day = text
            .parse::<Date>()
            .map(|day| day.to_datetime(jiff::civil::Time::midnight()));
        let at = text.parse::<DateTime>().or(day).ok()?;
        Some(at.to_zoned(zone.clone()).ok()?.timestamp())
    };
    let at = text.parse::<Timestamp>().ok().or_else(local);
    if at.is_none() {
        cx.error_hint(
            "wrong-type",
            node.span,
            format!("`{what}` is a time, not `{text}`"),
            "write `2026-01-31`, `2026-01-31T12:00`, or `2026-01-31T12:00:00Z`",
        );
    }
    at.map(Time::from)
}

fn signals(
    cx: &mut Context<'_>,
    verb: &Entry,
    fields: &Fields<'_>,
    scope: &Scope<'_>,
) -> Option<SignalTrigger> {
    let dedupe = dedupe(cx, fields, scope);
    if &*verb.key == "signal" {
        let one = signal_scope();
        let matches = fields
            .get("match")
            .and_then(|node| cx.condition(node, "match", &one));
        return Some(SignalTrigger {
            sources: vec![SignalSource {
                alias: "".into(),
                signal: signal_name(cx, &verb.value)?,
                matches,
                key: None,
            }],
            within: None,
            dedupe,
        });
    }
    let entries = cx.entries(&verb.value, "`signals`");
    if verb.value.map().is_some() && !(2..=limits::SIGNAL_SOURCES).contains(&entries.len()) {
        let message = format!(
            "`signals` joins 2 to {} signals, and here are {}",
            limits::SIGNAL_SOURCES,
            entries.len()
        );
        cx.error_hint("limit", verb.value.span, message, "for one use `signal`");
        return None;
    }
    let sources: Vec<_> = entries.iter().map(|entry| source(cx, entry)).collect();
    let within = fields
        .get("within")
        .and_then(|node| positive(cx, node, "within"));
    Some(SignalTrigger {
        sources: sources
            .into_iter()
            .collect::<Option<Vec<_>>>()
            .filter(|sources| !sources.is_empty())?,
        within,
        dedupe,
    })
}

fn source(cx: &mut Context<'_>, entry: &Entry) -> Option<SignalSource> {
    let named = cx.expression_name(&entry.key, entry.key_span, "alias");
    let fields = cx.fields(&entry.value, &language::SIGNAL_SOURCE)?;
    let scope = signal_scope();
    let matches = fields
        .get("match")
        .and_then(|node| cx.condition(node, "match", &scope));
    let key = fields
        .get("key")
        .and_then(|node| cx.text(node, "key", &scope, Secrets::Refused));
    let signal = signal_name(cx, fields.get("signal")?)?;
    named.then(|| SignalSource {
        alias: entry.key.clone(),
        signal,
        matches,
        key,
    })
}

/// What `match` and `key` see: they are asked of one signal, before a run is thought of.
fn signal_scope() -> Scope<'static> {
    let names = trigger_names(&[("signal".to_owned(), signal_type())]);
    let why = "it is not known when a signal is looked at; use `when`";
    Scope::top(names).hiding(["run"].into_iter(), why)
}

fn signal_name(cx: &mut Context<'_>, node: &Node) -> Option<Arc<str>> {
    let name = cx.literal(node, "signal", FIXED_NAME)?;
    cx.plain_name(&name, node.span, "signal").then_some(name)
}

fn dedupe(cx: &mut Context<'_>, fields: &Fields<'_>, scope: &Scope<'_>) -> Option<Template> {
    let node = fields.get("dedupe")?;
    let template = cx.text(node, "dedupe", scope, Secrets::Refused)?;
    if super::literal_text(&template).is_some() {
        cx.error_hint(
            "wrong-form",
            node.span,
            "`dedupe` is the same for every signal, so one run would ever start",
            "use what tells them apart, as in `\"${{ signal.payload.id }}\"`",
        );
        return None;
    }
    Some(template)
}

fn webhook(
    cx: &mut Context<'_>,
    verb: &Entry,
    fields: &Fields<'_>,
    scope: &Scope<'_>,
) -> Option<Webhook> {
    let node = &verb.value;
    let dedupe = dedupe(cx, fields, scope);
    let (path, secret) = if node.scalar().is_some() {
        (Some(node), None)
    } else {
        let fields = cx.fields(node, &language::WEBHOOK)?;
        let secret = fields
            .get("secret")
            .map(|node| cx.text(node, "secret", scope, Secrets::Allowed));
        (fields.get("path"), secret)
    };
    if secret.is_none() {
        cx.warn(
            "unsigned-webhook",
            verb.key_span,
            "whoever knows the address of this webhook may start runs",
            "add `secret: \"${{ secrets.NAME }}\"`, and sign requests with it",
        );
    }
    let node = path?;
    let path = cx.literal(node, "path", "addresses are fixed")?;
    cx.plain_name(&path, node.span, "path").then_some(Webhook {
        path,
        secret: match secret {
            Some(read) => Some(read?),
            None => None,
        },
        dedupe,
    })
}

/// `with`: each value held against its parameter, and all parameters that need one are there.
fn with(
    cx: &mut Context<'_>,
    fields: &Fields<'_>,
    verb: &Entry,
    of: &Of<'_>,
    scope: &Scope<'_>,
) -> Option<Template> {
    let node = fields.get("with");
    let entries = node.map_or(&[][..], |node| cx.entries(node, "`with`"));
    let mut values = Vec::with_capacity(entries.len());
    for entry in entries {
        if let Some(param) = param(cx, entry, of.params)
            && let Some(value) = params::supplied(cx, &entry.value, param, scope)
        {
            values.push((entry.key.clone(), value));
        }
    }
    // What is no map was said, and lacks everything.
    if node.is_none_or(|node| matches!(node.kind, Kind::Map(_))) {
        for param in of
            .params
            .iter()
            .filter(|param| required(param, of.params_node))
        {
            if !entries.iter().any(|entry| entry.key == param.name) {
                let message = format!("its runs have no value for the parameter `{}`", param.name);
                let hint = format!(
                    "add `with: {{ {}: … }}`, or give the parameter a default",
                    param.name
                );
                cx.error_hint("missing-param", verb.key_span, message, hint);
            }
        }
    }
    node.is_some().then(|| template::map(values))
}

/// Whether a start must give it. A default that is wrong was said, and is one all the same.
fn required(param: &Param, node: Option<&Node>) -> bool {
    let written = node
        .and_then(Node::map)
        .and_then(|entries| entries.iter().find(|entry| entry.key == param.name))
        .and_then(|entry| entry.value.map())
        .is_some_and(|keys| keys.iter().any(|key| &*key.key == "default"));
    param.default.is_none() && !written
}

/// The parameter of this name that may be set.
fn param<'p>(cx: &mut Context<'_>, entry: &Entry, params: &'p [Param]) -> Option<&'p Param> {
    let found = params.iter().find(|param| param.name == entry.key);
    match found {
        Some(param) if param.fixed => {
            cx.error(
                "fixed-param",
                entry.key_span,
                format!("`{}` is fixed and cannot be set", entry.key),
            );
            None
        }
        Some(param) => Some(param),
        None => {
            let near = cx.nearest(&entry.key, params.iter().map(|param| &*param.name));
            let hint = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None if params.is_empty() => "the workflow has no parameters".to_owned(),
                None => {
                    let names: Vec<&str> = params.iter().map(|param| &*param.name).collect();
                    format!("its parameters are {}", names.join(", "))
                }
            };
            let message = format!("the workflow has no parameter `{}`", entry.key);
            cx.error_hint("unknown-param", entry.key_span, message, hint);
            None
        }
    }
}

/// Warns of defaults that read `run.interval` where all that starts runs by itself has none.
pub(crate) fn warn_of_intervals(cx: &mut Context<'_>, of: &Of<'_>, triggers: &[Trigger]) {
    let scheduled = |trigger: &Trigger| matches!(trigger.kind, TriggerKind::Schedule(_));
    if triggers.is_empty() || triggers.iter().any(scheduled) {
        return;
    }
    let entries = of.params_node.and_then(Node::map).unwrap_or_default();
    for entry in entries {
        let reads = |param: &&Param| {
            param.name == entry.key
                && param.default.as_ref().is_some_and(|default| {
                    references(default, "run")
                        .iter()
                        .any(|name| &**name == "interval")
                })
        };
        if of.params.iter().any(|param| reads(&param)) {
            cx.warn(
                "no-interval",
                entry.key_span,
                format!(
                    "the default of `{}` reads `run.interval`, and no trigger is a schedule",
                    entry.key
                ),
                "without one the interval is empty: both its ends are `run.scheduled_at`",
            );
        }
    }
}
