//! What fits: tasks start in the order they were offered, each once its needs are free.
//!
//! A task that is to run alone waits until no other process runs, and while it runs none is started.
//! Requests are no processes: they run beside it.

use std::collections::VecDeque;

use kapell_api::task::{Task, TaskResources, Work};

use crate::config::Capacity;

/// The capacity of a worker and the tasks that wait for it.
pub(crate) struct Admission {
    total: Capacity,
    free: Capacity,
    devices: Vec<u32>,
    waiting: VecDeque<Task>,
    /// Tasks with a process that run.
    processes: usize,
    /// True while one runs that is to run alone.
    alone: bool,
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
            processes: 0,
            alone: false,
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
            if !self.free.fits(&needs) || !self.may_join(next) {
                break;
            }
            if is_process(next) {
                self.processes += 1;
                self.alone = next.alone;
            }
            self.free = self.free.less(&needs);
            let devices = (0..needs.gpus).filter_map(|_| self.devices.pop()).collect();
            admitted.extend(self.waiting.pop_front().map(|task| (task, devices)));
        }
        admitted
    }

    fn may_join(&self, task: &Task) -> bool {
        !is_process(task) || self.processes == 0 || !(self.alone || task.alone)
    }

    /// Takes back what a task had.
    pub(crate) fn release(&mut self, task: &Task, devices: &[u32]) {
        if is_process(task) {
            self.processes -= 1;
            self.alone = false;
        }
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

fn is_process(task: &Task) -> bool {
    !matches!(task.work, Work::Http { .. })
}

fn needs(task: &Task) -> TaskResources {
    task.work
        .process()
        .map(|process| process.resources.clone())
        .unwrap_or_default()
}
