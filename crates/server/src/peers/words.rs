//! What is said of attempts between nodes, as frames and back.
//!
//! Lists that are too much for one frame are said in several, in order. What a session holds is one word: it is
//! bounded ([`limits::SESSION_HELD`]), and a part of it would say that the rest is lost.

use std::sync::Arc;

use kapell_api::nodes::proto::{self, Work, session::Change, work::Word as Said};
use kapell_api::task::{Report, Task};
use kapell_api::worker::decode::{self, Malformed};
use kapell_api::worker::{Holding, Queues, encode};
use kapell_model::{SessionId, Shard, limits};
use kapell_node::lane::{Seat, SessionChange};
use kapell_node::relay::{Name, Word};

/// Bytes of attempts or reports in one frame, and how many names.
const BYTES: usize = limits::NODE_MESSAGE_BYTES / 4;
const NAMES: usize = 100_000;

/// A word as messages, with about how many bytes each has.
pub(super) fn encoded(word: Word) -> Vec<(Work, usize)> {
    match word {
        Word::Again => one(Said::Again(proto::Again {}), 0),
        Word::Offer(tasks) => offered(&tasks),
        Word::Got(names) => named(&names, Said::Got),
        Word::Stop(names) => named(&names, Said::Stop),
        Word::Taken(names) => named(&names, Said::Taken),
        Word::Reports(reports) => reported(&reports),
        Word::Sessions(sessions) => {
            let size = sessions.len() * 8;
            let sessions = sessions.into_iter().map(|id| id.0).collect();
            one(Said::Sessions(proto::Sessions { sessions }), size)
        }
        Word::Session(id, change) => {
            let (change, size) = changed(change);
            let session = proto::Session {
                session: id.0,
                change,
            };
            one(Said::Session(Box::new(session)), size)
        }
        Word::Wants(wants) => {
            let size = wants.keys().map(|(queue, _)| queue.len() + 12).sum();
            let wants = wants
                .into_iter()
                .map(|((queue, priority), waits)| proto::Want {
                    queue: queue.to_string(),
                    priority: priority.into(),
                    waits,
                });
            let wants = wants.collect();
            one(Said::Wants(proto::Wants { wants }), size)
        }
        Word::Took(number, shards) => {
            let size = shards.len() * 16;
            let owned = shards.into_iter().map(|(shard, epoch)| proto::Owned {
                shard: shard.0.into(),
                epoch,
            });
            let owned = owned.collect();
            one(Said::Took(proto::Took { number, owned }), size)
        }
        Word::Holds(number, id, holds) => {
            let size = holds.len() * NAME_BYTES;
            let holds = proto::Holds {
                number,
                session: id.0,
                holds: held(&holds),
            };
            one(Said::Holds(holds), size)
        }
        Word::Told(number) => one(Said::Told(number), 0),
    }
}

/// About the bytes of a name, and of what is held.
const NAME_BYTES: usize = 64;

fn one(word: Said, size: usize) -> Vec<(Work, usize)> {
    vec![(Work { word: Some(word) }, size)]
}

/// Items in lists that are not too big, each with its bytes.
fn parts<T>(items: impl Iterator<Item = (T, usize)>) -> Vec<(Vec<T>, usize)> {
    let mut all: Vec<(Vec<T>, usize)> = Vec::new();
    for (item, size) in items {
        match all.last_mut() {
            Some((last, bytes)) if *bytes + size <= BYTES => {
                last.push(item);
                *bytes += size;
            }
            _ => all.push((vec![item], size)),
        }
    }
    all
}

fn offered(tasks: &[Task]) -> Vec<(Work, usize)> {
    let tasks = parts(tasks.iter().map(|task| {
        let session = task.session.0;
        let task = encode::task(task);
        let size = encode::size(&task) + 16;
        let task = Some(task);
        (proto::SessionTask { session, task }, size)
    }));
    let word = |(tasks, size)| (Said::Offer(proto::Tasks { tasks }), size);
    works(tasks.into_iter().map(word))
}

fn reported(reports: &[Report]) -> Vec<(Work, usize)> {
    let reports = parts(reports.iter().map(|report| {
        let worker = report.worker.to_string();
        let report = encode::report(0, report);
        let size = encode::report_size(&report) + worker.len() + 8;
        let report = Some(report);
        (proto::WorkerReport { report, worker }, size)
    }));
    let word = |(reports, size)| (Said::Reports(proto::Reports { reports }), size);
    works(reports.into_iter().map(word))
}

fn named(names: &[Name], word: fn(proto::Attempts) -> Said) -> Vec<(Work, usize)> {
    let words = names.chunks(NAMES).map(|names| {
        let attempts = names
            .iter()
            .map(|(run, place, offer)| encode::attempt(*run, *place, *offer))
            .collect();
        (word(proto::Attempts { attempts }), names.len() * NAME_BYTES)
    });
    works(words)
}

fn works(words: impl Iterator<Item = (Said, usize)>) -> Vec<(Work, usize)> {
    let work = |(word, size)| (Work { word: Some(word) }, size);
    words.map(work).collect()
}

fn held(holds: &[Holding]) -> Vec<kapell_api::worker::proto::Holding> {
    let holds = holds.iter();
    holds
        .map(|holding| encode::holding(holding, "", "", ""))
        .collect()
}

fn changed(change: SessionChange) -> (Option<Change>, usize) {
    let (change, size) = match change {
        SessionChange::Open { seat, holds, hello } => {
            let open = proto::Open {
                seat: Some(seated(&seat)),
                holds: held(&holds),
                hello,
            };
            (Change::Open(open), holds.len() * NAME_BYTES + NAME_BYTES)
        }
        SessionChange::Seat(seat) => (Change::Seat(seated(&seat)), NAME_BYTES),
        SessionChange::Unheard(queues) => (Change::Unheard(queued(&queues)), NAME_BYTES),
        SessionChange::Over => (Change::Over(proto::Over {}), 0),
        // That is an answer, which is a word of its own.
        SessionChange::Holds(_) => return (None, 0),
    };
    (Some(change), size)
}

fn seated(seat: &Seat) -> proto::Seat {
    proto::Seat {
        queues: Some(queued(&seat.queues)),
        process_window: seat.process_window as u64,
        light_window: seat.light_window as u64,
        total: Some(encode::resources(&seat.total)),
        share: Some(encode::resources(&seat.share)),
        labels: seat
            .labels
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect(),
        spot: seat.spot,
    }
}

fn queued(queues: &Queues) -> proto::Queues {
    let names = match queues {
        Queues::Named(names) => names.iter().map(ToString::to_string).collect(),
        Queues::Others => Vec::new(),
    };
    proto::Queues { names }
}

/// Reads [`encoded`]; none for what a later version says as well.
///
/// # Errors
/// What makes no sense.
pub(super) fn decoded(work: Work) -> Result<Option<Word>, Malformed> {
    let Some(word) = work.word else {
        return Ok(None);
    };
    Ok(Some(match word {
        Said::Again(proto::Again {}) => Word::Again,
        Said::Offer(tasks) => Word::Offer(all(tasks.tasks, |task| {
            let given = task.task.ok_or(Malformed("an attempt without a task"))?;
            decode::task(SessionId(task.session), given)
        })?),
        Said::Got(names) => Word::Got(names_of(&names)?),
        Said::Stop(names) => Word::Stop(names_of(&names)?),
        Said::Taken(names) => Word::Taken(names_of(&names)?),
        Said::Reports(reports) => Word::Reports(all(reports.reports, |said| {
            let report = said.report.ok_or(Malformed("no report"))?;
            let (_, report) = decode::report(report)?;
            let worker: Arc<str> = said.worker.into();
            Ok(Report { worker, ..report })
        })?),
        Said::Sessions(said) => Word::Sessions(said.sessions.into_iter().map(SessionId).collect()),
        Said::Session(said) => {
            let Some(change) = said.change else {
                return Ok(None);
            };
            Word::Session(SessionId(said.session), change_of(change)?)
        }
        Said::Wants(said) => {
            let wants = said.wants.into_iter().map(|want| {
                let priority = u8::try_from(want.priority).unwrap_or(u8::MAX);
                ((Arc::from(want.queue), priority), want.waits.max(1))
            });
            Word::Wants(wants.collect())
        }
        Said::Took(said) => Word::Took(
            said.number,
            all(said.owned, |owned| {
                let shard = u16::try_from(owned.shard).map_err(|_| Malformed("no shard"))?;
                Ok((Shard(shard), owned.epoch))
            })?,
        ),
        Said::Holds(said) => Word::Holds(
            said.number,
            SessionId(said.session),
            all(said.holds, |holding| decode::holding(&holding))?,
        ),
        Said::Told(number) => Word::Told(number),
    }))
}

fn all<T, U>(items: Vec<T>, read: impl Fn(T) -> Result<U, Malformed>) -> Result<Vec<U>, Malformed> {
    items.into_iter().map(read).collect()
}

fn names_of(names: &proto::Attempts) -> Result<Vec<Name>, Malformed> {
    let names = names.attempts.iter();
    names.map(|name| decode::attempt(Some(name))).collect()
}

fn change_of(change: Change) -> Result<SessionChange, Malformed> {
    Ok(match change {
        Change::Open(open) => SessionChange::Open {
            seat: seat_of(open.seat)?,
            holds: all(open.holds, |holding| decode::holding(&holding))?,
            hello: open.hello,
        },
        Change::Seat(seat) => SessionChange::Seat(seat_of(Some(seat))?),
        Change::Unheard(queues) => SessionChange::Unheard(queues_of(Some(queues))),
        Change::Over(proto::Over {}) => SessionChange::Over,
    })
}

fn seat_of(seat: Option<proto::Seat>) -> Result<Seat, Malformed> {
    let seat = seat.ok_or(Malformed("a session without a seat"))?;
    let window = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    Ok(Seat {
        queues: queues_of(seat.queues),
        process_window: window(seat.process_window),
        light_window: window(seat.light_window),
        total: decode::resources(seat.total),
        share: decode::resources(seat.share),
        labels: Arc::new(
            seat.labels
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        ),
        spot: seat.spot,
    })
}

fn queues_of(queues: Option<proto::Queues>) -> Queues {
    let names = queues.unwrap_or_default().names;
    if names.is_empty() {
        Queues::Others
    } else {
        Queues::Named(names.into_iter().map(Arc::from).collect())
    }
}

#[cfg(test)]
mod tests;
