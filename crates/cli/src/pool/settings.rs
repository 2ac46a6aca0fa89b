//! What the configuration says of a pool.

use std::collections::BTreeMap;
use std::time::Duration;

use kapell_model::config::{self as keys, Key, Value};
use kapell_model::{Error, ErrorCode, limits};

use super::decide::{One, Terms};
use super::driver::Driver;
use super::driver::exec::{self, Exec};
use super::driver::process::Processes;
use crate::config::{Config, amounts, own_program};
use crate::worker;

/// Where workers of `process` have their directories, if nobody says where.
const FOLDER: &str = ".kapell-pool";

/// Names of pools leave room for those of their workers.
const NAME_CHARS: usize = limits::NAME_CHARS - 8;

/// A pool as it is set.
pub(super) struct Set {
    pub(super) terms: Terms,
    pub(super) queues: Vec<String>,
    pub(super) every: Duration,
    pub(super) grace: Duration,
    /// What starts its workers, for people.
    pub(super) by: String,
    pub(super) driver: Box<dyn Driver + Send>,
}

/// The pools of these names, or all that there are.
pub(super) fn read(config: &Config, names: &[String]) -> Result<Vec<Set>, Error> {
    let mut all: BTreeMap<&str, BTreeMap<&str, &Value>> = BTreeMap::new();
    for (pool, key, value) in config.settings.named("pools") {
        all.entry(pool).or_default().insert(key, value);
    }
    if all.is_empty() {
        return Err(bad(
            "there are no pools in the configuration".to_owned(),
            "a section `[pools.NAME]` of kapell.toml is one: docs/guide/16-pools.md",
        ));
    }
    if let Some(name) = names.iter().find(|name| !all.contains_key(name.as_str())) {
        let known: Vec<&str> = all.keys().copied().collect();
        return Err(bad(
            format!("there is no pool `{name}` in the configuration"),
            &format!("there is {}", known.join(", ")),
        ));
    }
    let chosen = all
        .iter()
        .filter(|(name, _)| names.is_empty() || names.iter().any(|own| own == *name));
    chosen
        .map(|(name, said)| pool(config, name, &Said(said)))
        .collect()
}

/// What is said of one pool; the default of what is not.
struct Said<'a>(&'a BTreeMap<&'a str, &'a Value>);

impl Said<'_> {
    fn get(&self, key: &Key) -> Value {
        let said = self.0.get(key.name).map(|value| (*value).clone());
        said.unwrap_or_else(|| key.default_value())
    }

    fn number(&self, key: &Key) -> u64 {
        match self.get(key) {
            Value::Number(number) => number,
            _ => 0,
        }
    }

    fn size(&self, key: &Key) -> usize {
        usize::try_from(self.number(key)).unwrap_or(usize::MAX)
    }

    fn list(&self, key: &Key) -> Vec<String> {
        match self.get(key) {
            Value::List(parts) => parts,
            _ => Vec::new(),
        }
    }

    fn text(&self, key: &Key) -> String {
        match self.get(key) {
            Value::Text(text) => text,
            other => other.to_string(),
        }
    }

    fn duration(&self, key: &Key) -> Duration {
        match self.get(key) {
            Value::Duration(span) => Duration::try_from(span).unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }
}

fn pool(config: &Config, name: &str, said: &Said<'_>) -> Result<Set, Error> {
    let is_name = |name: &str| {
        let mut chars = name.chars();
        chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    if name.len() > NAME_CHARS || !is_name(name) || name.starts_with('.') {
        return Err(bad(
            format!("`{name}` is no name of a pool"),
            "letters, digits, `-`, `_` and `.`: names of workers and directories begin with it",
        ));
    }
    let queues = said.list(&keys::POOL_QUEUES);
    let is_queue = |queue: &String| !queue.is_empty() && queue.len() <= limits::NAME_CHARS;
    if queues.is_empty() || !queues.iter().all(is_queue) {
        return Err(bad(
            format!("the pool `{name}` serves no queue"),
            "`queues = [\"gpu\"]` in its section: its backlog says how many workers are needed",
        ));
    }
    let (min, max) = (said.size(&keys::POOL_MIN), said.size(&keys::POOL_MAX));
    if min > max {
        return Err(bad(
            format!("the pool `{name}` has at least {min} workers and at most {max}"),
            "`min` is no more than `max`",
        ));
    }
    let every = said.duration(&keys::POOL_EVERY);
    if !(Duration::from_millis(100)..=Duration::from_mins(10)).contains(&every) {
        return Err(bad(
            format!("`pools.{name}.every` is out of its range"),
            "from 100ms to 10m",
        ));
    }
    let grace = said
        .duration(&keys::POOL_GRACE)
        .min(Duration::from_hours(24));
    let is_exec = said.text(&keys::POOL_DRIVER) == "exec";
    let one = one(config, said, (name, is_exec, max))?;
    let terms = Terms {
        name: name.to_owned(),
        min,
        max,
        quiet: said.duration(&keys::POOL_QUIET),
        start_timeout: said.duration(&keys::POOL_START_TIMEOUT),
        one,
    };
    let (by, driver): (String, Box<dyn Driver + Send>) = if is_exec {
        let command = said.text(&keys::POOL_COMMAND);
        if command.trim().is_empty() {
            return Err(bad(
                format!("the pool `{name}` has no command to start workers"),
                "`command = \"./workers.sh\"` in its section, or `driver = \"process\"`",
            ));
        }
        let mut variables = variables(&terms, said);
        variables.push(("KAPELL_SERVER", config.server_given().unwrap_or_default()));
        let exec = Exec {
            pool: name.to_owned(),
            command: command.clone(),
            variables,
            patience: exec::PATIENCE,
        };
        (format!("`{command}`"), Box::new(exec))
    } else {
        let processes = processes(config, &terms, (said, grace))?;
        let by = format!("processes in {}", processes.folder.display());
        (by, Box::new(processes))
    };
    Ok(Set {
        terms,
        queues,
        every,
        grace,
        by,
        driver,
    })
}

/// What one worker has.
fn one(
    config: &Config,
    said: &Said<'_>,
    (name, is_exec, max): (&str, bool, usize),
) -> Result<One, Error> {
    let wrong = |error: Error| {
        bad(
            format!("the pool `{name}`: {}", error.message),
            "as `name=4`",
        )
    };
    let some = |key| Some(said.number(key)).filter(|number| *number > 0);
    let share = |all: u64| all / u64::try_from(max).unwrap_or(u64::MAX).max(1);
    let here = config.capacity(None);
    let mut one = One {
        slots: said.number(&keys::POOL_SLOTS),
        cpu_millis: some(&keys::POOL_CPU).map(|cores| cores * 1_000),
        memory_bytes: some(&keys::POOL_MEMORY),
        gpus: said.number(&keys::POOL_GPUS),
        custom: amounts(&said.list(&keys::POOL_RESOURCES))
            .map_err(wrong)?
            .into_iter()
            .map(|(name, amount)| (name.into(), amount))
            .collect(),
        labels: worker::labels(&said.list(&keys::POOL_LABELS)).map_err(wrong)?,
        spot: said.get(&keys::POOL_SPOT) == Value::Bool(true),
    };
    if is_exec {
        return Ok(one);
    }
    if one.gpus > 0 {
        return Err(bad(
            format!("the pool `{name}` cannot share out GPUs among processes of one machine"),
            "one `kapell worker` has them all; `gpus` goes with `driver = \"exec\"`",
        ));
    }
    // Each has its part of the machine.
    one.cpu_millis
        .get_or_insert((share(here.cpu_millis) / 1_000).max(1) * 1_000);
    one.memory_bytes.get_or_insert(share(here.memory_bytes));
    Ok(one)
}

/// What a worker takes from its environment.
fn variables(terms: &Terms, said: &Said<'_>) -> Vec<(&'static str, String)> {
    let one = &terms.one;
    let mut all = vec![
        ("KAPELL_WORKER_POOL", terms.name.clone()),
        (
            "KAPELL_WORKER_QUEUES",
            said.list(&keys::POOL_QUEUES).join(","),
        ),
        (
            "KAPELL_WORKER_LABELS",
            said.list(&keys::POOL_LABELS).join(","),
        ),
        (
            "KAPELL_WORKER_RESOURCES",
            said.list(&keys::POOL_RESOURCES).join(","),
        ),
        ("KAPELL_SLOTS", one.slots.to_string()),
    ];
    if let Some(millis) = one.cpu_millis {
        all.push(("KAPELL_WORKER_CPU", (millis / 1_000).to_string()));
    }
    if let Some(bytes) = one.memory_bytes {
        all.push(("KAPELL_WORKER_MEMORY", bytes.to_string()));
    }
    all
}

fn processes(
    config: &Config,
    terms: &Terms,
    (said, grace): (&Said<'_>, Duration),
) -> Result<Processes, Error> {
    let folder = if config.data_dir_is_default {
        FOLDER.into()
    } else {
        config.data_dir.clone()
    };
    let mut arguments = vec!["--grace".to_owned(), grace.as_secs().to_string()];
    if let Some(server) = config.server_given() {
        arguments.extend(["--server".to_owned(), server]);
    }
    if let Some(ca) = config.ca() {
        arguments.extend(["--ca".to_owned(), ca.display().to_string()]);
    }
    if terms.one.spot {
        arguments.push("--spot".to_owned());
    }
    Ok(Processes {
        pool: terms.name.clone(),
        folder,
        program: own_program()?,
        arguments,
        variables: variables(terms, said),
        grace,
        children: BTreeMap::new(),
    })
}

fn bad(message: String, hint: &str) -> Error {
    Error::new(ErrorCode::BadConfig, message).hint(hint)
}
