//! What workers of a queue have room for, and which of them gets an attempt.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use kapell_api::task::{TaskResources, Work};
use kapell_model::SessionId;
use kapell_model::spec::Verb;

/// What the owner of a worker says of it.
pub type Labels = Arc<BTreeMap<Arc<str>, Arc<str>>>;

/// What one worker has room for. Verbs that start nothing have room of their own, so that thousands
/// of them do not wait behind a few processes.
#[derive(Clone, Debug, PartialEq)]
pub struct Seat {
    /// Whose.
    pub session: SessionId,
    /// Attempts that start a process or a request.
    pub process: usize,
    /// Attempts that start nothing.
    pub light: usize,
    /// What attempts may take of it now.
    pub free: TaskResources,
    /// What it has to give in all.
    pub total: TaskResources,
    /// What its owner says of it.
    pub labels: Labels,
    /// It can be taken away at any time.
    pub spot: bool,
    /// Environments that ran there last, by [`environment`].
    pub warm: Arc<BTreeSet<u64>>,
}

impl Seat {
    /// A worker that itself sees to it that no more starts than it has the means for.
    pub fn unmeasured(session: SessionId, process: usize, light: usize) -> Self {
        Self {
            session,
            process,
            light,
            free: TaskResources::ALL,
            total: TaskResources::ALL,
            labels: Labels::default(),
            spot: false,
            warm: Arc::default(),
        }
    }

    fn has(&self, label: &(Arc<str>, Arc<str>)) -> bool {
        self.labels.get(&label.0) == Some(&label.1)
    }
}

/// A name for what a worker installs before an attempt can begin, and keeps; none for attempts that need
/// nothing of the kind.
pub fn environment(work: &Work) -> Option<u64> {
    match work {
        Work::Python { requirements, .. } if !requirements.is_empty() => {
            let mut hasher = blake3::Hasher::new();
            for requirement in requirements {
                hasher.update(requirement.as_bytes());
                hasher.update(&[0]);
            }
            let hash = hasher.finalize();
            let (first, _) = hash.as_bytes().split_first_chunk()?;
            Some(u64::from_le_bytes(*first))
        }
        _ => None,
    }
}

/// What an attempt asks of its worker besides resources.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Wish {
    /// Labels that it must have.
    pub(super) labels: Vec<(Arc<str>, Arc<str>)>,
    /// Labels that it should have.
    pub(super) prefer: Vec<(Arc<str>, Arc<str>)>,
    /// It may be one that can be taken away.
    pub(super) spot: Spot,
}

/// Whether an attempt goes to a worker that can be taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Spot {
    /// Never.
    #[default]
    Never,
    /// Rather than to another.
    First,
    /// Where no other has what it needs: such workers were taken away too often.
    Last,
}

/// What a namespace may have in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Attempts that start a process or a request.
    pub steps: Option<u64>,
    /// Thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// Devices.
    pub gpus: Option<u64>,
}

impl Quota {
    /// True if an attempt with these needs is within it.
    pub fn covers(&self, needs: &TaskResources) -> bool {
        let fits = |bound: Option<u64>, needed: u64| bound.is_none_or(|bound| needed <= bound);
        fits(self.steps, 1)
            && fits(self.cpu_millis, needs.cpu_millis)
            && fits(self.gpus, needs.gpus.into())
    }

    /// How many attempts with these needs are within it.
    pub fn times(&self, needs: &TaskResources) -> u64 {
        let times = |bound: Option<u64>, needed: u64| match bound {
            Some(bound) if needed > 0 => bound / needed,
            _ => u64::MAX,
        };
        times(self.steps, 1)
            .min(times(self.cpu_millis, needs.cpu_millis))
            .min(times(self.gpus, needs.gpus.into()))
    }

    /// What is left of it beside so many of them.
    #[must_use]
    pub fn less_times(self, needs: &TaskResources, count: u64) -> Self {
        let less = |bound: Option<u64>, taken: u64| {
            bound.map(|bound| bound.saturating_sub(taken.saturating_mul(count)))
        };
        Self {
            steps: less(self.steps, 1),
            cpu_millis: less(self.cpu_millis, needs.cpu_millis),
            gpus: less(self.gpus, needs.gpus.into()),
        }
    }

    /// What is left of it beside such an attempt.
    #[must_use]
    pub fn less(self, needs: &TaskResources) -> Self {
        self.less_times(needs, 1)
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |number: u64, word: &str| {
            let end = if number == 1 { "" } else { "s" };
            format!("{number} {word}{end}")
        };
        let steps = self.steps.map(|steps| count(steps, "step"));
        let cpu = self.cpu_millis.map(cores);
        let gpus = self.gpus.map(|gpus| count(gpus, "GPU"));
        let parts: Vec<String> = [steps, cpu, gpus].into_iter().flatten().collect();
        f.write_str(&listed(&parts))
    }
}

/// What is left of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// The quota itself.
    pub quota: Quota,
    /// What is left of the part of it that may be used here.
    pub left: Quota,
    /// Nothing of the namespace is in flight here: one attempt may start even if the part is too small for it.
    pub idle: bool,
}

impl Allowance {
    fn covers(&self, needs: &TaskResources) -> bool {
        self.left.covers(needs) || self.idle && self.quota.covers(needs)
    }

    fn take(&mut self, needs: &TaskResources) {
        self.left = self.left.less(needs);
        self.idle = false;
    }
}

/// Whose room an attempt took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) session: SessionId,
    /// That worker can be taken away.
    pub(super) spot: bool,
}

impl Taken {
    fn at(seat: &Seat) -> Self {
        Self {
            session: seat.session,
            spot: seat.spot,
        }
    }
}

/// Why an attempt has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// No worker has room for it.
    Room,
    /// Its namespace has as much in flight as it may.
    Quota,
}

/// What the workers of a queue have room for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Room {
    /// Those that serve it.
    pub seats: Vec<Seat>,
    /// What the run's namespace may have in flight besides what it has; none is no bound.
    pub quota: Option<Allowance>,
    /// Set when something was not granted for want of room.
    pub short: bool,
    /// Set when something was not granted because it asks for more than any of them has in all.
    pub unfit: bool,
    /// Set when something was not granted because of the quota.
    pub over: bool,
}

impl Room {
    /// True if nothing fits.
    pub fn is_empty(&self) -> bool {
        self.seats
            .iter()
            .all(|seat| seat.process == 0 && seat.light == 0)
    }

    /// True if some worker may take an attempt of this verb, whatever it asks for.
    pub(super) fn may_take(&mut self, verb: &Verb) -> bool {
        let light = matches!(verb, Verb::Noop | Verb::Fail { .. });
        let room = |seat: &Seat| if light { seat.light } else { seat.process };
        let some = self.seats.iter().any(|seat| room(seat) > 0);
        self.short |= !some;
        some
    }

    /// Takes room for an attempt, or says why it has to wait. Of the workers that have room for it the first is that
    /// with the most labels that it prefers, then that of the kind it prefers, then that with its
    /// environment, unless another has more than twice the room, then that with most room.
    pub(super) fn take(&mut self, work: &Work, wish: Option<&Wish>) -> Result<Taken, Refused> {
        let Some(process) = work.process() else {
            let seats = self.seats.iter_mut().max_by_key(|seat| seat.light);
            let seat = seats.filter(|seat| seat.light > 0).ok_or(Refused::Room)?;
            seat.light -= 1;
            return Ok(Taken::at(seat));
        };
        let needs = &process.resources;
        if let Some(allowance) = self.quota.filter(|quota| !quota.covers(needs)) {
            let never = !allowance.quota.covers(needs);
            self.unfit |= never;
            self.over |= !never;
            return Err(if never { Refused::Room } else { Refused::Quota });
        }
        let spot = wish.map_or(Spot::Never, |wish| wish.spot);
        let strict = spot == Spot::Last && {
            let mut seats = self.seats.iter();
            seats.any(|seat| !seat.spot && possible(seat, needs, wish))
        };
        let fits = |seat: &Seat| {
            seat.process > 0 && seat.free.covers(needs) && may(seat, wish) && !(strict && seat.spot)
        };
        let environment = environment(work);
        let most = environment.and_then(|_| {
            let seats = self.seats.iter().filter(|seat| fits(seat));
            seats.map(|seat| seat.process).max()
        });
        let first = |seat: &&mut Seat| {
            let liked = wish.map_or(0, |wish| {
                wish.prefer.iter().filter(|label| seat.has(label)).count()
            });
            let warm = environment.is_some_and(|environment| {
                seat.warm.contains(&environment) && Some(seat.process * 2) >= most
            });
            let kind = seat.spot == (spot == Spot::First);
            (liked, kind, warm, seat.process)
        };
        let seats = self.seats.iter_mut();
        let Some(seat) = seats.filter(|seat| fits(seat)).max_by_key(first) else {
            let mut seats = self.seats.iter();
            let possible = seats.any(|seat| possible(seat, needs, wish));
            self.short |= possible;
            self.unfit |= !possible;
            return Err(Refused::Room);
        };
        let taken = Taken::at(seat);
        seat.process -= 1;
        seat.free = std::mem::take(&mut seat.free).less(needs);
        if let Some(quota) = &mut self.quota {
            quota.take(needs);
        }
        Ok(taken)
    }

    /// What is to be said of an attempt that no worker can ever take as they are; none if some can.
    pub(super) fn unfit_for(
        &self,
        work: &Work,
        wish: Option<&Wish>,
        queue: &str,
    ) -> Option<String> {
        let needs = &work.process()?.resources;
        let never = |allowance: &Allowance| !allowance.quota.covers(needs);
        if let Some(allowance) = self.quota.as_ref().filter(|quota| never(quota)) {
            return Some(format!(
                "the quota of its namespace to allow {}: it is {}",
                amounts(needs),
                allowance.quota
            ));
        }
        let mut seats = self.seats.iter();
        if self.seats.is_empty() || seats.any(|seat| possible(seat, needs, wish)) {
            return None;
        }
        let labels = wish.map_or(&[][..], |wish| &wish.labels);
        let labelled = |seat: &&Seat| labels.iter().all(|label| seat.has(label));
        let with = match labels {
            [] => String::new(),
            labels => format!(" with {}", named(labels)),
        };
        let seats: Vec<&Seat> = self.seats.iter().filter(labelled).collect();
        if seats.is_empty() {
            let nowhere =
                |label: &&(Arc<str>, Arc<str>)| !self.seats.iter().any(|seat| seat.has(label));
            let missing: Vec<_> = labels.iter().filter(nowhere).cloned().collect();
            let why = match missing.as_slice() {
                [] => "none there has all of them".to_owned(),
                missing => format!("none there has {}", named(missing)),
            };
            return Some(format!("a worker in queue `{queue}`{with}: {why}"));
        }
        let seats: Vec<&Seat> = seats.into_iter().filter(|seat| may(seat, wish)).collect();
        let largest = seats.iter().map(|seat| &seat.total).max_by_key(|total| {
            let enough = [
                total.cpu_millis >= needs.cpu_millis,
                total.memory_bytes >= needs.memory_bytes,
                total.gpus >= needs.gpus,
                total.custom.covers(&needs.custom),
            ];
            let enough = enough.iter().filter(|enough| **enough).count();
            let custom = needs.custom.iter();
            let custom = custom.map(|(name, amount)| total.custom.of(name).min(amount));
            (
                enough,
                custom.sum::<u64>(),
                total.memory_bytes,
                total.cpu_millis,
            )
        });
        Some(match largest {
            None => format!(
                "a worker in queue `{queue}`{with} that cannot be taken away: all there are spot workers, which `resources.spot` would allow"
            ),
            Some(largest) => format!(
                "a worker in queue `{queue}`{with} that has {}; the closest there now has {}",
                amounts(needs),
                amounts(&asked(largest, needs))
            ),
        })
    }
}

/// True if a worker may get an attempt, by its labels and kind.
fn may(seat: &Seat, wish: Option<&Wish>) -> bool {
    match wish {
        None => !seat.spot,
        Some(wish) => {
            (!seat.spot || wish.spot != Spot::Never)
                && wish.labels.iter().all(|label| seat.has(label))
        }
    }
}

/// True if a worker could take an attempt, were it idle.
fn possible(seat: &Seat, needs: &TaskResources, wish: Option<&Wish>) -> bool {
    seat.total.covers(needs) && may(seat, wish)
}

/// Of what a worker has, what is asked for.
fn asked(total: &TaskResources, needs: &TaskResources) -> TaskResources {
    let all = total.is_all();
    let of = |total: u64, needed: u64| match needed {
        0 => 0,
        needed if all => needed,
        _ => total,
    };
    let gpus = of(total.gpus.into(), needs.gpus.into());
    let custom = needs.custom.iter();
    TaskResources {
        cpu_millis: of(total.cpu_millis, needs.cpu_millis),
        memory_bytes: of(total.memory_bytes, needs.memory_bytes),
        gpus: u32::try_from(gpus).unwrap_or(u32::MAX),
        custom: custom
            .map(|(name, _)| (name.clone(), total.custom.of(name)))
            .filter(|(_, amount)| *amount > 0)
            .collect(),
    }
}

/// Labels in words: `zone=eu` and `disk=ssd`.
fn named(labels: &[(Arc<str>, Arc<str>)]) -> String {
    let labels = labels
        .iter()
        .map(|(name, value)| format!("`{name}={value}`"));
    let labels: Vec<String> = labels.collect();
    let what = if labels.len() == 1 { "label" } else { "labels" };
    format!("the {what} {}", listed(&labels))
}

fn listed(parts: &[String]) -> String {
    match parts.split_last() {
        None => "nothing".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    }
}

/// Resources in words: `2 cores, 20 GiB of memory and 1 GPU`.
fn amounts(of: &TaskResources) -> String {
    let mut parts = Vec::new();
    if of.cpu_millis > 0 {
        parts.push(cores(of.cpu_millis));
    }
    if of.memory_bytes > 0 {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        let unit = units.iter().find(|(shift, _)| of.memory_bytes >> shift > 0);
        let (shift, name) = unit.copied().unwrap_or((0, "bytes"));
        let tenths = (u128::from(of.memory_bytes) * 10) >> shift;
        let number = format!("{}.{}", tenths / 10, tenths % 10);
        parts.push(format!(
            "{} {name} of memory",
            number.trim_end_matches(".0")
        ));
    }
    if of.gpus > 0 {
        let word = if of.gpus == 1 { "GPU" } else { "GPUs" };
        parts.push(format!("{} {word}", of.gpus));
    }
    let custom = of.custom.iter();
    parts.extend(custom.map(|(name, amount)| format!("{amount} `{name}`")));
    listed(&parts)
}

/// Thousandths of a core in words: `1.5 cores`.
pub fn cores(millis: u64) -> String {
    let (whole, thousandths) = (millis / 1_000, millis % 1_000);
    let part = format!("{whole}.{thousandths:03}");
    let number = part.trim_end_matches('0').trim_end_matches('.');
    let word = if millis == 1_000 { "core" } else { "cores" };
    format!("{number} {word}")
}

#[cfg(test)]
mod tests;
