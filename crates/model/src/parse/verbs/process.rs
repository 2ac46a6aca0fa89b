//! `shell`, `exec` and `python`.

use std::sync::Arc;

use kapell_expr::Template;

use crate::language;
use crate::parse::Context;
use crate::parse::names::is_identifier;
use crate::parse::read::expression_start;
use crate::parse::scope::Scope;
use crate::parse::template::Secrets;
use crate::spec::{PythonSource, Verb};
use crate::yaml::Node;

const BY_ENV: &str = "pass the value through `env:` and read `$NAME`, or through `shell: { script, args }` and read `$1`";

pub(super) fn shell(cx: &mut Context<'_>, node: &Node, item: &Scope<'_>) -> Option<Verb> {
    let usual = || vec![Arc::from("sh"), Arc::from("-eu")];
    if node.scalar().is_some() {
        let script = cx.literal(node, "shell", BY_ENV)?;
        return Some(Verb::Shell {
            script,
            interpreter: usual(),
            args: Vec::new(),
        });
    }
    let fields = cx.fields(node, &language::SHELL)?;
    let interpreter = fields.get("interpreter").map_or_else(usual, |node| {
        let items = cx.one_or_many(node, "`interpreter`");
        items
            .iter()
            .filter_map(|item| cx.literal(item, "interpreter", "the interpreter is fixed"))
            .collect()
    });
    let args = fields
        .get("args")
        .map(|node| texts(cx, node, "args", item))
        .unwrap_or_default();
    let script = fields.get("script").and_then(|node| {
        cx.literal(
            node,
            "script",
            "pass the value through `args` and read `$1`, or through `env`",
        )
    })?;
    Some(Verb::Shell {
        script,
        interpreter,
        args,
    })
}

fn texts(cx: &mut Context<'_>, node: &Node, what: &str, scope: &Scope<'_>) -> Vec<Template> {
    let items = cx.items(node, &format!("`{what}`"));
    items
        .iter()
        .filter_map(|item| cx.text(item, what, scope, Secrets::Refused))
        .collect()
}

pub(super) fn exec(cx: &mut Context<'_>, node: &Node, item: &Scope<'_>) -> Option<Verb> {
    if node.scalar().is_some() {
        cx.error_hint(
            "wrong-form",
            node.span,
            "`exec` is a list of a program and its arguments",
            "write `exec: [program, argument]`, or use `shell`",
        );
        return None;
    }
    let items = cx.items(node, "`exec`");
    if items.is_empty() && !node.is_broken() {
        cx.error("wrong-form", node.span, "`exec` names no program");
    }
    for place in code_arguments(items) {
        cx.literal(
            &items[place],
            "code",
            "pass the value as one more argument, or through `env`",
        );
    }
    Some(Verb::Exec {
        argv: texts(cx, node, "exec", item),
    })
}

/// Programs that run the text behind an option.
const INTERPRETERS: &[&str] = &[
    "sh",
    "bash",
    "dash",
    "zsh",
    "ksh",
    "mksh",
    "ash",
    "fish",
    "csh",
    "tcsh",
    "busybox",
    "python",
    "pypy",
    "perl",
    "ruby",
    "node",
    "nodejs",
    "deno",
    "bun",
    "php",
    "lua",
    "luajit",
    "R",
    "Rscript",
    "julia",
    "osascript",
    "pwsh",
    "powershell",
    "tclsh",
    "awk",
    "gawk",
    "mawk",
    "nawk",
    "sed",
    "ssh",
    "su",
    "groovy",
    "scala",
    "psql",
    "mysql",
    "sqlite3",
];

/// The places of arguments that an interpreter takes as code. A program that is not literal counts
/// as an interpreter.
fn code_arguments(argv: &[Node]) -> Vec<usize> {
    let text = |place: usize| {
        argv.get(place)
            .and_then(Node::scalar)
            .map_or("", |scalar| &*scalar.text)
    };
    let mut interpreted = false;
    let mut code = Vec::new();
    for place in 0..argv.len() {
        let word = text(place);
        if interpreted && takes_code(word) {
            code.push(place);
            code.extend(Some(place + 1).filter(|next| *next < argv.len()));
        }
        // One argument that `env` splits into a whole command.
        let splits = word.starts_with("-S") || word.starts_with("--split-string");
        if splits && text(0).rsplit('/').next() == Some("env") {
            code.push(place);
            code.extend(Some(place + 1).filter(|next| *next < argv.len()));
        }
        interpreted |= is_interpreter(word) || (place == 0 && expression_start(word).is_some());
    }
    code
}

fn is_interpreter(word: &str) -> bool {
    let name = word.rsplit(['/', '\\']).next().unwrap_or(word);
    let name = name.strip_suffix(".exe").unwrap_or(name);
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
    INTERPRETERS.contains(&name) || INTERPRETERS.contains(&bare)
}

/// `-c`, `-e`, `-lc`, `--eval=…`: options whose argument is code.
fn takes_code(word: &str) -> bool {
    let long = [
        "--eval",
        "--print",
        "--command",
        "--execute",
        "--expression",
        "-Command",
        "-EncodedCommand",
        "-command",
    ];
    if long.iter().any(|option| {
        word.strip_prefix(option)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    }) {
        return true;
    }
    let Some(letters) = word.strip_prefix('-').filter(|rest| !rest.starts_with('-')) else {
        return false;
    };
    // Letters behind the `c` or `e` may be the code itself: `-e'print 1'`.
    let options: String = letters
        .chars()
        .take_while(char::is_ascii_alphabetic)
        .collect();
    options
        .chars()
        .any(|c| matches!(c, 'c' | 'e' | 'E' | 'r' | 'p'))
        && (options.len() <= 4 || options.len() < letters.len())
}

pub(super) fn python(cx: &mut Context<'_>, node: &Node) -> Option<Verb> {
    if let Some(scalar) = node.scalar().filter(|_| !node.is_null()) {
        let hint = if scalar.text.contains('\n') {
            "write `python: { code: … }`"
        } else {
            "write `python: { file: train.py, function: fit }`"
        };
        cx.error_hint(
            "wrong-form",
            node.span,
            "`python` is a map that says where the function is",
            hint,
        );
        return None;
    }
    let fields = cx.fields(node, &language::PYTHON)?;
    let by_with = "pass the value through `with:`, by parameter name";
    let mut sources = Vec::new();
    if let Some(file) = fields.get("file") {
        sources.push(
            cx.path(
                file,
                "file",
                "which file runs is fixed; pass the value through `with:`",
            )
            .map(PythonSource::File),
        );
    }
    if let Some(module) = fields.get("module") {
        sources.push(
            cx.literal(module, "module", by_with)
                .map(PythonSource::Module),
        );
    }
    if let Some(code) = fields.get("code") {
        sources.push(cx.literal(code, "code", by_with).map(PythonSource::Code));
    }
    let later = node
        .map()
        .unwrap_or_default()
        .iter()
        .any(|entry| &*entry.key == "notebook");
    if sources.len() != 1 && !later {
        cx.error_hint("one-of", fields.span, "`python` takes exactly one of `file`, `module` and `code`", "`file` is a file beside the workflow, `module` an importable name, `code` the text itself");
    }
    let function = fields
        .get("function")
        .map_or(Some(Arc::from("main")), |node| {
            cx.literal(node, "function", by_with)
        });
    if let (Some(name), Some(node)) = (&function, fields.get("function"))
        && !name.split('.').all(is_identifier)
    {
        cx.error(
            "bad-name",
            node.span,
            format!("`{name}` cannot name a Python function"),
        );
    }
    let requirements = fields.get("requirements").map(|node| {
        let items = cx.one_or_many(node, "`requirements`");
        items
            .iter()
            .filter_map(|item| cx.literal(item, "requirements", "requirements are fixed"))
            .collect()
    });
    Some(Verb::Python {
        source: sources.into_iter().next()??,
        function: function?,
        requirements: requirements.unwrap_or_default(),
        concurrency: fields
            .get("concurrency")
            .and_then(|node| cx.count(node, "concurrency", (1, 1_000)))
            .unwrap_or(1),
    })
}
