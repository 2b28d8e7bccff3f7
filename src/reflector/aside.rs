//! Moves large work off the threads that serve requests.

use std::future::pending;
use std::panic::resume_unwind;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Up to this many bytes of values are compiled on the current thread, which takes less than a millisecond.
const ON_THIS_THREAD: usize = 16 << 10;

/// A state, and the work on it, one piece after the other.
pub(super) struct Aside<S> {
    /// `None` while a blocking thread has it.
    here: Option<S>,
    away: Option<JoinHandle<S>>,
}

impl<S: Send + 'static> Aside<S> {
    pub(super) fn new(state: S) -> Self {
        Self { here: Some(state), away: None }
    }

    /// Does `work` on `bytes` of values: on the current thread if they are few or if there is no tokio runtime, else on
    /// a blocking thread.
    ///
    /// Work on a blocking thread is completed even if the caller's future is dropped; the next work waits for it.
    pub(super) async fn work(&mut self, bytes: usize, work: impl FnOnce(&mut S) + Send + 'static) {
        let runtime = Handle::try_current().ok().filter(|_| bytes > ON_THIS_THREAD);
        let Some(runtime) = runtime else { return work(self.here().await) };
        self.here().await;
        if let Some(mut state) = self.here.take() {
            self.away = Some(runtime.spawn_blocking(move || {
                work(&mut state);
                state
            }));
        }
        self.here().await;
    }

    /// The state, once no work is running.
    pub(super) async fn here(&mut self) -> &mut S {
        if let Some(away) = &mut self.away {
            let done = away.await;
            self.away = None;
            match done {
                Ok(state) => self.here = Some(state),
                Err(error) if error.is_panic() => resume_unwind(error.into_panic()),
                // The runtime is shutting down; this future is never resumed.
                Err(_) => {}
            }
        }
        match &mut self.here {
            Some(state) => state,
            None => pending().await,
        }
    }

    pub(super) async fn into_state(mut self) -> S {
        self.here().await;
        match self.here {
            Some(state) => state,
            None => pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn large_work_is_done_on_another_thread_and_small_work_on_this_one() {
        let here = thread::current().id();
        let mut aside = Aside::new(Vec::new());
        for bytes in [0, ON_THIS_THREAD] {
            aside.work(bytes, |threads| threads.push(thread::current().id())).now_or_never().unwrap();
        }
        aside.work(ON_THIS_THREAD + 1, |threads| threads.push(thread::current().id())).await;
        let threads = aside.into_state().await;
        assert_eq!(threads[..2], [here, here]);
        assert_ne!(threads[2], here);
    }

    #[tokio::test]
    async fn work_whose_future_was_dropped_is_completed_before_the_next_work() {
        let (go, gone) = mpsc::channel();
        let mut aside = Aside::new(Vec::new());
        let first = aside.work(usize::MAX, move |done| {
            gone.recv().unwrap();
            done.push(1);
        });
        assert!(first.now_or_never().is_none());
        assert!(aside.work(0, |done| done.push(2)).now_or_never().is_none());
        go.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(60), aside.work(0, |done| done.push(3))).await.unwrap();
        assert_eq!(aside.into_state().await, [1, 3]);
    }

    #[tokio::test]
    #[should_panic(expected = "as it should")]
    async fn a_panic_of_the_work_reaches_the_caller() {
        Aside::new(()).work(usize::MAX, |()| panic!("as it should")).await;
    }

    #[test]
    fn without_a_runtime_all_work_is_done_on_the_current_thread() {
        let mut aside = Aside::new(0);
        aside.work(usize::MAX, |count| *count += 1).now_or_never().unwrap();
        assert_eq!(aside.into_state().now_or_never(), Some(1));
    }
}
