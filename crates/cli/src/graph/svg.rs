//! A workflow as SVG: boxes in layers, groups as boxes around boxes.

use std::fmt::Write as _;

use kapell_model::StepStatus;

use super::layout::{self, Gaps, Layout};
use super::{Drawing, DrawnStep};

const GAPS: Gaps = Gaps {
    across: 28.0,
    down: 44.0,
};
const PADDING: f64 = 16.0;
const TITLE: f64 = 20.0;
const HEIGHT: f64 = 44.0;
const LETTER: f64 = 7.4;
const SMALL_LETTER: f64 = 6.0;

/// A drawing with its boxes in place, and those inside them.
struct Placed<'d> {
    drawing: &'d Drawing,
    layout: Layout,
    /// For each step, its graphs with where they lie in its box.
    inside: Vec<Vec<(&'d str, f64, f64, Placed<'d>)>>,
}

/// The whole picture.
pub(super) fn draw(title: &str, parts: &[(String, Drawing)]) -> String {
    let placed: Vec<(&str, Placed<'_>)> = parts
        .iter()
        .map(|(name, drawing)| (name.as_str(), place(drawing)))
        .collect();
    let width = placed
        .iter()
        .map(|(_, part)| part.layout.width)
        .fold(200.0, f64::max)
        + 2.0 * PADDING;
    let mut body = String::new();
    let mut y = PADDING + TITLE;
    text(&mut body, PADDING, PADDING + 8.0, "title", title);
    for (name, part) in &placed {
        if !name.is_empty() {
            text(&mut body, PADDING, y + 10.0, "name", name);
            y += TITLE;
        }
        picture(
            &mut body,
            part,
            PADDING + (width - 2.0 * PADDING - part.layout.width) / 2.0,
            y,
        );
        y += part.layout.height + PADDING + TITLE / 2.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{y:.0}\" viewBox=\"0 0 {width:.0} {y:.0}\" role=\"img\">\n<title>{}</title>\n{STYLE}{body}</svg>\n",
        escaped(title)
    )
}

const STYLE: &str = "<style>
  text { font: 13px ui-monospace, 'SF Mono', Menlo, Consolas, monospace; fill: #1f2933 }
  .title { font-weight: 600; font-size: 15px }
  .detail, .name { font-size: 10.5px; fill: #66737f }
  .step { fill: #ffffff; stroke: #9aa5b1; stroke-width: 1.2 }
  .group { fill: #66737f; fill-opacity: 0.06; stroke: #9aa5b1; stroke-width: 1; stroke-dasharray: 4 3 }
  .edge { fill: none; stroke: #9aa5b1; stroke-width: 1.4 }
  .tip { fill: #9aa5b1 }
  .good { stroke: #2f9e44; fill: #ebfbee; fill-opacity: 1 } .bad { stroke: #e03131; fill: #fff5f5; fill-opacity: 1 }
  .now { stroke: #1c7ed6; fill: #e7f5ff; fill-opacity: 1 } .off { stroke-dasharray: 3 3; fill: #f8f9fa; fill-opacity: 1 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e4e7eb } .detail, .name { fill: #9aa5b1 } .step { fill: #1f2933; stroke: #7b8794 }
    .good { fill: #12321a } .bad { fill: #3b1515 } .now { fill: #10263a } .off { fill: #262f38 }
  }
</style>
";

fn place(drawing: &Drawing) -> Placed<'_> {
    let mut sizes = Vec::new();
    let mut inside = Vec::new();
    for step in &drawing.steps {
        let mut graphs = Vec::new();
        let mut width =
            (letters(&step.id) * LETTER).max(letters(&step.detail) * SMALL_LETTER) + 24.0;
        let mut height = HEIGHT;
        for (title, drawing) in &step.inside {
            let placed = place(drawing);
            let top = height + if title.is_empty() { 0.0 } else { TITLE };
            width = width
                .max(placed.layout.width + 2.0 * PADDING)
                .max(letters(title) * SMALL_LETTER + 2.0 * PADDING);
            height = top + placed.layout.height + PADDING;
            graphs.push((title.as_str(), PADDING, top, placed));
        }
        for (_, x, _, placed) in &mut graphs {
            *x = (width - placed.layout.width) / 2.0;
        }
        sizes.push((width, height));
        inside.push(graphs);
    }
    Placed {
        layout: layout::place(&sizes, &drawing.edges, GAPS),
        drawing,
        inside,
    }
}

#[expect(clippy::cast_precision_loss, reason = "names are short")]
fn letters(text: &str) -> f64 {
    text.chars().count() as f64
}

fn picture(out: &mut String, placed: &Placed<'_>, x: f64, y: f64) {
    for points in &placed.layout.edges {
        edge(out, points, x, y);
    }
    for ((step, rect), inside) in placed
        .drawing
        .steps
        .iter()
        .zip(&placed.layout.boxes)
        .zip(&placed.inside)
    {
        let (left, top) = (x + rect.x, y + rect.y);
        let kind = if step.inside.is_empty() {
            "step"
        } else {
            "group"
        };
        let _ = writeln!(
            out,
            "<rect class=\"{kind}{}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"6\"/>",
            status(step),
            rect.width,
            rect.height
        );
        text(out, left + 12.0, top + 18.0, "", &step.id);
        text(out, left + 12.0, top + 34.0, "detail", &step.detail);
        for (title, dx, dy, inner) in inside {
            if !title.is_empty() {
                text(out, left + 12.0, top + dy - 6.0, "name", title);
            }
            picture(out, inner, left + dx, top + dy);
        }
    }
}

fn status(step: &DrawnStep) -> &'static str {
    match step.status {
        None | Some(StepStatus::Pending) => "",
        Some(status) if status.good() => " good",
        Some(StepStatus::Skipped | StepStatus::UpstreamFailed | StepStatus::Cancelled) => " off",
        Some(status) if status.bad() => " bad",
        Some(_) => " now",
    }
}

/// A smooth line through the points, with a tip.
fn edge(out: &mut String, points: &[(f64, f64)], x: f64, y: f64) {
    let Some((first, rest)) = points.split_first() else {
        return;
    };
    let mut path = format!("M{:.1} {:.1}", first.0 + x, first.1 + y);
    let mut last = *first;
    for point in rest {
        let middle = f64::midpoint(last.1, point.1) + y;
        let _ = write!(
            path,
            "C{:.1} {middle:.1} {:.1} {middle:.1} {:.1} {:.1}",
            last.0 + x,
            point.0 + x,
            point.0 + x,
            point.1 + y
        );
        last = *point;
    }
    let (tip_x, tip_y) = (last.0 + x, last.1 + y);
    let _ = writeln!(out, "<path class=\"edge\" d=\"{path}\"/>");
    let _ = writeln!(
        out,
        "<path class=\"tip\" d=\"M{tip_x:.1} {tip_y:.1}l-4 -7h8z\"/>"
    );
}

fn text(out: &mut String, x: f64, y: f64, class: &str, text: &str) {
    let class = if class.is_empty() {
        String::new()
    } else {
        format!(" class=\"{class}\"")
    };
    let _ = writeln!(
        out,
        "<text{class} x=\"{x:.1}\" y=\"{y:.1}\">{}</text>",
        escaped(text)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
