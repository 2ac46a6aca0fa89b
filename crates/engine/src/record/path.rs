//! Which steps decided how long a run took.

use kapell_api::record::{Record, StepRecord};
use kapell_model::Time;

/// Paths of the steps that each had to wait for the one before, from the first to the one that ended
/// last; inside a group, loop or foreach, the steps that held it up. Making any of them faster makes
/// the run faster.
pub fn critical_path(record: &Record) -> Vec<String> {
    let mut path = Vec::new();
    let (finals, steps): (Vec<_>, Vec<_>) =
        record.steps.iter().partition(|step| step.part.is_some());
    chain(&steps, &mut path);
    chain(&finals, &mut path);
    path
}

fn end(step: &StepRecord) -> Option<Time> {
    step.started_at.and(step.ended_at)
}

/// The chain of needs that ends last among the steps of one graph.
fn chain(steps: &[&StepRecord], path: &mut Vec<String>) {
    let mut links: Vec<&StepRecord> = Vec::new();
    let mut next = latest(steps.iter().copied());
    while let Some(step) = next {
        links.push(step);
        let needs = steps
            .iter()
            .copied()
            .filter(|other| step.needs.contains(&other.id));
        next = latest(needs).filter(|_| links.len() <= steps.len());
    }
    for step in links.into_iter().rev() {
        path.push(step.path.clone());
        inside(step, path);
    }
}

fn latest<'r>(steps: impl Iterator<Item = &'r StepRecord>) -> Option<&'r StepRecord> {
    steps
        .filter(|step| end(step).is_some())
        .max_by_key(|step| end(step))
}

fn inside(step: &StepRecord, path: &mut Vec<String>) {
    if let Some(item) = step
        .items
        .iter()
        .flat_map(|items| &items.shown)
        .filter(|item| end(item).is_some())
        .max_by_key(|item| end(item))
    {
        path.push(item.path.clone());
        inside(item, path);
    }
    let mut rest = step.children.as_slice();
    while let Some(first) = rest.first() {
        let same =
            |child: &&StepRecord| child.iteration == first.iteration && child.part == first.part;
        let count = rest.iter().take_while(same).count();
        let (iteration, later) = rest.split_at(count);
        chain(&iteration.iter().collect::<Vec<_>>(), path);
        rest = later;
    }
}
