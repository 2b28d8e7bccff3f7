//! The connections that carry no request.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::line::Line;
use crate::base::lock::lock;

/// Connections that carry no request. A task answers their peers, and ends those that cannot carry another request.
pub(super) struct Idle {
    take_turns: bool,
    waiting: Arc<Mutex<Waiting>>,
    put: Notify,
    watch: JoinHandle<()>,
}

struct Waiting {
    /// The next one to take is the first.
    lines: VecDeque<Line>,
    /// Wakes the task.
    waker: Waker,
}

impl Idle {
    /// Has none yet. Whether they `take_turns`, as those of several peers should. If not, the one that was used last is the
    /// next one, since the peer may still be awake. Must run on a tokio runtime.
    pub(super) fn new(take_turns: bool) -> Self {
        let waiting = Waiting { lines: VecDeque::new(), waker: Waker::noop().clone() };
        let waiting = Arc::new(Mutex::new(waiting));
        let watched = Arc::clone(&waiting);
        let watch = tokio::spawn(poll_fn(move |cx| {
            let mut waiting = lock(&watched);
            waiting.waker.clone_from(cx.waker());
            waiting.lines.retain_mut(|line| line.is_usable(cx));
            Poll::Pending
        }));
        Self { take_turns, waiting, put: Notify::new(), watch }
    }

    /// A connection, if there is one.
    pub(super) fn take(&self) -> Option<Line> {
        let mut waiting = lock(&self.waiting);
        // The task may not have run since the peer did something.
        let is_fit = |line: &mut Line| line.is_usable(&mut Context::from_waker(Waker::noop())) && line.is_quiet();
        std::iter::from_fn(|| waiting.lines.pop_front()).find_map(|mut line| is_fit(&mut line).then_some(line))
    }

    /// Keeps a connection, if it can carry another request.
    pub(super) fn put(&self, mut line: Line) {
        let mut waiting = lock(&self.waiting);
        if line.is_usable(&mut Context::from_waker(&waiting.waker)) {
            match self.take_turns {
                true => waiting.lines.push_back(line),
                false => waiting.lines.push_front(line),
            }
            drop(waiting);
            self.put.notify_one();
        }
    }

    /// Waits for a connection, but not longer than `patience`.
    pub(super) async fn wait(&self, patience: Duration) -> Option<Line> {
        let waiting = async {
            loop {
                let mut put = pin!(self.put.notified());
                // From here on, a connection that is put wakes this one or another that waits.
                put.as_mut().enable();
                if let Some(line) = self.take() {
                    return line;
                }
                put.await;
            }
        };
        timeout(patience, waiting).await.ok()
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        self.watch.abort();
    }
}
