//! Progress on a terminal, which is a pseudo-terminal here.

use std::fs::{File, OpenOptions};
use std::io::Read;

use regex::Regex;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::place::Place;

const WIDE: &str = "\
workflow: a_rather_long_name_of_a_workflow
steps:
  a_step_with_a_long_name: { shell: \"sleep 0.2; echo 日本語日本語日本語日本語日本語 >&2; exit 3\" }
  each:
    foreach: { i: \"${{ range(2000) }}\" }
    set: { x: \"${{ i }}\" }
  last: { needs: [a_step_with_a_long_name, each], noop: }
";

/// What a command writes to a terminal of this size.
fn written(place: &Place, arguments: &[&str], columns: u16, rows: u16) -> String {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new())
        .unwrap()
        .into_string()
        .unwrap();
    let open = || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(&name)
            .unwrap()
    };
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&terminal, size).unwrap();
    let mut command = place.command(arguments);
    command.env("TERM", "xterm").stdout(open()).stderr(open());
    let mut child = command.spawn().unwrap();
    // What holds the other end open is closed, so that reading ends with the child.
    drop(command);
    let mut bytes = Vec::new();
    let _ = File::from(terminal).read_to_end(&mut bytes);
    child.wait().unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Columns of a line, without what only colours it. The tests write no wide characters but these.
fn columns(line: &str) -> usize {
    line.chars()
        .map(|c| if "日本語".contains(c) { 2 } else { 1 })
        .sum()
}

#[test]
fn no_line_of_the_progress_wraps() {
    let place = Place::with("wide.yaml", WIDE);
    let escape = Regex::new("\u{1b}\\[[0-9;?]*[A-Za-z]").unwrap();
    for (width, rows) in [(24, 6), (60, 24)] {
        let text = written(&place, &["run", "wide.yaml"], width, rows);
        let end = text.rfind("\u{1b}[?25h").unwrap();
        let live = escape.replace_all(&text[..end], "");
        for line in live.lines() {
            let line = line.trim_start_matches('\r');
            assert!(columns(line) <= usize::from(width), "{width}: {line}");
        }
        assert!(live.contains("a_step"), "{live}");
        let said = escape.replace_all(&text[end..], "").into_owned();
        assert!(said.contains("✗ failed in"), "{said}");
    }
}
