//! A workflow as lines: one step each, with rails that lead from each step to those that need it.
//!
//! A rail goes down from a step until the last step that needs it. What stands on a rail, or is tied
//! to it by a line across, needs the step it comes from.

use anstyle::Style;

use super::{Drawing, DrawnStep};
use crate::paint::{self, BOLD, CYAN, DIM, Line, PLAIN};

/// Everything, at most so wide.
pub(super) fn draw(title: &str, parts: &[(String, Drawing)], width: usize) -> Vec<Line> {
    let mut lines = vec![Line::default().with(BOLD, title), Line::default()];
    for (name, drawing) in parts {
        if !name.is_empty() {
            lines.push(Line::default());
            lines.push(Line::default().with(DIM, name));
        }
        lines.extend(rows(drawing, width));
    }
    lines
}

/// The same without colours.
pub(super) fn plain(title: &str, parts: &[(String, Drawing)], width: usize) -> String {
    draw(title, parts, width)
        .iter()
        .map(|line| line.text(false, None) + "\n")
        .collect()
}

fn rows(drawing: &Drawing, width: usize) -> Vec<Line> {
    let rails = Rails::new(drawing);
    let names = drawing
        .steps
        .iter()
        .map(|step| step.id.chars().count())
        .max()
        .unwrap_or(0);
    if rails.columns * 2 + names > width {
        return listed(drawing, &rails.order, width);
    }
    let column = rails.columns * 2 + 1;
    let mut lines = Vec::new();
    for row in &rails.rows {
        let step = &drawing.steps[row.step];
        let mut line = Line::default();
        for (place, cell) in row.cells.iter().enumerate() {
            if place == row.at {
                let (sign, style) = step.status.map_or(("●", CYAN), paint::step);
                line.push(style, sign);
            } else {
                line.push(DIM, cell.0);
            }
            line.push(DIM, cell.1);
        }
        line.pad(column);
        label(step, names, &mut line);
        lines.push(line.cut(width));
        inside(step, &row.after, column, width, &mut lines);
    }
    lines
}

fn label(step: &DrawnStep, names: usize, line: &mut Line) {
    let start = line.width();
    line.push(PLAIN, &step.id);
    line.pad(start + names + 2);
    line.push(DIM, &step.detail);
}

/// Graphs inside a step, beside the rails that pass.
fn inside(step: &DrawnStep, after: &[bool], column: usize, width: usize, lines: &mut Vec<Line>) {
    let rails: String = after
        .iter()
        .map(|open| if *open { "│ " } else { "  " })
        .collect();
    let room = width.saturating_sub(column + 4).max(20);
    for (title, drawing) in &step.inside {
        let mut inner = Vec::new();
        if !title.is_empty() {
            inner.push(Line::default().with(DIM, title));
        }
        inner.extend(rows(drawing, room));
        for row in inner {
            let mut line = Line::default().with(DIM, rails.clone());
            line.pad(column);
            lines.push(line.with(DIM, "┊ ").join(row));
        }
    }
}

/// Steps in order with what they need, where rails would take too much room.
fn listed(drawing: &Drawing, order: &[usize], width: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    for place in order {
        let step = &drawing.steps[*place];
        let needs: Vec<&str> = drawing
            .edges
            .iter()
            .filter(|(_, to)| to == place)
            .map(|(from, _)| drawing.steps[*from].id.as_str())
            .collect();
        let (sign, style): (&str, Style) = step.status.map_or(("●", CYAN), paint::step);
        let mut line = Line::default()
            .with(style, sign)
            .with(PLAIN, " ")
            .with(PLAIN, &step.id);
        line.push(DIM, format!("  {}", step.detail));
        if !needs.is_empty() {
            line.push(DIM, format!("  after {}", needs.join(", ")));
        }
        lines.push(line.cut(width));
        inside(step, &[], 2, width, &mut lines);
    }
    lines
}

struct Row {
    step: usize,
    /// The column of the step.
    at: usize,
    /// For each column what stands there, and what follows it.
    cells: Vec<(&'static str, &'static str)>,
    /// Rails that go on below.
    after: Vec<bool>,
}

struct Rails {
    order: Vec<usize>,
    rows: Vec<Row>,
    columns: usize,
}

/// A rail: whose it is, and how many steps still need that one.
type Rail = Option<(usize, usize)>;

impl Rails {
    fn new(drawing: &Drawing) -> Self {
        let order = order(drawing);
        let mut left = vec![0_usize; drawing.steps.len()];
        for (from, _) in &drawing.edges {
            left[*from] += 1;
        }
        let mut rails: Vec<Rail> = Vec::new();
        let mut busy: Vec<bool> = Vec::new();
        let mut rows: Vec<Row> = Vec::new();
        for step in &order {
            let needs: Vec<usize> = drawing
                .edges
                .iter()
                .filter(|(_, to)| to == step)
                .map(|(from, _)| *from)
                .collect();
            rows.push(row(*step, &needs, left[*step], &mut rails, &mut busy));
        }
        let columns = rows.iter().map(|row| row.cells.len()).max().unwrap_or(0);
        Self {
            order,
            rows,
            columns,
        }
    }
}

/// Adds a step to the rails, and draws its row.
fn row(
    step: usize,
    needs: &[usize],
    needed_by: usize,
    rails: &mut Vec<Rail>,
    busy: &mut Vec<bool>,
) -> Row {
    let mut tied = vec![false; rails.len()];
    for (place, rail) in rails.iter_mut().enumerate() {
        if let Some((from, open)) = rail
            && needs.contains(from)
        {
            tied[place] = true;
            *open -= 1;
        }
    }
    let over = |rail: &Rail| rail.is_some_and(|(_, open)| open == 0);
    // On a rail that ends here; else where the row above is blank, so that nothing seems tied.
    let ending = (0..rails.len()).find(|place| tied[*place] && over(&rails[*place]));
    let first_tied = tied.iter().position(|tied| *tied).unwrap_or(0);
    let is_blank = |place: usize| {
        rails.get(place).is_none_or(Option::is_none) && !busy.get(place).copied().unwrap_or(false)
    };
    let most = rails.len().max(busy.len());
    let blank = (first_tied..most).find(|place| is_blank(*place));
    let at = ending.or(blank).unwrap_or(most.max(first_tied));
    let count = rails.len().max(at + 1);
    rails.resize(count, None);
    tied.resize(count, false);
    let from = tied
        .iter()
        .position(|tied| *tied)
        .map_or(at, |first| first.min(at));
    let to = tied
        .iter()
        .rposition(|tied| *tied)
        .map_or(at, |last| last.max(at));
    let mut cells = Vec::with_capacity(count);
    for place in 0..count {
        let inside = place >= from && place < to;
        let passes = place > from && place < to;
        let cell = match (rails[place], tied[place]) {
            _ if place == at => "●",
            (Some((_, 0)), true) if place == from => "╰",
            (Some((_, 0)), true) if place == to => "╯",
            (Some((_, 0)), true) => "┴",
            (Some(_), true) if place == from => "├",
            (Some(_), true) if place == to => "┤",
            (Some(_), true) => "┼",
            (Some(_), false) if passes => "┼",
            (Some(_), false) => "│",
            (None, _) if passes => "─",
            (None, _) => " ",
        };
        cells.push((cell, if inside { "─" } else { " " }));
    }
    for rail in rails.iter_mut() {
        if over(rail) {
            *rail = None;
        }
    }
    *busy = cells
        .iter()
        .map(|(cell, _)| !matches!(*cell, " " | "─"))
        .collect();
    if needed_by > 0 {
        rails[at] = Some((step, needed_by));
    }
    while rails.last().is_some_and(Option::is_none) {
        rails.pop();
    }
    Row {
        step,
        at,
        cells,
        after: rails.iter().map(Option::is_some).collect(),
    }
}

/// Each step after what it needs; what has just become possible comes first, so that rails are short.
fn order(drawing: &Drawing) -> Vec<usize> {
    let count = drawing.steps.len();
    let mut left = vec![0_usize; count];
    let mut below = vec![Vec::new(); count];
    for (from, to) in &drawing.edges {
        left[*to] += 1;
        below[*from].push(*to);
    }
    let mut ready: Vec<usize> = (0..count).rev().filter(|step| left[*step] == 0).collect();
    let mut order = Vec::with_capacity(count);
    while let Some(step) = ready.pop() {
        order.push(step);
        for next in below[step].iter().rev() {
            left[*next] -= 1;
            if left[*next] == 0 {
                ready.push(*next);
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawing(count: usize, edges: &[(usize, usize)]) -> Drawing {
        let steps = (0..count)
            .map(|number| DrawnStep {
                id: format!("s{number}"),
                detail: String::new(),
                status: None,
                inside: Vec::new(),
            })
            .collect();
        Drawing {
            steps,
            edges: edges.to_vec(),
        }
    }

    fn drawn(drawing: &Drawing) -> Vec<String> {
        rows(drawing, 80)
            .iter()
            .map(|line| line.text(false, None))
            .collect()
    }

    #[test]
    fn a_chain_is_one_rail() {
        assert_eq!(
            drawn(&drawing(3, &[(0, 1), (1, 2)])),
            ["●  s0", "●  s1", "●  s2"]
        );
    }

    #[test]
    fn steps_without_needs_never_seem_tied_to_the_one_above() {
        assert_eq!(drawn(&drawing(3, &[])), ["●    s0", "  ●  s1", "●    s2"]);
    }

    #[test]
    fn a_diamond_opens_and_closes() {
        let edges = [(0, 1), (0, 2), (1, 3), (2, 3)];
        assert_eq!(
            drawn(&drawing(4, &edges)),
            ["●    s0", "├─●  s1", "● │  s2", "●─╯  s3"]
        );
    }
}
