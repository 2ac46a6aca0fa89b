//! Maps that workflows and steps share: retry, timeouts, resources, locks, strategy, outputs.

use std::sync::Arc;

use jiff::SignedDuration;
use kapell_expr::{Object, Type};

use crate::language;
use crate::limits;
use crate::spec::{
    Artifacts, Backoff, Debounce, Dyn, LockBounds, LockUse, Named, Outputs, Retention, Retry,
    Strategy, StrategyMode, Timeouts,
};
use crate::yaml::{Entry, Kind, Node, Span};

use super::Context;
use super::scope::Scope;
use super::template::Secrets;

const MANY: u32 = limits::AT_ONCE;

const FIXED_PATH: &str = "pass the name through `env`, and write to a fixed path";

/// What a duration alone means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    Attempt,
    Total,
}

impl Retry {
    /// What holds where a definition says nothing.
    pub(crate) fn unsaid() -> Self {
        Self {
            limit: Dyn::Fixed(0),
            timeout: 0,
            platform: limits::PLATFORM_RETRIES,
            backoff: Backoff::unsaid(),
            when: None,
        }
    }
}

impl Backoff {
    fn unsaid() -> Self {
        Self {
            initial: SignedDuration::from_secs(1),
            factor: 2.0,
            max: SignedDuration::from_mins(5),
            jitter: true,
        }
    }
}

impl Context<'_> {
    /// `failed` is the scope with `error` and `attempt`.
    pub(crate) fn retry(&mut self, node: &Node, scope: &Scope<'_>, failed: &Scope<'_>) -> Retry {
        let mut retry = Retry::unsaid();
        let Some(fields) = self.fields(node, &language::RETRY) else {
            return retry;
        };
        let most = (0, limits::RETRIES);
        if let Some(limit) = fields.get("limit").and_then(|node| {
            self.dynamic_int(node, "limit", scope, (0, i64::from(limits::RETRIES)))
        }) {
            retry.limit = limit;
        }
        if let Some(timeout) = fields
            .get("timeout")
            .and_then(|node| self.count(node, "timeout", most))
        {
            retry.timeout = timeout;
        }
        if let Some(platform) = fields
            .get("platform")
            .and_then(|node| self.count(node, "platform", most))
        {
            retry.platform = platform;
        }
        if let Some(node) = fields.get("backoff") {
            retry.backoff = self.backoff(node);
        }
        retry.when = fields
            .get("when")
            .and_then(|node| self.condition(node, "when", failed));
        retry
    }

    fn backoff(&mut self, node: &Node) -> Backoff {
        let mut backoff = Backoff::unsaid();
        let Some(fields) = self.fields(node, &language::BACKOFF) else {
            return backoff;
        };
        if let Some(initial) = fields
            .get("initial")
            .and_then(|node| self.duration(node, "initial"))
        {
            backoff.initial = initial;
            backoff.max = backoff.max.max(initial);
        }
        if let Some(factor) = fields
            .get("factor")
            .and_then(|node| self.number(node, "factor", 1.0))
        {
            backoff.factor = factor;
        }
        if let Some((node, max)) = fields
            .get("max")
            .and_then(|node| Some((node, self.duration(node, "max")?)))
        {
            if max < backoff.initial {
                self.error("out-of-range", node.span, "`max` is less than `initial`");
            }
            backoff.max = max;
        }
        if let Some(jitter) = fields
            .get("jitter")
            .and_then(|node| self.bool(node, "jitter"))
        {
            backoff.jitter = jitter;
        }
        backoff
    }

    /// A duration alone, which means `alone`, or a map of clocks.
    pub(crate) fn timeouts(&mut self, node: &Node, scope: &Scope<'_>, alone: Clock) -> Timeouts {
        let mut timeouts = Timeouts::default();
        if node.scalar().is_some() {
            let bound = self.step_timeout(node, "timeout", scope);
            match alone {
                Clock::Attempt => timeouts.attempt = bound,
                Clock::Total => timeouts.total = bound,
            }
            return timeouts;
        }
        let Some(fields) = self.fields(node, &language::TIMEOUT) else {
            return timeouts;
        };
        timeouts.attempt = fields
            .get("attempt")
            .and_then(|node| self.step_timeout(node, "attempt", scope));
        timeouts.total = fields
            .get("total")
            .and_then(|node| self.step_timeout(node, "total", scope));
        timeouts.queue = fields
            .get("queue")
            .and_then(|node| self.step_timeout(node, "queue", scope));
        if alone == Clock::Total {
            for key in ["attempt", "queue"] {
                if let Some(entry) = fields.entry(key) {
                    self.error_hint(
                        "no-attempts",
                        entry.key_span,
                        format!("`{key}` counts attempts, and this step makes none"),
                        "use `total`",
                    );
                }
            }
        }
        timeouts
    }

    /// A bound on a step's time; one longer than the run's is warned of.
    pub(crate) fn step_timeout(
        &mut self,
        node: &Node,
        what: &str,
        scope: &Scope<'_>,
    ) -> Option<Dyn<SignedDuration>> {
        let bound = self.dynamic_duration(node, what, scope)?;
        if matches!(bound, Dyn::Fixed(bound) if bound.is_zero()) {
            self.no_time(node, what);
            return None;
        }
        if let (Dyn::Fixed(inner), Some(run)) = (&bound, self.run_timeout)
            && *inner > run
        {
            let hint = format!("the run ends after {}", kapell_expr::format_duration(run));
            self.warn(
                "timeout-too-long",
                node.span,
                "this timeout is longer than the run's",
                hint,
            );
        }
        Some(bound)
    }

    /// A timeout of nothing, which elsewhere may mean none.
    pub(crate) fn no_time(&mut self, node: &Node, what: &str) {
        self.error_hint(
            "out-of-range",
            node.span,
            format!("`{what}` is longer than nothing"),
            "for no bound leave the key out",
        );
    }

    pub(crate) fn locks(&mut self, node: &Node, scope: &Scope<'_>) -> Vec<LockUse> {
        let items = self.items(node, "`locks`");
        if items.len() > limits::LOCKS {
            self.error(
                "limit",
                node.span,
                format!("a step names at most {} locks", limits::LOCKS),
            );
        }
        let mut locks: Vec<LockUse> = Vec::with_capacity(items.len());
        for item in items {
            let Some(lock) = self.lock(item, scope) else {
                continue;
            };
            let literal = super::literal_text(&lock.name);
            let names = |other: &LockUse| super::literal_text(&other.name) == literal;
            if let Some(literal) = literal.filter(|_| locks.iter().any(names)) {
                self.error_hint(
                    "repeated",
                    item.span,
                    format!("the step names the lock `{literal}` twice"),
                    "once is enough: an attempt holds a lock or does not",
                );
            }
            locks.push(lock);
        }
        locks.sort_by_key(|lock| super::literal_text(&lock.name).map(str::to_owned));
        locks
    }

    fn lock(&mut self, node: &Node, scope: &Scope<'_>) -> Option<LockUse> {
        let fields = self.fields(node, &language::LOCK)?;
        let name_node = fields.get("name")?;
        let name = self.text(name_node, "name", scope, Secrets::Refused);
        let max = fields
            .get("max")
            .map_or(Some(1), |node| self.count(node, "max", (1, MANY)));
        let per = match fields.get("per") {
            None => None,
            Some(node) => Some(self.period(node)?),
        };
        let (name, max) = (name?, max?);
        if let Some(literal) = super::literal_text(&name) {
            let literal = literal.to_owned();
            if literal.is_empty() || literal.len() > limits::NAME_CHARS {
                self.error(
                    "bad-name",
                    name_node.span,
                    format!(
                        "the name of a lock has 1 to {} characters",
                        limits::NAME_CHARS
                    ),
                );
            }
            let own = LockBounds { max, per };
            let (first, place) = *self
                .locks
                .entry(literal.clone())
                .or_insert((own, name_node.span));
            if first != own {
                let line = self.text[..place.start].matches('\n').count() + 1;
                self.error_hint(
                    "lock-max",
                    node.span,
                    format!("`{literal}` has `{own}` here and `{first}` on line {line}"),
                    "`max` belongs to the name: make them equal, or use two names",
                );
            }
        }
        Some(LockUse { name, max, per })
    }

    /// The period of a rate.
    fn period(&mut self, node: &Node) -> Option<SignedDuration> {
        let per = self.duration(node, "per")?;
        if per.is_zero() {
            self.error_hint(
                "out-of-range",
                node.span,
                "`per` is longer than nothing",
                "without `per`, `max` bounds how many hold the name at once",
            );
            return None;
        }
        Some(per)
    }

    pub(crate) fn strategy(&mut self, node: &Node, scope: &Scope<'_>) -> Strategy {
        let Some(fields) = self.fields(node, &language::STRATEGY) else {
            return Strategy::default();
        };
        let mode = fields
            .get("mode")
            .and_then(|node| self.choice(node, "mode", &StrategyMode::ALL))
            .unwrap_or_default();
        if let Some(limit) = fields.entry("limit").filter(|_| !mode.takes_limit()) {
            self.error_hint(
                "limit-not-here",
                limit.key_span,
                "`limit` is of `mode: parallel`; the other modes run one at a time",
                "remove it",
            );
        }
        Strategy {
            mode,
            limit: fields
                .get("limit")
                .and_then(|node| self.count(node, "limit", (1, MANY))),
            total: fields
                .get("total")
                .and_then(|node| self.count(node, "total", (1, MANY))),
            key: fields.get("key").and_then(|node| {
                self.only_expression(
                    node,
                    "key",
                    scope,
                    "write `\"${{ params.… }}\"`; a constant key is no key",
                )
                .map(|(program, _)| program)
            }),
            debounce: fields.get("debounce").and_then(|node| self.debounce(node)),
        }
    }

    fn debounce(&mut self, node: &Node) -> Option<Debounce> {
        let fields = self.fields(node, &language::DEBOUNCE)?;
        let max = fields
            .get("max")
            .and_then(|node| self.duration(node, "max"));
        let quiet = fields
            .get("quiet")
            .and_then(|node| self.duration(node, "quiet"))?;
        if let Some(node) = fields
            .get("max")
            .filter(|_| max.is_some_and(|max| max < quiet))
        {
            self.error("out-of-range", node.span, "`max` is less than `quiet`");
        }
        Some(Debounce { quiet, max })
    }

    pub(crate) fn retention(&mut self, node: &Node) -> Retention {
        let Some(fields) = self.fields(node, &language::RETENTION) else {
            return Retention::default();
        };
        Retention {
            age: fields
                .get("age")
                .and_then(|node| self.duration(node, "age")),
            runs: fields
                .get("runs")
                .and_then(|node| self.count(node, "runs", (1, limits::KEPT_RUNS))),
        }
    }

    /// `outputs` of a step that is no group.
    pub(crate) fn outputs(&mut self, node: &Node) -> Outputs {
        let Some(fields) = self.fields(node, &language::OUTPUTS) else {
            return Outputs::default();
        };
        Outputs {
            file: fields
                .get("file")
                .and_then(|node| self.path(node, "file", FIXED_PATH)),
            ty: fields.get("type").and_then(|node| self.output_type(node)),
        }
    }

    fn output_type(&mut self, node: &Node) -> Option<Type> {
        match &node.kind {
            Kind::Scalar(_) => self.type_name(node),
            Kind::Map(entries) => {
                let mut object = Object {
                    name: "the output".to_owned(),
                    ..Object::default()
                };
                for entry in entries {
                    self.expression_name(&entry.key, entry.key_span, "field");
                    let of = self.output_type(&entry.value)?;
                    object.fields.insert(entry.key.to_string(), of);
                }
                Some(Type::Object(Arc::new(object)))
            }
            Kind::List(_) => {
                self.error_hint(
                    "wrong-form",
                    node.span,
                    "a type is a word or a map of fields",
                    "for a list write `list<T>`",
                );
                None
            }
            Kind::Broken => None,
        }
    }

    /// A type by its name.
    pub(crate) fn type_name(&mut self, node: &Node) -> Option<Type> {
        let text = self.literal(node, "type", "types are fixed")?;
        match Type::parse(&text) {
            Ok(of) => Some(of),
            Err(message) => {
                let (message, hint) = message
                    .split_once("; ")
                    .map_or((message.as_str(), ""), |parts| parts);
                let hint = if hint.is_empty() {
                    "types are written `int`, `list<string>`, `map<any>`"
                } else {
                    hint
                };
                self.error_hint("unknown-type", node.span, message, hint);
                None
            }
        }
    }

    pub(crate) fn artifacts(&mut self, node: &Node, scope: &Scope<'_>) -> Artifacts {
        let Some(fields) = self.fields(node, &language::ARTIFACTS) else {
            return Artifacts::default();
        };
        let mut artifacts = Artifacts::default();
        for entry in fields
            .get("in")
            .map_or(&[][..], |node| self.entries(node, "`in`"))
        {
            let fine = self.check_path(&entry.key, entry.key_span, "in");
            if let Some((template, _)) = self
                .value(&entry.value, scope, Secrets::Refused)
                .filter(|_| fine)
            {
                artifacts.inputs.push((entry.key.clone(), template));
            }
        }
        for entry in fields
            .get("out")
            .map_or(&[][..], |node| self.entries(node, "`out`"))
        {
            let fine = self.expression_name(&entry.key, entry.key_span, "artifact");
            if let Some(path) = self.path(&entry.value, "out", FIXED_PATH).filter(|_| fine) {
                artifacts.outputs.push((entry.key.clone(), path));
            }
        }
        artifacts
    }

    /// A literal path inside the attempt's directory.
    pub(crate) fn path(&mut self, node: &Node, what: &str, hint: &str) -> Option<Arc<str>> {
        let path = self.literal(node, what, hint)?;
        self.check_path(&path, node.span, what).then_some(path)
    }

    fn check_path(&mut self, path: &str, span: Span, what: &str) -> bool {
        let fine = !path.is_empty()
            && !path.contains(['\0', '\\'])
            && !path.starts_with('/')
            && path.split('/').all(|part| part != "..");
        if !fine {
            self.error_hint(
                "bad-path",
                span,
                format!("`{what}` cannot be `{path}`"),
                "paths are relative to the attempt's directory, with `/` and without `..`",
            );
        }
        fine
    }

    /// Named texts with expressions: labels, headers.
    pub(crate) fn labels(
        &mut self,
        node: &Node,
        scope: &Scope<'_>,
    ) -> Named<kapell_expr::Template> {
        let entries = self.entries(node, "`labels`");
        if entries.len() > limits::LABELS {
            self.error(
                "limit",
                node.span,
                format!("there are at most {} labels", limits::LABELS),
            );
        }
        self.named_texts(entries, scope, Secrets::Refused, |cx, entry| {
            cx.plain_name(&entry.key, entry.key_span, "label")
        })
    }

    pub(crate) fn named_texts(
        &mut self,
        entries: &[Entry],
        scope: &Scope<'_>,
        secrets: Secrets,
        name_fine: impl Fn(&mut Self, &Entry) -> bool,
    ) -> Named<kapell_expr::Template> {
        let mut named = Vec::with_capacity(entries.len());
        for entry in entries {
            let fine = name_fine(self, entry);
            if let Some(template) = self
                .text(&entry.value, &entry.key, scope, secrets)
                .filter(|_| fine)
            {
                named.push((entry.key.clone(), template));
            }
        }
        named
    }
}
