//! What is left lying about in a text.

use super::tree::SourceFile;

/// Marks of unfinished work. Put together, so that this file does not hold them.
const MARKS: [&str; 3] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];

/// Reports marks of unfinished work, blanks at the end of lines, and a missing last line end.
pub(super) fn check(file: &SourceFile, problems: &mut Vec<String>) {
    // Snapshots and the lock file are written by tools, as the tools like.
    if matches!(file.ending(), "snap" | "lock") {
        return;
    }
    let path = &file.path;
    for (index, line) in file.text.lines().enumerate() {
        let line_number = index + 1;
        if let Some(mark) = line
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .find(|word| MARKS.contains(word))
        {
            problems.push(format!(
                "{path}:{line_number}: `{mark}`; do it now, or file an issue"
            ));
        }
        if line.ends_with([' ', '\t']) {
            problems.push(format!(
                "{path}:{line_number}: blanks at the end of the line"
            ));
        }
    }
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        problems.push(format!("{path}: the last line has no end"));
    }
}
