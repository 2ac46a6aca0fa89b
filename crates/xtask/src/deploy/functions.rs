//! The functions of Helm's templates that the chart uses, as sprig and Helm define them.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use gtmpl_ng::{Context, Func, FuncError, NumberKind, Template, Value};

/// What `include` and `.Files.Get` find, of the chart that this thread renders.
#[derive(Default)]
pub(super) struct Source {
    /// Every `define` of the chart.
    pub(super) defines: String,
    /// Files of the chart that are no templates, by their paths.
    pub(super) files: BTreeMap<String, String>,
}

thread_local! {
    /// Functions of the template engine are given nothing but their arguments.
    pub(super) static SOURCE: RefCell<Source> = RefCell::default();
}

/// The name under which templates are given [`file`]: the engine has no methods with arguments.
pub(super) const FILE: &str = "filesGet";

/// All of them, by name.
pub(super) const ALL: [(&str, Func); 19] = [
    ("include", include),
    (FILE, file),
    ("default", default),
    ("quote", quote),
    ("toString", to_string),
    ("toYaml", to_yaml),
    ("nindent", nindent),
    ("trunc", trunc),
    ("trimSuffix", trim_suffix),
    ("contains", contains),
    ("upper", upper),
    ("join", join),
    ("list", list),
    ("dict", dict),
    ("deepCopy", first),
    ("mergeOverwrite", merge_overwrite),
    ("kindIs", kind_is),
    ("int64", int64),
    ("add", add),
];

type Answer = Result<Value, FuncError>;

fn wrong(what: &str) -> FuncError {
    FuncError::Generic(what.to_owned())
}

fn argument<'a>(arguments: &'a [Value], at: usize, of: &str) -> Result<&'a Value, FuncError> {
    let missing = || wrong(&format!("`{of}` lacks an argument"));
    arguments.get(at).ok_or_else(missing)
}

fn text_at(arguments: &[Value], at: usize, of: &str) -> Result<String, FuncError> {
    match argument(arguments, at, of)? {
        Value::String(text) => Ok(text.clone()),
        other => Err(wrong(&format!("`{of}` takes a text, not {other:?}"))),
    }
}

fn whole(value: &Value) -> Result<i64, FuncError> {
    let found = match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let number = number.as_f64().filter(|number| number.fract() == 0.0)?;
            format!("{number:.0}").parse().ok()
        }),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    found.ok_or_else(|| wrong(&format!("{value:?} is no whole number")))
}

/// As Go prints a value.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.kind() {
            NumberKind::Float(float) if float.abs() >= 1e6 => {
                let text = format!("{float:e}");
                let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
                format!("{digits}e+{exponent:0>2}")
            }
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::NoValue | Value::Nil => true,
        Value::Bool(on) => !on,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Map(map) | Value::Object(map) => map.is_empty(),
        Value::Number(_) => whole(value).is_ok_and(|number| number == 0),
        Value::Function(_) => false,
    }
}

fn include(arguments: &[Value]) -> Answer {
    let name = text_at(arguments, 0, "include")?;
    let defines = SOURCE.with_borrow(|source| source.defines.clone());
    let context = argument(arguments, 1, "include")?.clone();
    let text = format!("{defines}{{{{ template \"{name}\" . }}}}");
    rendered(&text, &context).map(Value::String)
}

/// A text with all functions.
pub(super) fn rendered(text: &str, context: &Value) -> Result<String, FuncError> {
    let mut template = Template::default();
    template.add_funcs(&ALL);
    let failed = |error: &dyn std::fmt::Display| wrong(&error.to_string());
    template.parse(text).map_err(|error| failed(&error))?;
    let context = Context::from(context.clone());
    template.render(&context).map_err(|error| failed(&error))
}

fn file(arguments: &[Value]) -> Answer {
    let path = text_at(arguments, 0, "Files.Get")?;
    let found = SOURCE.with_borrow(|source| source.files.get(&path).cloned());
    // Helm gives an empty text, which hides a mistake.
    found
        .map(Value::String)
        .ok_or_else(|| wrong(&format!("the chart has no file {path}")))
}

fn default(arguments: &[Value]) -> Answer {
    let given = arguments.get(1).filter(|value| !is_empty(value));
    given.map_or_else(|| first(arguments), |value| Ok(value.clone()))
}

fn quote(arguments: &[Value]) -> Answer {
    let text = shown(argument(arguments, 0, "quote")?);
    Ok(Value::String(quoted(&text)))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn to_string(arguments: &[Value]) -> Answer {
    Ok(Value::String(shown(argument(arguments, 0, "toString")?)))
}

fn to_yaml(arguments: &[Value]) -> Answer {
    let mut out = String::new();
    yaml(argument(arguments, 0, "toYaml")?, 0, &mut out);
    Ok(Value::String(out.trim_start_matches('\n').to_owned()))
}

/// Writes a value behind its key or dash.
fn yaml(value: &Value, indent: usize, out: &mut String) {
    let line = |out: &mut String| {
        out.push('\n');
        out.push_str(&" ".repeat(indent));
    };
    match value {
        Value::Map(map) | Value::Object(map) if !map.is_empty() => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            for (key, value) in sorted {
                line(out);
                out.push_str(&quoted(key));
                out.push_str(": ");
                yaml(value, indent + 2, out);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            for value in list {
                line(out);
                out.push_str("- ");
                yaml(value, indent + 2, out);
            }
        }
        Value::Map(_) | Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        Value::String(text) => out.push_str(&quoted(text)),
        Value::NoValue | Value::Nil => out.push_str("null"),
        // As JSON writes them.
        Value::Number(_) => {
            let text = whole(value).map_or_else(|_| shown(value), |number| number.to_string());
            out.push_str(&text);
        }
        other => out.push_str(&shown(other)),
    }
}

fn nindent(arguments: &[Value]) -> Answer {
    let spaces = usize::try_from(whole(argument(arguments, 0, "nindent")?)?).unwrap_or(0);
    let text = text_at(arguments, 1, "nindent")?;
    let start = format!("\n{}", " ".repeat(spaces));
    Ok(Value::String(format!(
        "{start}{}",
        text.replace('\n', &start)
    )))
}

fn trunc(arguments: &[Value]) -> Answer {
    let most = usize::try_from(whole(argument(arguments, 0, "trunc")?)?).unwrap_or(0);
    let text = text_at(arguments, 1, "trunc")?;
    Ok(Value::String(text.chars().take(most).collect()))
}

fn trim_suffix(arguments: &[Value]) -> Answer {
    let end = text_at(arguments, 0, "trimSuffix")?;
    let text = text_at(arguments, 1, "trimSuffix")?;
    let trimmed = text.strip_suffix(&end).unwrap_or(&text);
    Ok(Value::String(trimmed.to_owned()))
}

fn contains(arguments: &[Value]) -> Answer {
    let part = text_at(arguments, 0, "contains")?;
    let text = text_at(arguments, 1, "contains")?;
    Ok(Value::Bool(text.contains(&part)))
}

fn upper(arguments: &[Value]) -> Answer {
    Ok(Value::String(
        text_at(arguments, 0, "upper")?.to_uppercase(),
    ))
}

fn join(arguments: &[Value]) -> Answer {
    let between = text_at(arguments, 0, "join")?;
    let Value::Array(list) = argument(arguments, 1, "join")? else {
        return Err(wrong("`join` takes a list"));
    };
    let texts: Vec<String> = list.iter().map(shown).collect();
    Ok(Value::String(texts.join(&between)))
}

fn list(arguments: &[Value]) -> Answer {
    Ok(Value::Array(arguments.to_vec()))
}

fn dict(arguments: &[Value]) -> Answer {
    let mut map = HashMap::new();
    for pair in arguments.chunks(2) {
        map.insert(
            text_at(pair, 0, "dict")?,
            argument(pair, 1, "dict")?.clone(),
        );
    }
    Ok(Value::Map(map))
}

/// Values are copies here already.
fn first(arguments: &[Value]) -> Answer {
    argument(arguments, 0, "a function").cloned()
}

fn merge_overwrite(arguments: &[Value]) -> Answer {
    let mut all = arguments.iter().cloned();
    let mut result = all
        .next()
        .ok_or_else(|| wrong("`mergeOverwrite` takes maps"))?;
    for value in all {
        overwrite(&mut result, value);
    }
    Ok(result)
}

fn overwrite(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Map(under), Value::Map(over)) => {
            for (key, value) in over {
                overwrite(under.entry(key).or_insert(Value::Nil), value);
            }
        }
        (under, over) => *under = over,
    }
}

fn kind_is(arguments: &[Value]) -> Answer {
    let wanted = text_at(arguments, 0, "kindIs")?;
    let kind = match argument(arguments, 1, "kindIs")? {
        Value::NoValue | Value::Nil => "invalid",
        Value::Bool(_) => "bool",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Map(_) | Value::Object(_) => "map",
        Value::Function(_) => "func",
        Value::Number(number) => match number.kind() {
            NumberKind::Float(_) => "float64",
            NumberKind::Signed(_) | NumberKind::Unsigned(_) => "int64",
        },
    };
    Ok(Value::Bool(kind == wanted))
}

fn int64(arguments: &[Value]) -> Answer {
    whole(argument(arguments, 0, "int64")?).map(Value::from)
}

fn add(arguments: &[Value]) -> Answer {
    let mut sum = 0_i64;
    for value in arguments {
        sum = sum.saturating_add(whole(value)?);
    }
    Ok(Value::from(sum))
}
