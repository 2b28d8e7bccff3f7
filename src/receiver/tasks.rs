//! The tasks that run beside a receiver.

use std::fmt;

use tokio::task::{JoinError, JoinHandle};

/// The tasks beside a [`Receiver`](crate::Receiver). They continue when this is dropped.
#[derive(Debug)]
pub struct Tasks {
    reflector: JoinHandle<()>,
    worker: Option<JoinHandle<()>>,
}

impl Tasks {
    pub(super) fn new(reflector: JoinHandle<()>, worker: Option<JoinHandle<()>>) -> Self {
        Self { reflector, worker }
    }

    /// Resolves when a task has ended although nobody has asked it to: then the configuration is no longer followed, or
    /// accepted events are no longer delivered. A fixed source ends at once. The future may be dropped at any await.
    pub async fn failed(&mut self) -> TaskEnded {
        loop {
            let ended = tokio::select! {
                ended = &mut self.reflector => return TaskEnded { task: "follows the configuration", cause: ended.err() },
                ended = join(&mut self.worker) => ended,
            };
            // A finished task must not be polled again.
            self.worker = None;
            if let Err(cause) = ended {
                return TaskEnded { task: "delivers accepted events", cause: Some(cause) };
            }
        }
    }

    /// Resolves when the attempts that the worker had started have ended. The worker ends only after `stop`. The future
    /// may be dropped at any await.
    pub async fn ended(&mut self) {
        if self.worker.is_some() {
            let _ = join(&mut self.worker).await;
            self.worker = None;
        }
    }
}

/// Resolves when the task ends; never, if there is none.
async fn join(task: &mut Option<JoinHandle<()>>) -> Result<(), JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

/// The error that a task has ended unexpectedly.
#[derive(Debug)]
pub struct TaskEnded {
    task: &'static str,
    cause: Option<JoinError>,
}

impl fmt::Display for TaskEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the task that {} has ended", self.task)?;
        self.cause.as_ref().map_or(Ok(()), |cause| write!(f, ": {cause}"))
    }
}

impl std::error::Error for TaskEnded {}
