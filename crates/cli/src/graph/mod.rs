//! `kapell graph`: a workflow, or a run, as a picture.
//!
//! `layout` places boxes in layers, `svg` draws them; `text` draws rails, one step a line.

mod layout;
mod svg;
mod text;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use kapell_api::http::RecordQuery;
use kapell_engine::Plan;
use kapell_engine::plan::GraphId;
use kapell_model::spec::Verb;
use kapell_model::{Error, ErrorCode, StepStatus};
use std::sync::Arc;

use crate::args::{Graph, GraphFormat};
use crate::config::Config;
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::{Ended, Exit, definition, words};

/// A graph to be drawn.
#[derive(Debug, Default)]
struct Drawing {
    steps: Vec<DrawnStep>,
    /// From a step to one that needs it, by place.
    edges: Vec<(usize, usize)>,
}

/// A step to be drawn.
#[derive(Debug)]
struct DrawnStep {
    id: String,
    /// What it does, and what else is special about it.
    detail: String,
    status: Option<StepStatus>,
    /// Graphs inside it, each with what it is.
    inside: Vec<(String, Drawing)>,
}

pub(crate) fn graph(graph: &Graph, config: &Config, printer: &mut Printer) -> Ended {
    let path = Path::new(&graph.what);
    let (plan, statuses) = if path.exists() || path.extension().is_some() {
        let definition = definition::read(path)?;
        let Some(spec) = &definition.spec else {
            printer.error_text(&definition.rendered(config.error_color));
            printer.error_text("\n");
            return Err(Error::new(
                ErrorCode::BadDefinition,
                format!("`{}` cannot be drawn: it has errors", definition.name()),
            ));
        };
        (Plan::new(Arc::clone(spec)), BTreeMap::new())
    } else {
        of_run(&graph.what, config)?
    };
    let parts = parts(&plan, &statuses);
    let title = &plan.spec.workflow;
    let drawn = match graph.format {
        GraphFormat::Svg => svg::draw(title, &parts),
        GraphFormat::Text if graph.output.is_some() => text::plain(title, &parts, 100),
        GraphFormat::Text => {
            printer.lines(&text::draw(title, &parts, config.size().0))?;
            return Ok(Exit::Success);
        }
    };
    match &graph.output {
        Some(file) => fs::write(file, drawn).map_err(|error| {
            Error::new(
                ErrorCode::BadRequest,
                format!("`{}` cannot be written: {error}", file.display()),
            )
        })?,
        None => printer.text(&drawn)?,
    }
    Ok(Exit::Success)
}

type Statuses = BTreeMap<String, StepStatus>;

/// The definition that a run keeps, and where its steps stand.
fn of_run(run: &str, config: &Config) -> Result<(Plan, Statuses), Error> {
    let session = session::open(config, Need::Look)?;
    let record = session
        .api()
        .record(session.find(run)?, &RecordQuery::default())?;
    let version = session
        .api()
        .version(&record.workflow, Some(record.version))?;
    let spec = kapell_model::parse(&record.workflow, &version.source)
        .spec
        .ok_or_else(|| {
            Error::new(
                ErrorCode::StoreCorrupt,
                format!("the source of version {} cannot be read", record.version),
            )
        })?;
    let mut statuses = BTreeMap::new();
    record.walk(&mut |step| {
        // Of an iteration or item the last one stands for all.
        statuses.insert(shape(&step.path), step.status);
    });
    Ok((Plan::new(spec), statuses))
}

/// A path without iterations and items.
fn shape(path: &str) -> String {
    let parts = path
        .split('.')
        .map(|part| part.split(['#', '[']).next().unwrap_or_default());
    parts.collect::<Vec<_>>().join(".")
}

/// The workflow's own graph, and `finally`.
fn parts(plan: &Plan, statuses: &Statuses) -> Vec<(String, Drawing)> {
    let mut parts = vec![(String::new(), drawing(plan, 0, "", statuses))];
    if let Some(finally) = plan.finally {
        parts.push(("finally".to_owned(), drawing(plan, finally, "", statuses)));
    }
    parts
}

fn drawing(plan: &Plan, graph: GraphId, above: &str, statuses: &Statuses) -> Drawing {
    let graph = plan.graph(graph);
    let mut drawing = Drawing::default();
    for (place, planned) in graph.steps.iter().enumerate() {
        let step = &planned.step;
        drawing
            .edges
            .extend(step.needs.iter().map(|need| (usize::from(*need), place)));
        let path = if above.is_empty() {
            step.id.to_string()
        } else {
            format!("{above}.{}", step.id)
        };
        let titles = titles(&step.verb);
        let mut inside: Vec<(String, Drawing)> = planned
            .inner
            .iter()
            .zip(titles)
            .map(|(inner, title)| (title, drawing_of(plan, *inner, &path, statuses)))
            .collect();
        if let Some(handler) = planned.handler {
            inside.push((
                "on failure".to_owned(),
                drawing_of(plan, handler, &path, statuses),
            ));
        }
        let mut detail = verb(&step.verb);
        if let Some(foreach) = &step.foreach {
            let vars: Vec<&str> = foreach.vars.iter().map(|(name, _)| &**name).collect();
            detail += &format!(" for each {}", vars.join(", "));
        }
        if step.condition.is_some() {
            detail.push_str(" if …");
        }
        drawing.steps.push(DrawnStep {
            id: step.id.to_string(),
            detail,
            status: statuses.get(&path).copied(),
            inside,
        });
    }
    drawing
}

fn drawing_of(plan: &Plan, graph: GraphId, above: &str, statuses: &Statuses) -> Drawing {
    drawing(plan, graph, above, statuses)
}

/// What each graph of a verb is.
fn titles(verb: &Verb) -> Vec<String> {
    match verb {
        Verb::Switch { branches } => branches
            .iter()
            .map(|branch| match &branch.when {
                Some(when) => format!("when {}", words::shortened(when.source(), 48)),
                None => "else".to_owned(),
            })
            .collect(),
        Verb::Loop(cycle) => vec![match (&cycle.while_, &cycle.until) {
            (Some(test), _) => format!("while {}", words::shortened(test.source(), 48)),
            (None, Some(test)) => format!("until {}", words::shortened(test.source(), 48)),
            (None, None) => "repeated".to_owned(),
        }],
        _ => vec![String::new()],
    }
}

fn verb(verb: &Verb) -> String {
    match verb {
        Verb::Shell { .. } => "shell".to_owned(),
        Verb::Exec { .. } => "exec".to_owned(),
        Verb::Python { function, .. } => format!("python {function}"),
        Verb::Http(http) => format!("http {}", http.method),
        Verb::Workflow { name, .. } => format!("workflow {name}"),
        Verb::Steps { .. } => "group".to_owned(),
        Verb::Switch { .. } => "switch".to_owned(),
        Verb::Loop(_) => "loop".to_owned(),
        Verb::Wait(_) => "wait".to_owned(),
        Verb::Await(wait) => format!("await {}", wait.signal),
        Verb::Approval(_) => "approval".to_owned(),
        Verb::Set { .. } => "set".to_owned(),
        Verb::Noop => "noop".to_owned(),
        Verb::Fail { .. } => "fail".to_owned(),
    }
}
