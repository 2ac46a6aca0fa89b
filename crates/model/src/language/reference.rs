//! The language reference, generated from the table.

use std::fmt::Write as _;

use super::{Key, Others, STEP, Section, Shape, WORKFLOW};

/// The reference of every key as Markdown: `docs/reference/language.md`.
pub fn reference_markdown() -> String {
    let mut out = String::from(HEAD);
    let mut sections: Vec<&'static Section> = vec![&WORKFLOW];
    let mut next = 0;
    while let Some(section) = sections.get(next).copied() {
        write_section(&mut out, section);
        for key in section.keys {
            mentioned(&key.shape, &mut sections);
        }
        next += 1;
    }
    out.push_str(TAIL);
    out
}

/// Adds the sections that a shape holds and that are not yet listed.
fn mentioned(shape: &'static Shape, sections: &mut Vec<&'static Section>) {
    match shape {
        Shape::Steps => add(&STEP, sections),
        Shape::Section(of) => add(of, sections),
        Shape::Dyn(inner) | Shape::List(inner) | Shape::OneOrMany(inner) | Shape::Map(inner) => {
            mentioned(inner, sections);
        }
        Shape::AnyOf(shapes) => shapes.iter().for_each(|shape| mentioned(shape, sections)),
        _ => {}
    }
}

fn add(of: &'static Section, sections: &mut Vec<&'static Section>) {
    if !sections.iter().any(|section| std::ptr::eq(*section, of)) {
        sections.push(of);
    }
}

fn write_section(out: &mut String, section: &'static Section) {
    let _ = writeln!(out, "\n## {}\n\n{}\n", section.title, section.doc);
    if !section.example.is_empty() {
        let _ = writeln!(out, "```yaml\n{}```\n", section.example);
    }
    let verbs: Vec<&Key> = section
        .keys
        .iter()
        .filter(|key| key.verb && !key.is_later())
        .collect();
    let others: Vec<&Key> = section
        .keys
        .iter()
        .filter(|key| !key.verb && !key.is_later())
        .collect();
    if !verbs.is_empty() {
        let _ = writeln!(
            out,
            "What says what {} is for; it has exactly one of them:\n",
            section.name
        );
        table(out, &verbs);
        out.push_str("\nWhat it may carry beside that:\n\n");
    }
    table(out, &others);
    if let Others::Names(shape) = section.others {
        let _ = writeln!(
            out,
            "\nEvery other key is a name, with {} as its value.",
            describe(shape)
        );
    }
    let later: Vec<String> = section
        .keys
        .iter()
        .filter(|key| key.is_later())
        .map(|key| format!("`{}`", key.name))
        .collect();
    if !later.is_empty() {
        let _ = writeln!(
            out,
            "\nNot available in this version: {}.",
            later.join(", ")
        );
    }
}

fn table(out: &mut String, keys: &[&'static Key]) {
    out.push_str("| key | value | default | meaning |\n| --- | --- | --- | --- |\n");
    for key in keys {
        let default = match (key.required, key.default) {
            (true, _) => "**required**".to_owned(),
            (false, "") => String::new(),
            (false, default) => default.to_owned(),
        };
        let cells = [describe(&key.shape), default, key.doc.to_owned()]
            .map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {} |",
            key.name, cells[0], cells[1], cells[2]
        );
    }
}

fn describe(shape: &'static Shape) -> String {
    match shape {
        Shape::Literal => "text".to_owned(),
        Shape::Text => "text, expressions inside".to_owned(),
        Shape::Value => "any value, expressions inside".to_owned(),
        Shape::Condition => "one expression of type bool".to_owned(),
        Shape::Expression => "one expression".to_owned(),
        Shape::Empty => "nothing".to_owned(),
        Shape::Unset => "null".to_owned(),
        Shape::Bool => "`true` or `false`".to_owned(),
        Shape::Int(min, max) => format!("{} to {}", grouped(*min), grouped(*max)),
        Shape::Number(min) => format!("a number from {min}"),
        Shape::Duration => "a duration".to_owned(),
        Shape::Size => "a size".to_owned(),
        Shape::Share => "a count or a share".to_owned(),
        Shape::Choice(words) => words
            .iter()
            .map(|word| format!("`{word}`"))
            .collect::<Vec<_>>()
            .join(", "),
        Shape::Type => "a type".to_owned(),
        Shape::Dyn(inner) => format!("{}, or an expression", describe(inner)),
        Shape::List(item) => format!("a list: {}", describe(item)),
        Shape::OneOrMany(item) => format!("one or a list: {}", describe(item)),
        Shape::Map(value) => format!("names to: {}", describe(value)),
        Shape::AnyOf(shapes) => shapes
            .iter()
            .map(describe)
            .collect::<Vec<_>>()
            .join("; or "),
        Shape::Steps => "[step](#step)s by id".to_owned(),
        Shape::Section(of) => format!("[{}](#{})", of.title, of.title),
    }
}

fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

const HEAD: &str = include_str!("reference_head.md");
const TAIL: &str = include_str!("reference_tail.md");
