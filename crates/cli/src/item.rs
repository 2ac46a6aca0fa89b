//! Items of a foreach, named by index or label.

use kapell_api::client::Api;
use kapell_api::http::{ItemQuery, ItemView};
use kapell_model::{Error, ErrorCode, RunId};

use crate::words;

/// Indexes that are named of a label which several items have.
const NAMED: usize = 10;

/// The path of a step, or of one item of its foreach. Labels may also stand in the path, where an index
/// would: `load[acme]`, `load[acme].check`.
///
/// # Errors
/// `step-not-found` for what is not there; `bad-request` for a label of several items.
pub(crate) fn path(
    api: &dyn Api,
    run: RunId,
    step: &str,
    item: Option<&str>,
) -> Result<String, Error> {
    let mut path = step.to_owned();
    let mut from = 0;
    while let Some((start, end)) = label(&path, from) {
        let found = one(api, run, &path[..start], &path[start + 1..end])?;
        from = found.len();
        path = found + &path[end + 1..];
    }
    match item {
        Some(item) => one(api, run, &path, item),
        None => Ok(path),
    }
}

/// The brackets around the first label in a path.
fn label(path: &str, from: usize) -> Option<(usize, usize)> {
    let start = from + path[from..].find('[')?;
    let inside = &path[start + 1..];
    let closes = |at: &usize| matches!(inside[at + 1..].chars().next(), None | Some('.' | '#'));
    let ends = inside.match_indices(']').map(|(at, _)| at).find(closes)?;
    let end = start + 1 + ends;
    if inside[..ends].parse::<u32>().is_ok() {
        return label(path, end);
    }
    Some((start, end))
}

/// The path of one item. A number is an index. Where there is no such item and the foreach has a `label`, it is
/// one as all other text is; the value of a variable that is a number is none, or one beyond the last index
/// would mean another item.
fn one(api: &dyn Api, run: RunId, step: &str, item: &str) -> Result<String, Error> {
    let page = api.items(
        run,
        &ItemQuery {
            step: step.to_owned(),
            label: Some(item.to_owned()),
            from: 0,
            limit: NAMED,
        },
    )?;
    let at = |index: u32| format!("{step}[{index}]");
    let number: Option<u32> = item.parse().ok();
    if let Some(index) = number.filter(|index| *index < page.count) {
        return Ok(at(index));
    }
    let found: &[ItemView] = match number {
        Some(_) if !page.labelled => &[],
        _ => page.items.as_slice(),
    };
    match found {
        [one] => Ok(at(one.index)),
        [] => {
            let has = words::count(page.count.into(), "item");
            let message = match number {
                Some(_) => format!("`{step}` has {has}: there is no item {item}"),
                None => format!("no item of `{step}` has the label `{item}`: it has {has}"),
            };
            let near: Vec<String> = page.near.iter().map(|label| quoted(label)).collect();
            let hint = if near.is_empty() {
                "`--item` takes an index, from 0 on, or a label: `kapell show RUN STEP` lists them"
                    .to_owned()
            } else {
                format!("labels like it are {}", near.join(", "))
            };
            Err(Error::new(ErrorCode::StepNotFound, message).hint(hint))
        }
        several => {
            let more = if page.next.is_some() { " and more" } else { "" };
            let message = format!("several items of `{step}` have the label `{item}`");
            Err(Error::new(ErrorCode::BadRequest, message)
                .hint(format!("name one by its index: {}{more}", indexes(several))))
        }
    }
}

fn indexes(items: &[ItemView]) -> String {
    let indexes: Vec<String> = items.iter().map(|item| item.index.to_string()).collect();
    indexes.join(", ")
}

fn quoted(label: &str) -> String {
    format!("`{}`", words::shown_label(label))
}

#[cfg(test)]
mod tests {
    use super::label;

    fn found(path: &str) -> Option<&str> {
        label(path, 0).map(|(start, end)| &path[start + 1..end])
    }

    #[test]
    fn a_label_is_told_from_an_index() {
        assert_eq!(found("load"), None);
        assert_eq!(found("load[3]"), None);
        assert_eq!(found("load[3].tune[4]"), None);
        assert_eq!(found("load[acme]"), Some("acme"));
        assert_eq!(found("load[New York].check"), Some("New York"));
        assert_eq!(found("load[a.b[c]]"), Some("a.b[c]"));
        assert_eq!(found("load[3].tune[x.y]"), Some("x.y"));
        assert_eq!(found("turns#2.load[x]#3.a"), Some("x"));
        assert_eq!(found("load[open"), None);
    }
}
