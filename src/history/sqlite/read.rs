//! Reading: a few connections on blocking threads, each query bounded in time.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::Semaphore;

use super::schema::{self, is_damage};
use super::shared::Shared;
use crate::base::lock::lock;

/// How many queries may run at a time.
const READERS: usize = 4;

/// The longest time of a query, and the longest wait for its turn.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a running query looks at the time, in instructions of SQLite's machine.
const LOOKS: i32 = 1000;

pub(super) struct Readers {
    shared: Arc<Shared>,
    file: PathBuf,
    turns: Arc<Semaphore>,
    /// Connections that nobody uses, and the file that they read.
    idle: Mutex<Vec<(u64, Connection)>>,
}

/// How long a query may still run.
#[derive(Clone)]
pub(super) struct Bound {
    until: Instant,
    is_left: Arc<AtomicBool>,
}

impl Bound {
    pub(super) fn lasting(time: Duration) -> Self {
        Self { until: Instant::now() + time, is_left: Arc::default() }
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_left.load(Ordering::Relaxed) || Instant::now() >= self.until
    }

    /// Fails once the time is over.
    pub(super) fn check(&self) -> rusqlite::Result<()> {
        let interrupted = || rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_INTERRUPT);
        if self.is_over() { Err(rusqlite::Error::SqliteFailure(interrupted(), None)) } else { Ok(()) }
    }
}

/// Ends a query that nobody waits for any more.
struct Leave(Arc<AtomicBool>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Readers {
    pub(super) fn new(shared: Arc<Shared>, file: PathBuf) -> Self {
        Self { shared, file, turns: Arc::new(Semaphore::new(READERS)), idle: Mutex::default() }
    }

    /// Runs a query on a thread that may block.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        query: impl FnOnce(&Connection, &Bound) -> rusqlite::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned()).await;
        let turn = turn.map_err(|_| {
            io::Error::new(io::ErrorKind::TimedOut, "the history is busy with other queries: try again")
        })?;
        let bound = Bound::lasting(PATIENCE);
        let _leave = Leave(Arc::clone(&bound.is_left));
        let readers = Arc::clone(self);
        let running = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            readers.query(bound, query)
        });
        running.await.unwrap_or_else(|_| Err(io::Error::other("the query of the history has ended early")))
    }

    fn query<T>(&self, bound: Bound, query: impl FnOnce(&Connection, &Bound) -> rusqlite::Result<T>) -> io::Result<T> {
        let file = self.shared.file();
        let connection = self.connection(file).map_err(|error| self.failed(&error))?;
        let looks = bound.clone();
        let read = connection.progress_handler(LOOKS, Some(move || looks.is_over())).and_then(|()| {
            // All statements of a query see the same state.
            let transaction = connection.unchecked_transaction()?;
            query(&transaction, &bound)
        });
        let reset = connection.progress_handler(LOOKS, None::<fn() -> bool>);
        match read {
            Ok(found) => {
                if reset.is_ok() {
                    lock(&self.idle).push((file, connection));
                }
                Ok(found)
            }
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn connection(&self, file: u64) -> rusqlite::Result<Connection> {
        let mut idle = lock(&self.idle);
        idle.retain(|(read, _)| *read == file);
        match idle.pop() {
            Some((_, connection)) => Ok(connection),
            None => {
                drop(idle);
                schema::reader(&self.file)
            }
        }
    }

    fn failed(&self, error: &rusqlite::Error) -> io::Error {
        if is_damage(error) {
            self.shared.found_damage();
        }
        if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) {
            let reason = "the query of the history took longer than 2 s: narrow it by webhook, outcome or time";
            return io::Error::new(io::ErrorKind::TimedOut, reason);
        }
        io::Error::other(format!("the history cannot be read: {error}"))
    }
}
