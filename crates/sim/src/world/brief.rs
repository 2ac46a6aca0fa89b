//! What happens in one line, for people who read a trace.

use kapell_node::Answer;
use kapell_node::lane::{Input, Output, Own};

pub(crate) fn micros(at: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let seconds = at as f64 / 1_000_000.0;
    seconds
}

pub(crate) fn brief_input(input: &Input) -> String {
    match input {
        Input::Loaded(key, result) => match result {
            Ok(found) => format!("Loaded {key:?} found {}", found.is_some()),
            Err(error) => format!("Loaded {key:?} {error}"),
        },
        Input::Version((_, workflow, _), result) => {
            format!("Version {workflow} {}", result.is_ok())
        }
        Input::Content(key, reference, result) => {
            format!("Content {key:?} {reference:?} {}", result.is_ok())
        }
        Input::Session(session, change) => format!("Session {session} {change:?}"),
        Input::Reports(reports) => {
            let reports: Vec<String> = reports
                .iter()
                .map(|report| {
                    let event = format!("{:?}", report.event);
                    let event: String = event.chars().take(200).collect();
                    format!(
                        "{} {:?} {:?} {event}",
                        report.run, report.place, report.offer
                    )
                })
                .collect();
            format!("Reports {}", reports.join("; "))
        }
        Input::Acquired(Ok(leases)) => {
            let first = leases.first();
            format!("Acquired {} from {first:?}", leases.len())
        }
        Input::Own(change) => match &**change {
            Own::Take(shards, dead) => format!("Take {} {dead:?}", shards.len()),
            Own::Give(shards) => format!("Give {}", shards.len()),
            Own::Stop => "Stop".to_owned(),
        },
        other => {
            let text = format!("{other:?}");
            text.chars().take(400).collect()
        }
    }
}

pub(crate) fn brief_output(output: &Output) -> String {
    match output {
        Output::Commit {
            commit,
            contents,
            follows,
        } => {
            let touched: Vec<String> = commit
                .entities
                .iter()
                .map(|write| format!("{:?}@{} wake {:?}", write.key, write.seq, write.wake_at))
                .collect();
            format!(
                "Commit [{}] rows {} blobs {} follows {follows}",
                touched.join(", "),
                commit.runs.len(),
                contents.len()
            )
        }
        Output::Offer(tasks) => {
            let tasks: Vec<String> = tasks
                .iter()
                .take(20)
                .map(|task| {
                    format!(
                        "{} {:?} {:?} try {}",
                        task.run, task.place, task.offer, task.attempt
                    )
                })
                .collect();
            format!("Offer {}", tasks.join("; "))
        }
        Output::Acquire(shards, dead) => format!("Acquire {} {dead:?}", shards.len()),
        Output::Holds(shards) => format!("Holds {}", shards.len()),
        Output::FindMail(shards) => format!("FindMail {}", shards.len()),
        Output::FindDue(at, shards) => format!("FindDue {at} {}", shards.len()),
        Output::Release(leases) => format!("Release {}", leases.len()),
        Output::Reply(reply, _) => format!("Reply {reply:?}"),
        Output::RowsChanged(commit, _) => {
            let rows: Vec<String> = commit
                .runs
                .iter()
                .map(|row| format!("{} {} {:?}", row.id, row.status, row.error))
                .collect();
            format!("Rows {}", rows.join("; "))
        }
        other => {
            let text = format!("{other:?}");
            text.chars().take(400).collect()
        }
    }
}

pub(crate) fn brief_answer(answer: &Answer) -> String {
    match answer {
        Answer::Started(run) => format!("started {run}"),
        Answer::Done => "done".to_owned(),
        Answer::Sent(shards) => format!("sent to {shards:?}"),
        Answer::Value(value) => format!("value {}", value.to_json()),
        Answer::View(view) => format!("view {} {}", view.id, view.status),
    }
}
