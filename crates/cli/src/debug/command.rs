//! What is typed at the prompt.

use kapell_api::http::{BreakAt, Breakpoint};
use kapell_model::{Error, ErrorCode};

/// What `help` says.
pub(super) const HELP: &str = "\
where                        where the run stands
at STEP                      turn to another step
inputs [STEP]                what a step that stopped starts with
outputs [STEP]               what a step gave, or would give
expr EXPRESSION              what an expression gives there
set param NAME=VALUE         change a parameter for all that comes
set output [STEP] JSON       give a step an output; it has succeeded
next                         go on, and stop at the next step
continue [STEP]              go on to the next breakpoint
break STEP [before|after|on_failure] [when EXPRESSION]
break                        list breakpoints
clear [STEP]                 remove breakpoints
why                          what the run waits for
quit                         leave; what has stopped stays so, other steps stop no more

STEP is the path of a step, or an item of a foreach: `load[3]`, or `load[acme]` by its label.
";

/// A command.
#[derive(Debug, PartialEq)]
pub(super) enum Command {
    Help,
    Where,
    At(String),
    Inputs(Option<String>),
    Outputs(Option<String>),
    Expression(String),
    SetParam(String, String),
    SetOutput(Option<String>, serde_json::Value),
    Next,
    Continue(Option<String>),
    /// None lists them.
    Break(Option<Breakpoint>),
    Clear(Option<String>),
    Why,
    Quit,
}

fn bad(message: String) -> Error {
    Error::new(ErrorCode::BadRequest, message).hint("`help` lists what can be typed here")
}

/// The first word, and what comes after it.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    match text.split_once(char::is_whitespace) {
        Some((first, rest)) => (first, rest.trim()),
        None => (text, ""),
    }
}

impl Command {
    /// Reads a line; none if nothing stands in it.
    pub(super) fn read(line: &str) -> Result<Option<Self>, Error> {
        let (verb, rest) = split(line);
        let named = (!rest.is_empty()).then(|| rest.to_owned());
        let needed = |what: &str| {
            named
                .clone()
                .ok_or_else(|| bad(format!("`{verb}` needs {what}")))
        };
        Ok(Some(match verb {
            "" => return Ok(None),
            "help" | "h" | "?" => Self::Help,
            "where" | "w" => Self::Where,
            "at" => Self::At(needed("a step")?),
            "inputs" | "i" => Self::Inputs(named),
            "outputs" | "o" => Self::Outputs(named),
            "expr" | "e" => Self::Expression(needed("an expression")?),
            "set" => Self::set(rest)?,
            "next" | "n" => Self::Next,
            "continue" | "c" => Self::Continue(named),
            "break" | "b" if rest.is_empty() => Self::Break(None),
            "break" | "b" => Self::Break(Some(breakpoint(rest)?)),
            "clear" => Self::Clear(named),
            "why" => Self::Why,
            "quit" | "q" | "exit" => Self::Quit,
            other => return Err(bad(format!("`{other}` is no command"))),
        }))
    }

    fn set(rest: &str) -> Result<Self, Error> {
        match split(rest) {
            ("param", rest) => {
                let pair = rest
                    .split_once('=')
                    .or_else(|| rest.split_once(char::is_whitespace));
                let (name, value) = pair.ok_or_else(|| {
                    bad(
                        "`set param` needs a name and a value, as in `set param rows=10`"
                            .to_owned(),
                    )
                })?;
                Ok(Self::SetParam(
                    name.trim().to_owned(),
                    value.trim().to_owned(),
                ))
            }
            ("output", rest) => {
                // Without a step all of it is the output.
                if let Ok(output) = serde_json::from_str(rest) {
                    return Ok(Self::SetOutput(None, output));
                }
                // A label in the path of a step may have spaces.
                let (step, text) = match rest.find(']') {
                    Some(end) if split(rest).0.contains('[') => {
                        let more = split(&rest[end..]).0.len();
                        rest.split_at(end + more)
                    }
                    _ => split(rest),
                };
                let output = serde_json::from_str(text).map_err(|error| {
                    bad(format!(
                        "the output is not JSON: {error}; text needs quotes"
                    ))
                })?;
                Ok(Self::SetOutput(Some(step.to_owned()), output))
            }
            (other, _) => Err(bad(format!(
                "`set {other}`: `set param` and `set output` are known"
            ))),
        }
    }
}

fn breakpoint(text: &str) -> Result<Breakpoint, Error> {
    let (step, mut rest) = split(text);
    let mut of = Breakpoint {
        step: (step != "*").then(|| step.to_owned()),
        ..Breakpoint::default()
    };
    while !rest.is_empty() {
        let (word, after) = split(rest);
        match word {
            "before" => of.at = BreakAt::Before,
            "after" => of.at = BreakAt::After,
            "on_failure" => of.at = BreakAt::OnFailure,
            "when" if !after.is_empty() => {
                of.when = Some(after.to_owned());
                return Ok(of);
            }
            "when" => return Err(bad("`when` needs an expression".to_owned())),
            other => {
                return Err(bad(format!(
                    "`{other}`: before, after, on_failure or when EXPRESSION"
                )));
            }
        }
        rest = after;
    }
    Ok(of)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(line: &str) -> Command {
        Command::read(line).unwrap().unwrap()
    }

    #[test]
    fn commands_and_their_short_forms_are_read() {
        assert_eq!(read("n"), Command::Next);
        assert_eq!(
            read("  continue  load "),
            Command::Continue(Some("load".to_owned()))
        );
        assert_eq!(
            read("expr params.n + 1"),
            Command::Expression("params.n + 1".to_owned())
        );
        assert_eq!(Command::read("   ").unwrap(), None);
        assert_eq!(
            read("set param rows= 10"),
            Command::SetParam("rows".to_owned(), "10".to_owned())
        );
    }

    #[test]
    fn an_output_is_json_with_or_without_its_step() {
        let output = json!({ "a": [1, 2] });
        assert_eq!(
            read("set output { \"a\": [1, 2] }"),
            Command::SetOutput(None, output.clone())
        );
        assert_eq!(
            read("set output load.x { \"a\": [1, 2] }"),
            Command::SetOutput(Some("load.x".to_owned()), output.clone())
        );
        assert_eq!(
            read("set output load[New York] { \"a\": [1, 2] }"),
            Command::SetOutput(Some("load[New York]".to_owned()), output)
        );
        assert!(Command::read("set output load text").is_err());
    }

    #[test]
    fn a_breakpoint_says_where_and_when() {
        let of = Breakpoint {
            step: Some("load".to_owned()),
            at: BreakAt::OnFailure,
            when: Some("error.kind == 'user'".to_owned()),
            by: None,
        };
        assert_eq!(
            read("break load on_failure when error.kind == 'user'"),
            Command::Break(Some(of))
        );
        let every = Breakpoint {
            at: BreakAt::After,
            ..Breakpoint::default()
        };
        assert_eq!(read("b * after"), Command::Break(Some(every)));
        assert_eq!(read("break"), Command::Break(None));
    }

    #[test]
    fn what_is_no_command_says_what_is_missing() {
        for (line, words) in [
            ("jump", "`jump` is no command"),
            ("expr", "needs an expression"),
            ("set x 1", "are known"),
            ("set param x", "needs a name and a value"),
            ("break load sometimes", "before, after"),
            ("break load when", "needs an expression"),
        ] {
            let error = Command::read(line).unwrap_err();
            assert!(error.message.contains(words), "{line}: {}", error.message);
        }
    }
}
