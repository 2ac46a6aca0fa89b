//! What the owner of a run knows of it beside its history.

use std::collections::BTreeMap;
use std::sync::Arc;

use kapell_api::task::Place;
use kapell_api::worker::Queues;
use kapell_expr::{BlobRef, EvalError, Value};
use kapell_model::{Offer, Time};

use super::state::Unit;
use super::{Ref, Run};
use crate::place_map::PlaceMap;

/// What the owner of a run knows beside its history. Lost with the owner's memory, at no harm.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Attempts handed out.
    pub flights: PlaceMap<(), Flight>,
    /// Queues of workers that have not said what they hold of what an owner before this one handed out.
    pub unheard: Vec<Queues>,
    /// Items of each foreach in flight.
    pub items: BTreeMap<(u32, u16), ItemFlights>,
    /// Contents of blobs that were needed.
    pub blobs: BTreeMap<Arc<str>, Value>,
    /// Blobs that could not be read, and why.
    pub unreadable: BTreeMap<Arc<str>, String>,
    /// Pages that were needed again.
    pub pages: BTreeMap<u32, Arc<Vec<Unit>>>,
    /// What must be loaded before deciding can go on.
    pub needs: Vec<Ref>,
    /// What work of this run waits for in queues where no worker may take it, as its owner last said.
    pub held_up: BTreeMap<Arc<str>, String>,
    /// The priority to which waiting has brought work in these queues.
    pub risen: BTreeMap<Arc<str>, u8>,
    /// What steps wait for that ask for more than any worker of their queue has in all.
    pub unfit: BTreeMap<(u32, u16), String>,
    /// What the quota of its namespace is, and who uses it, if nothing is granted because of that.
    pub quota: Option<String>,
}

/// An attempt handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flight {
    /// Its grant.
    pub offer: Offer,
    /// When it was granted.
    pub granted_at: Time,
    /// Its worker can be taken away.
    pub spot: bool,
}

/// Items of a foreach in flight.
#[derive(Clone, Copy, Debug, Default)]
pub struct ItemFlights {
    /// How many.
    pub count: u32,
    /// The first item that was never granted.
    pub next: u32,
}

impl Run {
    /// The attempt of a unit that is handed out.
    pub fn flight(&self, place: Place) -> Option<Flight> {
        self.live.flights.get((), place).copied()
    }

    pub(super) fn take_off(&mut self, place: Place, flight: Flight) {
        let before = self.live.flights.insert((), place, flight);
        if before.is_none() && place.item != Place::NO_ITEM {
            let items = self
                .live
                .items
                .entry((place.scope, place.step))
                .or_default();
            items.count += 1;
            items.next = items.next.max(place.item + 1);
        }
    }

    pub(super) fn land(&mut self, place: Place) -> Option<Flight> {
        let flight = self.live.flights.remove((), place)?;
        if place.item != Place::NO_ITEM
            && let Some(items) = self.live.items.get_mut(&(place.scope, place.step))
        {
            items.count = items.count.saturating_sub(1);
        }
        Some(flight)
    }
}

impl Live {
    /// A page that left memory.
    pub fn page(&self, number: u32) -> Result<Arc<Vec<Unit>>, EvalError> {
        self.pages.get(&number).cloned().ok_or_else(|| {
            // A page has no hash: its number travels in the reference.
            EvalError::Need(BlobRef {
                hash: format!("page:{number}").into(),
                size: 0,
            })
        })
    }

    /// The content behind a value that may be stored elsewhere.
    pub fn loaded(&self, value: &Value) -> Result<Value, EvalError> {
        match value {
            Value::Blob(blob) => self.blobs.get(&blob.hash).cloned().ok_or_else(|| {
                match self.unreadable.get(&blob.hash) {
                    Some(message) => EvalError::Failed(message.clone()),
                    None => EvalError::Need(blob.clone()),
                }
            }),
            value => Ok(value.clone()),
        }
    }
}
