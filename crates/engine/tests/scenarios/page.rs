//! A page of the concepts: Markdown in which some sections are scenarios.

use std::path::Path;

/// A page.
pub(crate) struct Page {
    /// Its scenarios in order.
    pub scenarios: Vec<Scenario>,
}

/// A section that can be run.
pub(crate) struct Scenario {
    /// `page::heading`, in lower case with dashes.
    pub name: String,
    /// Line of the heading, from 1.
    pub line: usize,
    /// Workflow files; the first is what `start` starts.
    pub workflows: Vec<String>,
    /// What happens.
    pub script: String,
    /// What is expected to follow.
    pub timeline: String,
    /// Lines of the page between the fences of the timeline.
    place: (usize, usize),
}

#[derive(Default)]
struct Section {
    name: String,
    line: usize,
    workflows: Vec<String>,
    script: Option<String>,
    timeline: Option<(String, (usize, usize))>,
}

impl Page {
    /// Reads a page.
    pub(crate) fn read(path: &Path, text: &str) -> Result<Self, String> {
        let stem = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or("page")
            .to_lowercase();
        let mut sections = vec![Section::default()];
        let mut open: Option<(&str, usize, String)> = None;
        for (number, line) in text.lines().enumerate() {
            let section = sections.last_mut().expect("there is always a section");
            match &mut open {
                Some((language, from, body)) if line.trim_end() == "```" => {
                    let body = std::mem::take(body);
                    match *language {
                        "yaml" => section.workflows.push(body),
                        "scenario" => section.script = Some(body),
                        "timeline" => section.timeline = Some((body, (*from + 1, number))),
                        _ => {}
                    }
                    open = None;
                }
                Some((_, _, body)) => {
                    body.push_str(line);
                    body.push('\n');
                }
                None => {
                    if let Some(language) = line.strip_prefix("```") {
                        open = Some((language.trim(), number, String::new()));
                    } else if line.starts_with('#') {
                        let name = format!("{stem}::{}", slug(line));
                        sections.push(Section {
                            name,
                            line: number + 1,
                            ..Section::default()
                        });
                    }
                }
            }
        }
        let mut scenarios = Vec::new();
        for section in sections {
            let Section {
                name,
                line,
                workflows,
                script,
                timeline,
            } = section;
            let at = format!("{}:{line}", path.display());
            match (script, timeline) {
                (Some(script), Some((timeline, place))) => {
                    scenarios.push(Scenario {
                        name,
                        line,
                        workflows,
                        script,
                        timeline,
                        place,
                    });
                }
                (None, None) => {}
                _ => {
                    return Err(format!(
                        "{at}: a scenario needs a `timeline` block, and the reverse"
                    ));
                }
            }
        }
        let mut names: Vec<&str> = scenarios
            .iter()
            .map(|scenario| scenario.name.as_str())
            .collect();
        names.sort_unstable();
        if let Some(twice) = names.iter().zip(names.iter().skip(1)).find(|(a, b)| a == b) {
            return Err(format!(
                "{}: two scenarios are named `{}`",
                path.display(),
                twice.0
            ));
        }
        Ok(Self { scenarios })
    }

    /// The page's text with other timelines.
    pub(crate) fn with_timelines(text: &str, fresh: &[(&Scenario, String)]) -> String {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for (scenario, timeline) in fresh.iter().rev() {
            let (from, to) = scenario.place;
            lines.splice(from..to, timeline.trim_end().lines().map(str::to_owned));
        }
        let mut text = lines.join("\n");
        text.push('\n');
        text
    }
}

fn slug(heading: &str) -> String {
    let words = heading
        .trim_start_matches('#')
        .replace(|c: char| !c.is_alphanumeric(), " ");
    words
        .split_whitespace()
        .collect::<Vec<_>>()
        .join("-")
        .to_lowercase()
}
