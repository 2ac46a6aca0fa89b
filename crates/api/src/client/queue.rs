//! Queues, in which tasks wait for workers.

use super::{Client, Result, encoded};
use crate::http::{TaskQueue, TaskQueueList};

/// What can be asked of queues.
pub trait TaskQueueCalls: Send + Sync {
    /// Those with work or workers, over all nodes.
    fn task_queues(&self) -> Result<TaskQueueList>;
    /// One of them; of one that nobody uses all is nothing. It fails while a node does not answer.
    fn task_queue(&self, name: &str) -> Result<TaskQueue>;
    /// From now on a queue is for workers that name it, also while none is there.
    fn keep_task_queue(&self, name: &str) -> Result<TaskQueue>;
}

impl TaskQueueCalls for Client {
    fn task_queues(&self) -> Result<TaskQueueList> {
        self.get("/queues")
    }

    fn task_queue(&self, name: &str) -> Result<TaskQueue> {
        self.get(&format!("/queues/{}", encoded(name)))
    }

    fn keep_task_queue(&self, name: &str) -> Result<TaskQueue> {
        self.post(&format!("/queues/{}/keep", encoded(name)), &())
    }
}
