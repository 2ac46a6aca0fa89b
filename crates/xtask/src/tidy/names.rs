//! Words that say nothing about the thing they name.

use super::tree::SourceFile;

/// In any letter case, alone or as part of a longer name.
const EMPTY_WORDS: [&str; 7] = [
    "manager", "managers", "helper", "helpers", "util", "utils", "common",
];
/// What comes before the name of a type, a module or a class.
const KEYWORDS: [&str; 8] = [
    "struct",
    "enum",
    "trait",
    "type",
    "mod",
    "union",
    "class",
    "interface",
];

/// Reports empty words in the names of files, modules and types.
pub(super) fn check(file: &SourceFile, problems: &mut Vec<String>) {
    if let Some(word) = file.path.split('/').find_map(empty_word) {
        problems.push(format!(
            "{}: a name with `{word}` says nothing; what does it hold or do?",
            file.path
        ));
    }
    if !file.is_source() {
        return;
    }
    for (index, line) in file.text.lines().enumerate() {
        for name in declared(line) {
            if let Some(word) = empty_word(name) {
                let path = &file.path;
                problems.push(format!(
                    "{path}:{}: `{name}`: a name with `{word}` says nothing",
                    index + 1
                ));
            }
        }
    }
}

/// The names that a line declares.
fn declared(line: &str) -> impl Iterator<Item = &str> {
    let code = line.trim_start();
    let is_comment = code.starts_with("//") || code.starts_with('#') || code.starts_with('*');
    let mut words = line
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty());
    std::iter::from_fn(move || {
        if is_comment {
            return None;
        }
        words.by_ref().find(|word| KEYWORDS.contains(word))?;
        words.next()
    })
}

/// The empty word in a name in snake, kebab or camel case, if there is one.
fn empty_word(name: &str) -> Option<&'static str> {
    let mut words = Vec::new();
    let mut word = String::new();
    for c in name.chars() {
        if !c.is_alphanumeric() || c.is_uppercase() {
            words.push(std::mem::take(&mut word));
        }
        if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
        }
    }
    words.push(word);
    EMPTY_WORDS
        .into_iter()
        .find(|empty| words.iter().any(|word| word == empty))
}
