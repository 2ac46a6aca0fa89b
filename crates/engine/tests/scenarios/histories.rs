//! Histories that were written once and are read for ever.
//!
//! `histories/v1/*.history` holds, for each construct of the language, normalised definitions and every
//! chunk that runs, locks and run queues appended, as they would stand in somebody's database.
//! `*.states` says what state they give: a hash of it after each chunk, and what people see at the end.
//! A change that reads old history otherwise differs in one of them.
//!
//! A history that is there is never written again. To add one, add a section to `histories/README.md`
//! and run with `--bless`. Where the state itself has changed on purpose (another layout, a field that
//! people see), look at what differs, then `--bless` writes the states anew.
#![allow(clippy::unwrap_used, reason = "a test: what panics has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kapell_engine::lock::Lock;
use kapell_engine::run::State;
use kapell_engine::run_queue::RunQueue;
use kapell_engine::topic::Topic;
use kapell_engine::{Plan, Run, Small, chunk, event};
use kapell_model::spec::Spec;

use crate::page::{Page, Scenario};
use crate::world::World;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/histories")
}

/// One history: lines of a word, a name and content.
struct History {
    name: String,
    text: String,
}

/// The names of all histories: those that are kept, and those that a section asks for.
pub(crate) fn names() -> BTreeSet<String> {
    let kept = fs::read_dir(folder().join("v1"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "history"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
    kept.chain(sections().into_keys()).collect()
}

/// Reads a history and compares what it gives; true if something had to be written, which only
/// `bless` allows.
pub(crate) fn check(name: &str, bless: bool) -> Result<bool, String> {
    let path = folder().join("v1").join(format!("{name}.history"));
    if bless && !path.exists() {
        fs::write(&path, written(name)).map_err(|error| error.to_string())?;
    }
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let history = History {
        name: name.to_owned(),
        text,
    };
    let path = path.with_extension("states");
    let found = history.states();
    let expected = fs::read_to_string(&path).unwrap_or_default();
    if expected == found {
        return Ok(false);
    }
    if bless {
        fs::write(&path, found).map_err(|error| error.to_string())?;
        return Ok(true);
    }
    let lines = expected.lines().zip(found.lines());
    let (old, new) = lines
        .into_iter()
        .find(|(old, new)| old != new)
        .unwrap_or(("the end", "more, or less"));
    Err(format!(
        "it is read otherwise: expected\n  {old}\nfound\n  {new}"
    ))
}

/// A history as the engine writes it now.
fn written(name: &str) -> String {
    let scenario = &sections()[name];
    let mut text = String::new();
    for (number, file) in scenario.workflows.iter().enumerate() {
        let parsed = kapell_model::parse(&format!("workflow {number}"), file);
        let spec = parsed
            .spec
            .unwrap_or_else(|| panic!("{name}: {:?}", parsed.diagnostics));
        let json = serde_json::to_string(&*spec).unwrap();
        writeln!(text, "definition {} {json}", spec.workflow).unwrap();
    }
    for (title, chunk) in in_batches(World::history(scenario).unwrap()) {
        writeln!(text, "{title} {}", hex(&chunk)).unwrap();
    }
    text
}

/// An entity as its history gives it.
enum Replayed {
    Run(Arc<Plan>, Box<State>),
    Lock(Lock),
    Queue(Box<RunQueue>),
    Topic(Box<Topic>),
}

impl History {
    /// What the history says, in the form of `*.states`.
    fn states(&self) -> String {
        let mut plans: BTreeMap<String, Arc<Plan>> = BTreeMap::new();
        let mut entities: BTreeMap<String, Replayed> = BTreeMap::new();
        let mut text = String::new();
        for line in self.text.lines() {
            let (word, rest) = line.split_once(' ').unwrap();
            let (name, content) = rest.split_once(' ').unwrap();
            if word == "definition" {
                let spec: Spec = serde_json::from_str(content).unwrap();
                plans.insert(name.to_owned(), Arc::new(Plan::new(Arc::new(spec))));
                continue;
            }
            let title = format!("{word} {name}");
            let chunk = unhex(content);
            if word == "run" && !entities.contains_key(&title) {
                let plan = plans[&workflow(&chunk)].clone();
                entities.insert(title.clone(), Replayed::Run(plan, Box::default()));
            }
            let entity = entities.entry(title.clone()).or_insert_with(|| match word {
                "lock" => Replayed::Lock(Lock::default()),
                "queue" => Replayed::Queue(Box::default()),
                "topic" => Replayed::Topic(Box::default()),
                other => panic!("`{other}` in {}", self.name),
            });
            let state = entity.read(&chunk);
            writeln!(text, "{title}: {}", &blake3::hash(&state).to_hex()[..16]).unwrap();
        }
        for (title, entity) in entities {
            writeln!(text, "\n{title}\n{}", entity.seen()).unwrap();
        }
        text
    }
}

impl Replayed {
    /// Applies a chunk; the state after it.
    fn read(&mut self, chunk: &[u8]) -> Vec<u8> {
        match self {
            Self::Run(plan, state) => {
                for event in chunk::decode(chunk).unwrap() {
                    state.apply(plan, &event);
                }
                state.snapshot()
            }
            Self::Lock(lock) => {
                for event in chunk::decode(chunk).unwrap() {
                    lock.apply(&event);
                }
                lock.snapshot()
            }
            Self::Queue(queue) => {
                for event in chunk::decode(chunk).unwrap() {
                    queue.apply(&event);
                }
                queue.snapshot()
            }
            Self::Topic(topic) => {
                topic.replay(chunk).unwrap();
                topic.snapshot()
            }
        }
    }

    /// What people see of it.
    fn seen(self) -> String {
        match self {
            Self::Run(plan, state) => {
                let mut run = Run::new(plan);
                run.state = *state;
                serde_json::to_string_pretty(&run.view(run.state.last_at)).unwrap()
            }
            Self::Lock(lock) => format!("{lock:#?}"),
            Self::Queue(queue) => format!("{queue:#?}"),
            Self::Topic(topic) => {
                let mut text = topic.document().unwrap_or_default();
                for signal in topic.kept() {
                    write!(text, "\n{signal:?}").unwrap();
                }
                text
            }
        }
    }
}

/// The workflow of a run that a chunk creates.
fn workflow(chunk: &[u8]) -> String {
    let events = chunk::decode::<event::Event>(chunk).unwrap();
    match &events.first().unwrap().fact {
        Some(event::Fact::RunCreated(created)) => created.workflow.clone(),
        other => panic!("a history begins with {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = (0..text.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// What histories are made from, by name.
fn sections() -> BTreeMap<String, Scenario> {
    let path = folder().join("README.md");
    let page = Page::read(&path, &fs::read_to_string(&path).unwrap()).unwrap();
    let named = |scenario: Scenario| {
        let name = scenario.name.split("::").last().unwrap().to_owned();
        (name, scenario)
    };
    page.scenarios.into_iter().map(named).collect()
}

/// Chunks after the first hundred as a busy node writes them: many inputs in one.
fn in_batches(chunks: Vec<(String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    let mut batches: Vec<(String, Vec<u8>)> = Vec::new();
    for (title, chunk) in chunks {
        let many = batches.len() > 100;
        match batches.last_mut() {
            Some((last, batch)) if many && *last == title && batch.len() < 8_192 => {
                batch.extend(chunk);
            }
            _ => batches.push((title, chunk)),
        }
    }
    batches
}
