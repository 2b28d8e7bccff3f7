//! Keeps one session with a broker, for clients that do not reconnect as this crate needs it.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::backoff::Backoff;
use crate::event::{DeliverError, DeliverErrorKind};

/// The bound of the first wait between two attempts, and of all waits.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A delivery waits this long for the session that replaces a lost one.
const PATIENCE: Duration = Duration::from_millis(800);

/// A session that lived this long was a good one: if it is lost, another attempt follows at once.
const GOOD: Duration = Duration::from_secs(5);

/// Makes sessions with a broker.
pub(crate) trait Dial: Send + Sync + 'static {
    /// A session that deliveries share. It does not reconnect.
    type Session: Clone + Send + Sync + 'static;

    /// Makes one session, within a time limit of its own.
    fn dial(&self) -> impl Future<Output = Result<Self::Session, DeliverError>> + Send;

    /// Waits until the session takes no more deliveries.
    fn ended(session: &Self::Session) -> impl Future<Output = ()> + Send;
}

/// One session with a broker, made anew when it is lost: at once, and then with backoff and jitter for as long as this
/// value lives. Deliveries do not wait for a broker that is down.
pub(crate) struct Sessions<S> {
    status: watch::Receiver<Status<S>>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
enum Status<S> {
    /// The first attempt is under way: nothing is known of the broker.
    First,
    /// The session was lost, and an attempt is under way.
    Again,
    Up(S),
    Down(DeliverError),
}

impl<S: Clone + Send + Sync + 'static> Sessions<S> {
    /// Begins to make the first session. Must run on a tokio runtime.
    pub(crate) fn open(dial: impl Dial<Session = S>) -> Self {
        let (sender, status) = watch::channel(Status::First);
        Self { status, task: tokio::spawn(keep(dial, sender)) }
    }

    /// The session. Waits for the outcome of the first attempt, and shortly for a session that replaces a lost one.
    ///
    /// # Errors
    ///
    /// While there is none: the error of the last attempt.
    pub(crate) async fn current(&self) -> Result<S, DeliverError> {
        // The usual case, on the way of each delivery.
        if let Status::Up(session) = &*self.status.borrow() {
            return Ok(session.clone());
        }
        let mut status = self.status.clone();
        let is_first = matches!(*status.borrow(), Status::First);
        let settled = status.wait_for(|status| matches!(status, Status::Up(_) | Status::Down(_)));
        let lost =
            || DeliverError::new(DeliverErrorKind::Connect, "the connection was lost, and there is no other yet");
        let settled = match is_first {
            true => settled.await,
            false => timeout(PATIENCE, settled).await.map_err(|_| lost())?,
        };
        match settled.as_deref() {
            Ok(Status::Up(session)) => Ok(session.clone()),
            Ok(Status::Down(error)) => Err(error.clone()),
            _ => Err(lost()),
        }
    }
}

async fn keep<D: Dial>(dial: D, status: watch::Sender<Status<D::Session>>) {
    let (first, longest) = WAITS;
    let mut backoff = Backoff::new(first, longest);
    loop {
        match dial.dial().await {
            Ok(session) => {
                let since = Instant::now();
                status.send_replace(Status::Up(session.clone()));
                D::ended(&session).await;
                if since.elapsed() >= GOOD {
                    backoff.reset();
                }
                let wait = backoff.next();
                if backoff.failures() == 1 {
                    status.send_replace(Status::Again);
                    continue;
                }
                // A broker that accepts a session and ends it again, several times in a row, is as good as down.
                let text = "the connection was lost soon after it had been made";
                status.send_replace(Status::Down(DeliverError::new(DeliverErrorKind::Connect, text)));
                sleep(wait).await;
            }
            Err(error) => {
                status.send_replace(Status::Down(error));
                sleep(backoff.next()).await;
            }
        }
    }
}

impl<S> Drop for Sessions<S> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<S> fmt::Debug for Sessions<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// A broker whose sessions are numbers. `up` decides whether it accepts; a session ends when `end` reaches its number.
    #[derive(Clone)]
    struct Broker {
        up: watch::Receiver<bool>,
        dialled: Arc<AtomicUsize>,
        end: watch::Receiver<usize>,
    }

    impl Dial for Broker {
        type Session = (usize, watch::Receiver<usize>);

        async fn dial(&self) -> Result<Self::Session, DeliverError> {
            sleep(Duration::from_millis(10)).await;
            let number = self.dialled.fetch_add(1, Ordering::SeqCst) + 1;
            match *self.up.borrow() {
                true => Ok((number, self.end.clone())),
                false => Err(DeliverError::new(DeliverErrorKind::Auth, "wrong password")),
            }
        }

        async fn ended(session: &Self::Session) {
            let mut end = session.1.clone();
            let _ = end.wait_for(|end| *end >= session.0).await;
        }
    }

    fn broker(is_up: bool) -> (Broker, watch::Sender<bool>, watch::Sender<usize>) {
        let (up, watched) = watch::channel(is_up);
        let (end, ends) = watch::channel(0);
        (Broker { up: watched, dialled: Arc::default(), end: ends }, up, end)
    }

    async fn number(sessions: &Sessions<(usize, watch::Receiver<usize>)>) -> Result<usize, String> {
        let session = sessions.current().await;
        session.map(|session| session.0).map_err(|error| format!("{}: {error}", error.kind().label()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_session_is_replaced_at_once() {
        let (broker, _up, end) = broker(true);
        let sessions = Sessions::open(broker);
        assert_eq!(number(&sessions).await, Ok(1));
        sleep(GOOD).await;
        end.send_replace(1);
        tokio::task::yield_now().await;
        assert_eq!(number(&sessions).await, Ok(2));
    }

    #[tokio::test(start_paused = true)]
    async fn while_a_broker_is_down_nothing_waits_and_attempts_are_spaced() {
        let (broker, up, end) = broker(false);
        let dialled = Arc::clone(&broker.dialled);
        let sessions = Sessions::open(broker);
        assert_eq!(number(&sessions).await, Err("auth: wrong password".into()), "the first attempt is waited for");
        let began = Instant::now();
        for _ in 0..1000 {
            assert!(number(&sessions).await.is_err());
        }
        assert!(began.elapsed() < Duration::from_millis(1));
        sleep(Duration::from_secs(60)).await;
        let attempts = dialled.load(Ordering::SeqCst);
        assert!((12..40).contains(&attempts), "{attempts}");
        up.send_replace(true);
        sleep(WAITS.1).await;
        let last = number(&sessions).await.unwrap();

        // A session that is lost at once does not cause a tight loop.
        end.send_replace(usize::MAX);
        sleep(Duration::from_secs(60)).await;
        let more = dialled.load(Ordering::SeqCst) - last;
        assert!((8..40).contains(&more), "{more}");
        assert!(number(&sessions).await.unwrap_err().starts_with("connect: "));

        drop(sessions);
        tokio::task::yield_now().await;
        let all = dialled.load(Ordering::SeqCst);
        sleep(Duration::from_secs(60)).await;
        assert_eq!(dialled.load(Ordering::SeqCst), all, "nothing goes on when nobody needs it");
    }
}
