//! The tasks in which hyper runs HTTP/2 requests, beside the tasks of their connections.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::rt::Executor;
use tokio::sync::mpsc;

/// How many tasks may wait for their first run before HTTP/2 connections are read no further. The tasks hold memory, and
/// nothing else bounds their number: a thread may read the requests of many connections before it runs one.
const WAITING: usize = 256;

/// Runs the tasks. [`Ended`] waits for each task and for each clone of this.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    held: mpsc::Sender<Infallible>,
    waiting: Arc<AtomicUsize>,
}

/// The other end of [`Streams`].
#[derive(Debug)]
pub(crate) struct Ended(mpsc::Receiver<Infallible>);

pub(crate) fn streams() -> (Streams, Ended) {
    let (held, ended) = mpsc::channel(1);
    (Streams { held, waiting: Arc::default() }, Ended(ended))
}

impl Streams {
    /// Whether too many tasks wait for their first run.
    pub(crate) fn are_crowded(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > WAITING
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, task: F) {
        let Self { held, waiting } = self.clone();
        waiting.fetch_add(1, Ordering::Relaxed);
        tokio::spawn(async move {
            waiting.fetch_sub(1, Ordering::Relaxed);
            task.await;
            drop(held);
        });
    }
}

impl Ended {
    /// Resolves when all tasks have ended, and all connections that could begin one.
    pub(crate) async fn all(&mut self) {
        // Nothing is ever sent.
        let _ = self.0.recv().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn tasks_that_wait_to_run_are_counted() {
        let (streams, _ended) = streams();
        for _ in 0..=WAITING {
            assert!(!streams.are_crowded());
            streams.execute(std::future::pending());
        }
        assert!(streams.are_crowded());
        tokio::task::yield_now().await;
        assert!(!streams.are_crowded(), "they run");
    }

    #[tokio::test]
    async fn tasks_are_waited_for_though_nothing_is_left_that_might_begin_one() {
        let (streams, mut ended) = streams();
        let (end, until) = oneshot::channel::<()>();
        streams.clone().execute(async { drop(until.await) });
        drop(streams);
        assert!(ended.all().now_or_never().is_none(), "a task runs");
        drop(end);
        ended.all().await;
    }
}
