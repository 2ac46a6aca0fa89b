use super::{Color, Diagnostic, render};
use crate::parse;

#[test]
fn a_diagnostic_is_plain_json() {
    let text = "workflow: w\nsteps: { a: { shel: x } }\n";
    let parsed = parse("w.yaml", text);
    let json = serde_json::to_value(&parsed.diagnostics).unwrap();
    let wanted = serde_json::json!([{
        "severity": "error",
        "code": "unknown-key",
        "message": "a step has no key `shel`",
        "hint": "did you mean `shell`?",
        "span": { "start": 26, "end": 30 },
        "line": 2,
        "column": 15,
    }]);
    assert_eq!(json, wanted);
}

#[test]
fn what_a_terminal_would_act_on_is_not_printed() {
    let text = "workflow: w\nsteps: { a: { noop: }, \"b\u{1b}[31m\": { noop: } }\n";
    let parsed = parse("w.yaml", text);
    let shown = render("w\u{7}.yaml", text, &parsed.diagnostics, Color::Never);
    assert!(!shown.contains(['\u{1b}', '\u{7}']), "{shown:?}");
    let colored = render("w.yaml", text, &parsed.diagnostics, Color::Always);
    assert!(
        colored.contains("\u{1b}[1;31merror[bad-name]\u{1b}[0m"),
        "{colored:?}"
    );
}

#[test]
fn carets_stand_below_the_span_in_long_and_wide_lines() {
    let line = format!(
        "steps: {{ a: {{ noop: }}, {} \u{e9}\u{e9}: 1 }}",
        "x: { noop: },"
    );
    for text in [
        format!("workflow: w\n{line}\n"),
        format!("workflow: w\n# {}\n{line}", "y".repeat(500)),
    ] {
        let parsed = parse("w.yaml", &text);
        let shown = render("w.yaml", &text, &parsed.diagnostics, Color::Never);
        let lines: Vec<Vec<char>> = shown.lines().map(|line| line.chars().collect()).collect();
        let caret = lines[4].iter().position(|c| *c == '^').unwrap();
        assert_eq!(
            lines[3][caret..caret + 2].iter().collect::<String>(),
            "\u{e9}\u{e9}",
            "{shown}"
        );
    }
    let wide = format!(
        "workflow: w\nsteps: {{ a: {{ noop: }}, {} zz-z: {{ noop: }} }}\n",
        "      ".repeat(60)
    );
    let parsed = parse("w.yaml", &wide);
    let shown = render("w.yaml", &wide, &parsed.diagnostics, Color::Never);
    let lines: Vec<Vec<char>> = shown.lines().map(|line| line.chars().collect()).collect();
    let caret = lines[4].iter().position(|c| *c == '^').unwrap();
    assert_eq!(
        lines[3][caret..caret + 4].iter().collect::<String>(),
        "zz-z",
        "{shown}"
    );
    assert!(lines[3].len() < 200);
}

#[test]
fn a_diagnostic_without_a_place_has_no_source_line() {
    let problem = Diagnostic::without_place("missing-param", "`day` is required: date")
        .hint("The day to load");
    assert_eq!(
        render("", "", &[problem], Color::Never),
        "error[missing-param]: `day` is required: date\n  = hint: The day to load\n"
    );
}
