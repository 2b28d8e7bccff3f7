//! What runs beside a receiver.

use std::fmt;

use tokio::task::{JoinError, JoinHandle};

/// The tasks beside a [`Receiver`](super::Receiver). Dropped, they go on.
#[derive(Debug)]
pub struct Tasks {
    reflector: JoinHandle<()>,
    worker: Option<JoinHandle<()>>,
}

impl Tasks {
    pub(super) fn new(reflector: JoinHandle<()>, worker: Option<JoinHandle<()>>) -> Self {
        Self { reflector, worker }
    }

    /// Resolves when one of them has ended though nobody has asked for it: to serve on would be to serve a configuration
    /// that nobody follows, or to accept what nobody delivers. A fixed source ends at once. May be dropped at any await.
    pub async fn failed(&mut self) -> TaskEnded {
        loop {
            let ended = tokio::select! {
                ended = &mut self.reflector => return TaskEnded { task: "follows the configuration", cause: ended.err() },
                ended = join(&mut self.worker) => ended,
            };
            // Once it has ended it must not be asked again.
            self.worker = None;
            if let Err(cause) = ended {
                return TaskEnded { task: "delivers accepted events", cause: Some(cause) };
            }
        }
    }

    /// Resolves when what the worker had begun has ended. It ends after `stop` alone. May be dropped at any await.
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

/// A task has ended that was not to end.
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
