//! Records the states that are served.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tower_webhook::Store;

use crate::log::{Log, State, hash_of, state_of};

/// A state that was served.
pub struct Seen {
    pub revision: u64,
    pub hash: u64,
    pub state: State,
    /// A time by which the state is said to have been what etcd held.
    pub proven: Option<Instant>,
}

/// Records every state that it sees, and asks for proofs.
pub struct Reader {
    stop: Arc<AtomicBool>,
    reading: JoinHandle<Vec<Seen>>,
    asking: JoinHandle<()>,
}

impl Reader {
    pub fn start(store: Store, log: Arc<Mutex<Log>>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, asked) = (Arc::clone(&stop), store.clone());
        let reading = tokio::task::spawn_blocking(move || read(&store, &stopped));
        Self { stop, reading, asking: tokio::spawn(ask_often(asked, log)) }
    }

    pub async fn stop(mut self) -> Vec<Seen> {
        self.asking.abort();
        let asked = (&mut self.asking).await;
        assert!(asked.is_err_and(|ended| ended.is_cancelled()), "a barrier let somebody pass too early");
        self.stop.store(true, Ordering::Relaxed);
        (&mut self.reading).await.unwrap()
    }
}

/// Ends the tasks: a failing test would otherwise wait for ever.
impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn read(store: &Store, stopped: &AtomicBool) -> Vec<Seen> {
    let mut run: Vec<Seen> = Vec::new();
    while !stopped.load(Ordering::Relaxed) {
        // Read before the staleness: an age that is taken for larger than it is causes no false alarm.
        let now = Instant::now();
        let status = store.status();
        let proven = status.staleness().and_then(|staleness| now.checked_sub(staleness));
        let state = state_of(&status.snapshot);
        let seen = Seen { revision: status.snapshot.revision(), hash: hash_of(&state), state, proven };
        if run.last().is_none_or(|last| last.differs_from(&seen)) {
            run.push(seen);
        }
        std::thread::sleep(Duration::from_micros(300));
    }
    run
}

impl Seen {
    fn differs_from(&self, other: &Self) -> bool {
        // The time of the same proof varies slightly each time it is computed.
        let later = other.proven > self.proven.map(|proven| proven + Duration::from_millis(2));
        (self.revision, self.hash) != (other.revision, other.hash) || later
    }
}

/// Waits again and again for a written revision to be served, and for a fresh configuration.
async fn ask_often(store: Store, log: Arc<Mutex<Log>>) {
    loop {
        sleep(Duration::from_millis(100)).await;
        let epoch = store.status().report.epoch;
        let revision = log.lock().unwrap().revision();
        let reached = timeout(Duration::from_secs(1), store.wait_for_revision(revision)).await;
        let served = store.snapshot().revision();
        // In another history the number means something else.
        if reached == Ok(true) && store.status().report.epoch == epoch {
            assert!(served >= revision, "revision {revision} is said to be reached at {served}");
        }
        let asked = Instant::now();
        if timeout(Duration::from_secs(1), store.wait_fresh()).await == Ok(true) {
            assert!(store.status().staleness() <= Some(asked.elapsed()), "it is said to be fresh");
        }
    }
}
