//! Patterns of `.kapellignore`, as gitignore(5) has them: `#` comments, `!` takes back, a `/` at the
//! start or inside anchors, a `/` at the end means folders, `*` `?` `[a-z]` and `**`.

/// What is left out whatever the file says, unless it takes it back.
const ALWAYS: [&str; 9] = [
    ".git",
    ".venv",
    "venv",
    "node_modules",
    "__pycache__",
    ".kapell",
    ".kapell-worker",
    ".kapell-pool",
    "target",
];

/// Patterns in order: the last that matches decides.
pub(crate) struct Ignore(Vec<Pattern>);

struct Pattern {
    parts: Vec<String>,
    takes_back: bool,
    folders: bool,
}

impl Ignore {
    /// The patterns of a file's text, after those that always hold.
    pub(crate) fn new(text: &str) -> Self {
        let always = ALWAYS.iter().map(|name| format!("{name}/"));
        let lines = always.chain(text.lines().map(str::to_owned));
        Self(lines.filter_map(|line| Pattern::parse(&line)).collect())
    }

    /// True if a path (with `/`, below the folder) is left out. Of what is in a folder that is left
    /// out, nothing is asked.
    pub(crate) fn leaves_out(&self, path: &str, is_folder: bool) -> bool {
        let parts: Vec<&str> = path.split('/').collect();
        let last = self
            .0
            .iter()
            .rev()
            .find(|pattern| (is_folder || !pattern.folders) && matches(&pattern.parts, &parts));
        last.is_some_and(|pattern| !pattern.takes_back)
    }
}

impl Ignore {
    /// True if a line of the file takes a path back, and none after it leaves it out again.
    pub(crate) fn takes_back(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').collect();
        let files = self.0.iter().rev().filter(|pattern| !pattern.folders);
        let last = files
            .into_iter()
            .find(|pattern| matches(&pattern.parts, &parts));
        last.is_some_and(|pattern| pattern.takes_back)
    }
}

impl Pattern {
    fn parse(line: &str) -> Option<Self> {
        let line = line.trim_end();
        let (takes_back, line) = line
            .strip_prefix('!')
            .map_or((false, line), |rest| (true, rest));
        if line.is_empty() || line.starts_with('#') {
            return None;
        }
        let folders = line.ends_with('/');
        let body = line.trim_end_matches('/');
        let anchored = body.contains('/');
        let mut parts: Vec<String> = body
            .split('/')
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect();
        if !anchored {
            parts.insert(0, "**".to_owned());
        }
        Some(Self {
            parts,
            takes_back,
            folders,
        })
    }
}

fn matches(pattern: &[String], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "**" => {
            matches(rest, path)
                || path
                    .split_first()
                    .is_some_and(|(_, left)| matches(pattern, left))
        }
        (Some((first, rest)), Some((name, left))) => {
            let (first, name): (Vec<char>, Vec<char>) =
                (first.chars().collect(), name.chars().collect());
            part_matches(&first, &name) && matches(rest, left)
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}

fn part_matches(pattern: &[char], name: &[char]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some(('*', rest)), _) => {
            part_matches(rest, name)
                || name
                    .split_first()
                    .is_some_and(|(_, left)| part_matches(pattern, left))
        }
        (Some(('?', rest)), Some((_, left))) => part_matches(rest, left),
        (Some(('[', rest)), Some((c, left))) => match rest.iter().position(|end| *end == ']') {
            Some(end) => in_set(&rest[..end], *c) && part_matches(&rest[end + 1..], left),
            None => *c == '[' && part_matches(rest, left),
        },
        (Some(('\\', [c, rest @ ..]) | (c, rest)), Some((d, left))) => {
            c == d && part_matches(rest, left)
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}

fn in_set(set: &[char], c: char) -> bool {
    let (not, mut set) = match set.split_first() {
        Some(('!' | '^', rest)) => (true, rest),
        _ => (false, set),
    };
    let mut found = false;
    while let Some((first, rest)) = set.split_first() {
        if let ['-', last, left @ ..] = rest {
            found |= (*first..=*last).contains(&c);
            set = left;
        } else {
            found |= *first == c;
            set = rest;
        }
    }
    found != not
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_never_part_of_a_bundle_is_left_out_at_any_depth() {
        let ignore = Ignore::new("");
        assert!(ignore.leaves_out(".git", true));
        assert!(ignore.leaves_out("deep/__pycache__", true));
        assert!(
            !ignore.leaves_out("target", false),
            "a file of that name is none of it"
        );
        assert!(!ignore.leaves_out("src", true));
    }

    #[test]
    fn patterns_match_as_gitignore_has_them() {
        let ignore =
            Ignore::new("*.csv\n!keep.csv\n/top\nraw/*.txt\n**/cache/\nlog[0-9].tx?\n# no\n");
        for (path, folder, out) in [
            ("a.csv", false, true),
            ("in/a.csv", false, true),
            ("in/keep.csv", false, false),
            ("top", false, true),
            ("in/top", false, false),
            ("raw/a.txt", false, true),
            ("in/raw/a.txt", false, false),
            ("raw/in/a.txt", false, false),
            ("a/b/cache", true, true),
            ("a/b/cache", false, false),
            ("log7.txt", false, true),
            ("logs.txt", false, false),
        ] {
            assert_eq!(ignore.leaves_out(path, folder), out, "{path}");
        }
    }
}
