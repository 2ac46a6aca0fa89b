//! What fits: tasks start in the order they were offered, each once its needs are free.

use std::collections::VecDeque;

use kapell_api::task::{Task, TaskResources};

use crate::config::Capacity;

/// The capacity of a worker and the tasks that wait for it.
pub(crate) struct Admission {
    total: Capacity,
    free: Capacity,
    devices: Vec<u32>,
    waiting: VecDeque<Task>,
    closed: bool,
}

/// A task that may start, with the devices it got.
pub(crate) type Admitted = (Task, Vec<u32>);

impl Admission {
    /// Everything free.
    pub(crate) fn new(total: Capacity) -> Self {
        Self {
            total,
            free: total,
            devices: (0..total.gpus).rev().collect(),
            waiting: VecDeque::new(),
            closed: false,
        }
    }

    /// True if the task can ever fit.
    pub(crate) fn possible(&self, task: &Task) -> bool {
        self.total.fits(&needs(task))
    }

    /// Puts a task behind those that wait.
    pub(crate) fn push(&mut self, task: Task) {
        self.waiting.push_back(task);
    }

    /// The tasks that can start now.
    pub(crate) fn admit(&mut self) -> Vec<Admitted> {
        let mut admitted = Vec::new();
        while !self.closed
            && let Some(next) = self.waiting.front()
        {
            let needs = needs(next);
            if !self.free.fits(&needs) {
                break;
            }
            self.free = self.free.less(&needs);
            let devices = (0..needs.gpus).filter_map(|_| self.devices.pop()).collect();
            admitted.extend(self.waiting.pop_front().map(|task| (task, devices)));
        }
        admitted
    }

    /// Takes back what a task had.
    pub(crate) fn release(&mut self, task: &Task, devices: &[u32]) {
        self.free = self.free.more(&needs(task));
        self.devices.extend(devices);
    }

    /// Removes waiting tasks.
    pub(crate) fn withdraw(&mut self, which: impl Fn(&Task) -> bool) -> Vec<Task> {
        let (gone, stay) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|task| which(task));
        self.waiting = stay;
        Vec::from_iter::<VecDeque<Task>>(gone)
    }

    /// Starts nothing more; gives what waited.
    pub(crate) fn close(&mut self) -> Vec<Task> {
        self.closed = true;
        std::mem::take(&mut self.waiting).into()
    }

    /// What is left once everything that waits has started.
    pub(crate) fn free(&self) -> Capacity {
        self.waiting
            .iter()
            .fold(self.free, |free, task| free.less(&needs(task)))
    }
}

fn needs(task: &Task) -> TaskResources {
    task.work
        .process()
        .map(|process| process.resources)
        .unwrap_or_default()
}
