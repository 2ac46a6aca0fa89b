//! `kapell deploy`: files and folders of them, all or none.

use std::path::{Path, PathBuf};

use kapell_api::client::Api;
use kapell_api::http::{
    Deploy, DeployAction, DeployChange, DeployPlan, FileChange, FileDifference,
};

use crate::config::Config;
use crate::paint::{BOLD, DIM, GREEN, Line, PLAIN, RED, YELLOW};
use crate::printer::Printer;
use crate::session::{self, Need};
use crate::{Ended, Exit, args, definition, folder, words};

/// Places of a definition that are shown of each workflow.
const PLACES: usize = 8;

/// Characters that are shown of what stands at a place.
const SHOWN: usize = 60;

pub(crate) fn deploy(deploy: &args::Deploy, config: &Config, printer: &mut Printer) -> Ended {
    let mut files: Vec<PathBuf> = Vec::new();
    for path in &deploy.paths {
        if path.is_dir() {
            files.extend(folder::workflows(path, &config.data_dir)?);
        } else {
            files.push(path.clone());
        }
    }
    files.sort();
    files.dedup();
    let Some(all) = definition::read_these(&files, config, printer)? else {
        return Ok(Exit::BadInput);
    };
    let session = session::open(config, Need::Record)?;
    let plan = send(deploy, &all, config, session.api());
    session.close();
    let plan = plan?;
    if deploy.json {
        printer.json(&plan)?;
    } else {
        printer.lines(&lines(&plan))?;
    }
    Ok(Exit::Success)
}

fn send(
    deploy: &args::Deploy,
    all: &[definition::Definition],
    config: &Config,
    api: &dyn Api,
) -> Result<DeployPlan, kapell_model::Error> {
    let mut bundles = definition::Bundles::default();
    let workflows = all
        .iter()
        .map(|definition| {
            let folder = definition.path.parent().unwrap_or(Path::new("."));
            definition.registration(folder, &mut bundles, config, api)
        })
        .collect::<Result<_, _>>()?;
    api.deploy(&Deploy {
        workflows,
        prune: deploy.prune,
        dry_run: deploy.dry_run,
        by: config.user.clone(),
    })
}

fn lines(plan: &DeployPlan) -> Vec<Line> {
    let names = plan
        .changes
        .iter()
        .map(|change| words::columns(&change.workflow))
        .max()
        .unwrap_or(0);
    let mut lines = Vec::new();
    for change in &plan.changes {
        lines.push(headline(change, names));
        for place in change.differences.iter().take(PLACES) {
            let value = |value: &serde_json::Value| match value {
                serde_json::Value::Null => "nothing".to_owned(),
                value => words::cut(&value.to_string(), SHOWN),
            };
            let mut line = Line::default().with(PLAIN, "    ");
            line.push(PLAIN, &place.path);
            line.push(
                DIM,
                format!(": {} -> {}", value(&place.before), value(&place.after)),
            );
            lines.push(line);
        }
        if change.differences.len() > PLACES {
            let more = change.differences.len() - PLACES;
            lines.push(Line::default().with(DIM, format!("    {more} more")));
        }
        lines.extend(files(change.files_differ, &change.files, "    "));
    }
    for warning in &plan.warnings {
        lines.push(
            Line::default()
                .with(YELLOW, "warning: ")
                .with(PLAIN, warning),
        );
    }
    let changed = plan
        .changes
        .iter()
        .filter(|change| change.action != DeployAction::Keep)
        .count();
    let deleted = plan.changes.iter();
    let deleted = deleted
        .filter(|change| change.action == DeployAction::Delete)
        .count();
    let what = words::count(changed as u64, "workflow");
    let last = match (changed, plan.applied) {
        (0, _) => "nothing changes".to_owned(),
        (_, true) if deleted == changed => format!("{what} deleted"),
        (_, true) if deleted > 0 => {
            let put = words::count((changed - deleted) as u64, "workflow");
            format!("{put} deployed, {deleted} deleted")
        }
        (_, true) => format!("{what} deployed"),
        (_, false) => format!("{what} would change; nothing was changed"),
    };
    lines.push(Line::default().with(DIM, last));
    lines
}

/// The files beside a definition that differ.
pub(crate) fn files(differ: bool, files: &[FileDifference], indent: &str) -> Vec<Line> {
    if differ && files.is_empty() {
        return vec![Line::default().with(PLAIN, format!("{indent}the files beside it differ"))];
    }
    let shown = files.iter().take(PLACES).map(|file| {
        let word = match file.change {
            FileChange::Added => "new",
            FileChange::Removed => "removed",
            FileChange::Changed => "changed",
        };
        Line::default()
            .with(PLAIN, format!("{indent}file {}", file.path))
            .with(DIM, format!(": {word}"))
    });
    let mut lines: Vec<Line> = shown.collect();
    if files.len() > PLACES {
        let more = words::count((files.len() - PLACES) as u64, "more file");
        lines.push(Line::default().with(DIM, format!("{indent}{more}")));
    }
    lines
}

fn headline(change: &DeployChange, names: usize) -> Line {
    let (sign, style, word) = match change.action {
        DeployAction::Create => ("+", GREEN, "new"),
        DeployAction::Update => ("~", YELLOW, "changed"),
        DeployAction::Keep => ("=", DIM, "unchanged"),
        DeployAction::Delete => ("-", RED, "deleted"),
    };
    let mut line = Line::default().with(style, sign).with(PLAIN, " ");
    line.push(BOLD, &change.workflow);
    line.pad(names + 4);
    line.push(style, word);
    match (change.from, change.to) {
        (Some(from), Some(to)) if from != to => line.push(DIM, format!("  v{from} -> v{to}")),
        (_, Some(to)) => line.push(DIM, format!("  v{to}")),
        (Some(from), None) => line.push(DIM, format!("  after v{from}")),
        (None, None) => {}
    }
    line
}
