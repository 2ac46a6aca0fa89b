//! Reading workflow files, and registering them with what belongs to them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kapell_api::client::Api;
use kapell_api::http::{RegisterWorkflow, Registered};
use kapell_engine::Plan;
use kapell_expr::BlobRef;
use kapell_model::spec::{Spec, Verb};
use kapell_model::{Color, Diagnostic, Error, ErrorCode, limits, render};

use crate::bundle;
use crate::config::Config;
use crate::printer::Printer;
use crate::words;

/// Files that are named where one is not found.
const FILES: usize = 5;

/// A workflow file that was read.
pub(crate) struct Definition {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its text.
    pub(crate) source: String,
    /// What it means; none if it has errors.
    pub(crate) spec: Option<Arc<Spec>>,
    /// Its problems.
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// Reads and checks a file.
///
/// # Errors
/// `file-not-found`, and `bad-definition` for what is no text.
pub(crate) fn read(path: &Path) -> Result<Definition, Error> {
    let bytes = fs::read(path).map_err(|error| unreadable(path, &error))?;
    let source = String::from_utf8(bytes).map_err(|_| {
        Error::new(
            ErrorCode::BadDefinition,
            format!("`{}` is not text", path.display()),
        )
        .hint("a workflow file is YAML or JSON in UTF-8")
    })?;
    let parsed = kapell_model::parse(&path.to_string_lossy(), &source);
    Ok(Definition {
        path: path.to_owned(),
        source,
        spec: parsed.spec,
        diagnostics: parsed.diagnostics,
    })
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    let message = match error.kind() {
        std::io::ErrorKind::NotFound => format!("there is no file `{}`", path.display()),
        std::io::ErrorKind::IsADirectory => format!("`{}` is a folder", path.display()),
        _ => format!("`{}` cannot be read: {error}", path.display()),
    };
    let failure = Error::new(ErrorCode::FileNotFound, message);
    let folder = match error.kind() {
        std::io::ErrorKind::NotFound => path.parent().unwrap_or(Path::new("")),
        std::io::ErrorKind::IsADirectory => path,
        _ => return failure.hint("look at who may read it: `ls -l`"),
    };
    let mut there = workflow_files(folder);
    let near = there
        .iter()
        .find(|file| alike(file, path))
        .map(|file| format!("did you mean `{}`?", file.display()));
    if let Some(near) = near {
        return failure.hint(near);
    }
    let more = there.len() > FILES;
    there.truncate(FILES);
    let names: Vec<String> = there
        .iter()
        .map(|file| format!("`{}`", file.display()))
        .collect();
    match (names.is_empty(), more) {
        (true, _) => failure.hint("no file there ends in .yaml, .yml or .json"),
        (false, false) => failure.hint(format!("there is {}", names.join(", "))),
        (false, true) => failure.hint(format!("there is {}, …", names.join(", "))),
    }
}

/// True if two names of files differ by their endings, by case or by one letter.
fn alike(a: &Path, b: &Path) -> bool {
    let name = |path: &Path| {
        path.file_stem()
            .map(|name| name.to_string_lossy().to_lowercase())
            .unwrap_or_default()
    };
    let (a, b) = (name(a), name(b));
    let same =
        |from: &mut dyn Iterator<Item = (char, char)>| from.take_while(|(a, b)| a == b).count();
    let start = same(&mut a.chars().zip(b.chars()));
    let end = same(&mut a.chars().rev().zip(b.chars().rev()));
    let longest = a.chars().count().max(b.chars().count());
    a == b || longest > 3 && start + end + 1 >= longest
}

impl Definition {
    /// The file's name for messages.
    pub(crate) fn name(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    /// Its problems with their source lines.
    pub(crate) fn rendered(&self, color: bool) -> String {
        let color = if color { Color::Always } else { Color::Never };
        render(&self.name(), &self.source, &self.diagnostics, color)
    }

    /// What registers it, with the files of a folder if its steps see them.
    pub(crate) fn registration(
        &self,
        folder: &Path,
        bundles: &mut Bundles,
        config: &Config,
        api: &dyn Api,
    ) -> Result<RegisterWorkflow, Error> {
        let bundle = match &self.spec {
            Some(spec) if runs_processes(spec) => Some(bundles.of(folder, config, api)?),
            _ => None,
        };
        Ok(RegisterWorkflow {
            file: self.name(),
            source: self.source.clone(),
            bundle,
            by: config.user.clone(),
        })
    }

    /// What it means; after its problems were shown.
    fn checked(&self, config: &Config, printer: &mut Printer) -> Option<&Arc<Spec>> {
        if !self.diagnostics.is_empty() {
            printer.error_text(&self.rendered(config.error_color));
            printer.error_text("\n");
        }
        if self.spec.is_none() {
            let errors = self.diagnostics.iter().filter(|problem| problem.is_error());
            printer.error(&Error::new(
                ErrorCode::BadDefinition,
                format!(
                    "`{}` has {}; nothing was done",
                    self.name(),
                    words::count(errors.count() as u64, "error")
                ),
            ));
        }
        self.spec.as_ref()
    }
}

/// Bundles that were stored, by folder.
#[derive(Default)]
pub(crate) struct Bundles(BTreeMap<PathBuf, BlobRef>);

impl Bundles {
    fn of(&mut self, folder: &Path, config: &Config, api: &dyn Api) -> Result<BlobRef, Error> {
        if let Some(stored) = self.0.get(folder) {
            return Ok(stored.clone());
        }
        let stored = bundle::store(folder, &config.data_dir, api)?;
        self.0.insert(folder.to_owned(), stored.clone());
        Ok(stored)
    }
}

/// Files, all checked; none if one has errors, which are shown then.
///
/// # Errors
/// Those of [`read`].
pub(crate) fn read_these(
    files: &[PathBuf],
    config: &Config,
    printer: &mut Printer,
) -> Result<Option<Vec<Definition>>, Error> {
    let mut all = Vec::new();
    let mut fine = true;
    for file in files {
        let definition = read(file)?;
        match definition.checked(config, printer) {
            Some(_) => {}
            None => fine = false,
        }
        all.push(definition);
    }
    Ok(fine.then_some(all))
}

/// True for a name that a workflow file may have.
pub(crate) fn may_be_one(file: &Path) -> bool {
    let kind = file.extension();
    kind.is_some_and(|kind| kind == "yaml" || kind == "yml" || kind == "json")
}

/// Files beside a workflow file that may be workflows, by name.
fn workflow_files(folder: &Path) -> Vec<PathBuf> {
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| may_be_one(path) && path.is_file())
        .take(limits::BUNDLE_FILES)
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|file| file.strip_prefix("./").map(Path::to_owned).unwrap_or(file))
        .collect()
}

/// A file and the workflows beside it that its steps name, all checked; none if one has errors,
/// which are shown then.
///
/// # Errors
/// Those of [`read`].
pub(crate) fn read_all(
    path: &Path,
    config: &Config,
    printer: &mut Printer,
) -> Result<Option<Vec<Definition>>, Error> {
    let first = read(path)?;
    let Some(spec) = first.checked(config, printer).cloned() else {
        return Ok(None);
    };
    let mut named: BTreeSet<Arc<str>> = names(&spec);
    let mut all = vec![first];
    if named.is_empty() {
        return Ok(Some(all));
    }
    let mut known = BTreeSet::from([spec.workflow.clone()]);
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut beside: BTreeMap<PathBuf, Definition> = BTreeMap::new();
    for file in workflow_files(folder) {
        // What is no text, or none of ours, is none of the workflows that are looked for.
        if fs::metadata(&file).is_ok_and(|data| data.len() <= limits::DEFINITION_BYTES as u64)
            && fs::canonicalize(&file).ok() != fs::canonicalize(path).ok()
            && let Ok(definition) = read(&file)
        {
            beside.insert(file, definition);
        }
    }
    while let Some(name) = named.pop_first() {
        if !known.insert(name.clone()) {
            continue;
        }
        let wanted = |definition: &Definition| match &definition.spec {
            Some(spec) => spec.workflow == name,
            None => claims(&definition.source, &name),
        };
        let Some(file) = beside
            .iter()
            .find(|(_, definition)| wanted(definition))
            .map(|(file, _)| file.clone())
        else {
            continue;
        };
        let Some(definition) = beside.remove(&file) else {
            continue;
        };
        let Some(spec) = definition.checked(config, printer) else {
            return Ok(None);
        };
        named.extend(names(spec));
        all.push(definition);
    }
    Ok(Some(all))
}

/// True if a file with errors says that it is the workflow of this name.
fn claims(source: &str, name: &str) -> bool {
    source.lines().any(|line| {
        line.strip_prefix("workflow:").is_some_and(|rest| {
            let rest = rest.split('#').next().unwrap_or_default().trim();
            rest.trim_matches(['"', '\'']) == name
        })
    })
}

/// Workflows that steps start in their active version.
fn names(spec: &Arc<Spec>) -> BTreeSet<Arc<str>> {
    steps(spec, |verb| match verb {
        Verb::Workflow {
            name,
            version: None,
            ..
        } => Some(name.clone()),
        _ => None,
    })
}

fn steps<T: Ord>(spec: &Arc<Spec>, pick: impl Fn(&Verb) -> Option<T>) -> BTreeSet<T> {
    let plan = Plan::new(Arc::clone(spec));
    plan.graphs
        .iter()
        .flat_map(|graph| &graph.steps)
        .filter_map(|step| pick(&step.step.verb))
        .collect()
}

/// True if a step runs a process, which sees the files beside the workflow.
fn runs_processes(spec: &Arc<Spec>) -> bool {
    !steps(spec, |verb| {
        matches!(
            verb,
            Verb::Shell { .. } | Verb::Exec { .. } | Verb::Python { .. }
        )
        .then_some(())
    })
    .is_empty()
}

/// Registers files as [`read_all`] gives them, those that are needed first; what became of the
/// first file.
pub(crate) fn register(
    all: &[Definition],
    config: &Config,
    api: &dyn Api,
) -> Result<Registered, Error> {
    let folder = all
        .first()
        .and_then(|first| first.path.parent())
        .unwrap_or(Path::new("."));
    let mut bundles = Bundles::default();
    let mut last = None;
    for definition in all.iter().rev() {
        let registration = definition.registration(folder, &mut bundles, config, api)?;
        last = Some(api.register(&registration)?);
    }
    last.ok_or_else(|| Error::new(ErrorCode::Internal, "no file was given"))
}
