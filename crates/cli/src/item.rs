//! Items of a foreach, named by index or label.

use kapell_api::client::Api;
use kapell_api::http::{ItemQuery, ItemView};
use kapell_model::{Error, ErrorCode, RunId};

use crate::words;

/// Indexes that are named of a label which several items have.
const NAMED: usize = 10;

/// The path of a step, or of one item of its foreach. A number is an index. Where there is no such item
/// and the foreach has a `label`, it is one as all other text is; the value of a variable that is a number
/// is none, or one beyond the last index would mean another item.
///
/// # Errors
/// `step-not-found` for what is not there; `bad-request` for a label of several items.
pub(crate) fn path(
    api: &dyn Api,
    run: RunId,
    step: &str,
    item: Option<&str>,
) -> Result<String, Error> {
    let Some(item) = item else {
        return Ok(step.to_owned());
    };
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
