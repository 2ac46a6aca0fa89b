//! What clients ask of a list of runs, as the store takes it.

use std::sync::Arc;

use kapell_api::client::Result;
use kapell_api::http::RunQuery;
use kapell_model::{Error, ErrorCode, RunStatus, limits};
use kapell_store::{RunFilter, RunPlace};

use crate::register::NAMESPACE;

/// The filter that a query means.
///
/// # Errors
/// Code `bad-request` for a status or label that is none.
pub(crate) fn filter(query: &RunQuery) -> Result<RunFilter> {
    let named = |name: &Option<String>| name.as_deref().map(Arc::from);
    Ok(RunFilter {
        namespace: Some(named(&query.namespace).unwrap_or_else(|| NAMESPACE.into())),
        workflow: named(&query.workflow),
        statuses: parts(&query.status)
            .iter()
            .map(|name| status(name))
            .collect::<Result<_>>()?,
        parent: query.parent,
        since: query.since,
        until: query.until,
        trigger: named(&query.trigger),
        backfill: named(&query.backfill),
        labels: labels(&query.label)?,
        error: named(&query.error).filter(|text| !text.is_empty()),
        before: query.before.map(|cursor| RunPlace {
            created_at: cursor.created_at,
            run: cursor.run,
        }),
    })
}

fn status(name: &str) -> Result<RunStatus> {
    let named = name.replace(['-', ' '], "_");
    let mut all = RunStatus::ALL.into_iter();
    all.find(|status| status.name() == named).ok_or_else(|| {
        let known: Vec<&str> = RunStatus::ALL.iter().map(|status| status.name()).collect();
        let message = format!("`{name}` is no status of a run");
        Error::new(ErrorCode::BadRequest, message).hint(format!("one of {}", known.join(", ")))
    })
}

fn labels(text: &str) -> Result<Vec<(Arc<str>, Arc<str>)>> {
    let labels = parts(text);
    if labels.len() > limits::LABELS {
        let message = format!("{} labels are asked for", labels.len());
        return Err(Error::new(ErrorCode::LimitReached, message)
            .hint(format!("at most {}", limits::LABELS)));
    }
    let label = |label: &String| match label.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((Arc::from(name.trim()), Arc::from(value)))
        }
        _ => Err(
            Error::new(ErrorCode::BadRequest, format!("`{label}` is no label"))
                .hint("a name and a value, as in `team=data`"),
        ),
    };
    labels.iter().map(label).collect()
}

/// What stands between commas; `\,` is a comma, `\\` a backslash.
fn parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        let escaped = (next == '\\').then(|| rest.next_if(|c| matches!(c, ',' | '\\')));
        match (next, escaped.flatten()) {
            (',', _) => parts.push(String::new()),
            (next, escaped) => {
                if let Some(part) = parts.last_mut() {
                    part.push(escaped.unwrap_or(next));
                }
            }
        }
    }
    let parts = parts.into_iter().map(|part| part.trim().to_owned());
    parts.filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query() -> RunQuery {
        RunQuery::default()
    }

    #[test]
    fn commas_part_and_may_be_escaped() {
        assert_eq!(parts(""), [] as [&str; 0]);
        assert_eq!(parts(" a, b ,,c"), ["a", "b", "c"]);
        assert_eq!(parts(r"a=1\,2,b=\\,c=\d"), ["a=1,2", r"b=\", r"c=\d"]);
    }

    #[test]
    fn a_query_becomes_a_filter() {
        let found = filter(&RunQuery {
            status: "failed, timed-out".to_owned(),
            label: "team=data,note=a=b".to_owned(),
            error: Some(String::new()),
            trigger: Some("nightly".to_owned()),
            backfill: Some("nightly-1".to_owned()),
            ..query()
        });
        let found = found.unwrap();
        assert_eq!(found.statuses, [RunStatus::Failed, RunStatus::TimedOut]);
        let labels = [("team", "data"), ("note", "a=b")];
        assert_eq!(
            found.labels,
            labels.map(|(name, value)| (name.into(), value.into()))
        );
        assert_eq!(
            found.error, None,
            "an empty text is in every error, and in none"
        );
        assert_eq!(found.backfill.as_deref(), Some("nightly-1"));
        assert_eq!(found.namespace.as_deref(), Some("default"));
    }

    #[test]
    fn what_is_no_status_or_label_is_said() {
        for (bad, hint) in [
            (
                RunQuery {
                    status: "gone".to_owned(),
                    ..query()
                },
                "succeeded",
            ),
            (
                RunQuery {
                    label: "team".to_owned(),
                    ..query()
                },
                "team=data",
            ),
            (
                RunQuery {
                    label: "=x".to_owned(),
                    ..query()
                },
                "team=data",
            ),
        ] {
            let error = filter(&bad).unwrap_err();
            assert_eq!(error.code, ErrorCode::BadRequest);
            assert!(error.hint.unwrap().contains(hint), "{}", error.message);
        }
        let many = vec!["a=b"; limits::LABELS + 1].join(",");
        let error = filter(&RunQuery {
            label: many,
            ..query()
        })
        .unwrap_err();
        assert_eq!(error.code, ErrorCode::LimitReached);
    }
}
