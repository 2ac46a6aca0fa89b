//! What was read comes back: shards, entities, contents.

use std::collections::VecDeque;

use kapell_engine::Ref;
use kapell_model::{EntityKey, Error, ErrorCode, Time};

use crate::entity::Entity;
use crate::perform::Found;
use crate::rows::Shown;

use super::{HORIZON_MICROS, Lane, Output, Slot, ToEntity, Waiting};

impl Lane {
    pub(super) fn find_due(&mut self) {
        self.due_asked_at = Some(self.now);
        let until = Time(self.now.0.saturating_add(HORIZON_MICROS));
        let shards = self.owned().clone();
        self.out.push(Output::FindDue(until, shards));
    }

    pub(super) fn due(&mut self, result: kapell_store::Result<Vec<EntityKey>>) {
        match result {
            Ok(keys) => {
                for key in keys {
                    if self.slots.contains_key(&key) {
                        self.read_ahead(&key);
                    } else if !self.loading.contains_key(&key) {
                        self.submit(key, ToEntity::Wake, false);
                    }
                }
                self.looked_due = true;
                if self.recovering {
                    self.recovering = false;
                    if !self.loading.is_empty() {
                        let entities = self.loading.len();
                        tracing::info!(entities, "what is unfinished goes on");
                    }
                    self.take_shards();
                    self.take_waiting();
                }
            }
            Err(error) => tracing::error!(%error, "what is due could not be read; trying again"),
        }
    }

    pub(super) fn loaded(
        &mut self,
        key: EntityKey,
        result: kapell_store::Result<Option<Box<Found>>>,
    ) {
        let Some(mut waiting) = self.loading.remove(&key) else {
            // Its shard was given away since.
            return;
        };
        self.holds -= waiting.iter().filter(|(_, holds)| *holds).count();
        let found = match result {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(?key, %error, "an entity could not be read");
                self.not_loaded(key, waiting, &error);
                return;
            }
        };
        let slot = match found {
            Some(found) => {
                let shown = found.row.as_ref().map(Shown::in_row);
                Some(Slot {
                    size: found.size,
                    stood_before: !self.seats.all_heard(),
                    ..Slot::new(found.entity, found.seq, shown, self.now)
                })
            }
            None => Entity::fresh(&key).map(|entity| Slot::new(entity, 0, None, self.now)),
        };
        if let (EntityKey::Run(run), None, true) = (&key, &slot, waiting.is_empty()) {
            self.ahead.is_absent(*run);
        }
        if let Some(mut slot) = slot {
            if let Entity::Topic(topic) = &mut slot.entity {
                topic.keep(self.config.keeps);
            }
            self.slots.insert(key.clone(), slot);
            // Losses that say more than that the worker is gone are heard first.
            waiting.retain(|(input, _)| {
                let loss = input.is_loss();
                if loss {
                    self.deliver(&key, input.clone(), false);
                }
                !loss
            });
            self.join(&key);
        }
        self.in_memory(&key);
        for (input, holds) in waiting {
            if self.slots.contains_key(&key) {
                self.submit(key.clone(), input, holds);
            } else if let ToEntity::Create(making) = input {
                self.create(&key, *making);
            } else {
                let error = Error::new(ErrorCode::RunNotFound, "there is no such run")
                    .hint("`kapell list` lists runs");
                if let EntityKey::Run(id) = key {
                    self.stop_all_of(id);
                }
                self.refuse(input, &error);
            }
        }
    }

    /// An entity could not be read. Clients are told; what workers and other entities say waits for
    /// the next try. One that is damaged stays so, and nobody else waits for it.
    pub(super) fn not_loaded(
        &mut self,
        key: EntityKey,
        waiting: VecDeque<Waiting>,
        error: &kapell_store::Error,
    ) {
        let damaged = matches!(error, kapell_store::Error::Corrupt(_));
        let error = Error::new(ErrorCode::StoreUnavailable, error.to_string());
        let mut kept = VecDeque::new();
        if damaged {
            self.quarantined.insert(key.clone());
            self.in_memory(&key);
        }
        for (input, holds) in waiting {
            if damaged || input.reply().is_some() {
                self.refuse(input, &error);
            } else {
                self.holds += usize::from(holds);
                kept.push_back((input, holds));
            }
        }
        if !kept.is_empty() {
            self.loading.insert(key.clone(), kept);
            self.read_again(Output::Load(key));
        }
    }

    /// A read that failed is done again in a second.
    pub(super) fn read_again(&mut self, read: Output) {
        self.failed_reads.push(read);
        self.read_again_at = self.read_again_at.or(Some(Time(self.now.0 + 1_000_000)));
    }

    /// An entity has come into memory: attempts that the worker still holds are attached, those of
    /// owners before are lost, and its timers count.
    pub(super) fn join(&mut self, key: &EntityKey) {
        if let EntityKey::Run(id) = key {
            self.join_run(*id);
        }
        self.deliver(key, ToEntity::Wake, false);
        self.read_ahead(key);
    }

    pub(super) fn refuse(&mut self, input: ToEntity, error: &Error) {
        match input {
            ToEntity::Create(making) => self.make_failed(*making, error.clone()),
            input => {
                if let Some(report) = input.report() {
                    self.taken(report.clone());
                }
                if let Some(reply) = input.reply() {
                    self.reply(reply, Err(error.clone()));
                }
            }
        }
    }

    pub(super) fn content(
        &mut self,
        key: &EntityKey,
        reference: &Ref,
        result: Result<Vec<u8>, String>,
    ) {
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        slot.asked.retain(|asked| asked != reference);
        let Entity::Run(run) = &mut slot.entity else {
            return;
        };
        let read = result.and_then(|bytes| run.loaded(reference, &bytes));
        if let Err(error) = read {
            tracing::error!(?key, %error, "a stored value could not be read");
            run.unreadable(reference, &error);
        }
        if slot.asked.is_empty() {
            let waiting = std::mem::take(&mut slot.waiting);
            self.holds -= waiting.iter().filter(|(_, holds)| *holds).count();
            self.deliver(key, ToEntity::Wake, false);
            for (input, holds) in waiting {
                self.submit(key.clone(), input, holds);
            }
        }
    }
}
