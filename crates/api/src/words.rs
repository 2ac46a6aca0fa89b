//! Words that the server and the command line both say.

use kapell_model::RunId;

/// The end of a run's id, by which people name it.
pub fn short(run: RunId) -> String {
    let id = run.to_string();
    id[id.len() - 8..].to_owned()
}

/// A word as a shell takes it.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_.:/=@+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Commands in a sentence, such as `` `kapell approve` ``, with the run and the step that they are about.
pub fn commands(why: &str, run: RunId, step: Option<&str>) -> String {
    let short = short(run);
    let mut why = why.replace("`kapell resume`", &format!("`kapell resume {short}`"));
    if let Some(step) = step {
        let step = quoted(step);
        for command in ["continue", "approve"] {
            let said = format!("`kapell {command}`");
            why = why.replace(&said, &format!("`kapell {command} {short} {step}`"));
        }
    }
    why
}
