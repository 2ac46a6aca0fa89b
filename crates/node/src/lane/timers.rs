//! What happens by itself as time passes: timers, reads done again, idle entities leave memory.

use kapell_model::{EntityKey, Time};

use super::{HORIZON_MICROS, Lane, RETRY_MICROS, ToEntity};

impl Lane {
    pub(super) fn tick(&mut self) {
        let now = self.now;
        while !self.is_full() && !self.broken {
            let due = self.timers.first_entry();
            let Some(due) = due.filter(|timer| timer.key().0 <= now) else {
                break;
            };
            let key = due.remove();
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.timer = None;
            }
            self.open.inputs += 1;
            self.submit(key.clone(), ToEntity::Wake, false);
            // Its timers count again once what it waits for is loaded.
            if !self.broken
                && self
                    .slots
                    .get(&key)
                    .is_some_and(|slot| slot.asked.is_empty())
            {
                self.settle_timer(&key);
            }
        }
        if self.mail_at().is_some_and(|at| at <= now) {
            self.look_for_mail();
        }
        if self.read_again_at.is_some_and(|at| at <= now) {
            self.read_again_at = None;
            self.out.append(&mut self.failed_reads);
        }
        let looked = self.due_asked_at.map_or(0, |at| at.0);
        if self.recovering && now.0 - looked >= RETRY_MICROS {
            self.due_asked_at = Some(now);
            // An answer that takes long is waited for.
            if self.reads <= self.stale_reads {
                self.acquire_all();
            }
        } else if self.looked_due && now.0 - looked > HORIZON_MICROS / 2 {
            self.find_due();
            self.evict();
        }
        self.take_waiting();
    }

    /// Idle entities leave memory; the store knows when they must come back.
    pub(super) fn evict(&mut self) {
        let before = self.now.0 - self.config.idle_micros;
        self.ahead.forget_unused(Time(before));
        let horizon = Time(self.now.0 + 2 * HORIZON_MICROS);
        let idle: Vec<EntityKey> = self
            .slots
            .iter()
            .filter(|(key, slot)| {
                slot.touched_at.0 < before
                    && slot.asked.is_empty()
                    && !self.counting.contains_key(*key)
                    && !slot.entity.is_busy()
                    && slot.timer.is_none_or(|(at, _)| at > horizon)
                    && !self.is_written(key)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in idle {
            self.drop_slot(&key);
        }
    }

    pub(super) fn drop_slot(&mut self, key: &EntityKey) {
        if let Some(slot) = self.slots.remove(key)
            && let Some(timer) = slot.timer
        {
            self.timers.remove(&timer);
        }
        if let EntityKey::Run(id) = key {
            self.demand.remove(*id);
            self.parked.remove(id);
        }
    }

    /// When the lane should be ticked at the latest.
    pub fn next_tick(&self) -> Time {
        if self.has_waiting() {
            return self.now;
        }
        let poll = self
            .due_asked_at
            .map_or(self.now, |at| Time(at.0 + HORIZON_MICROS / 2 + 1));
        // What the open batch has no room for waits for the commit under way.
        let timers = !self.is_full() && !self.broken;
        let timer = self.timers.first_key_value().filter(|_| timers);
        let timer = timer.map_or(poll, |((at, _), _)| (*at).min(poll));
        let timer = self.read_again_at.map_or(timer, |at| at.min(timer));
        let timer = self.mail_at().map_or(timer, |at| at.min(timer));
        if self.recovering {
            let asked = self.due_asked_at.unwrap_or(self.now);
            Time(asked.0 + RETRY_MICROS).min(timer)
        } else {
            timer
        }
    }
}
