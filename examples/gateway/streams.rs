//! The requests of HTTP/2, which hyper puts into tasks of their own beside those of their connections.

use std::convert::Infallible;

use hyper::rt::Executor;
use tokio::sync::mpsc;

/// Runs the tasks. Each of them, and each clone of this, is one for [`Ended`] to wait for.
#[derive(Clone, Debug)]
pub(crate) struct Streams(mpsc::Sender<Infallible>);

/// The other end of [`Streams`].
#[derive(Debug)]
pub(crate) struct Ended(mpsc::Receiver<Infallible>);

pub(crate) fn streams() -> (Streams, Ended) {
    let (held, ended) = mpsc::channel(1);
    (Streams(held), Ended(ended))
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, task: F) {
        let held = self.0.clone();
        tokio::spawn(async move {
            task.await;
            drop(held);
        });
    }
}

impl Ended {
    /// Resolves when all tasks have ended, and all connections that might begin one.
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
