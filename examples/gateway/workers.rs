//! One thread with a runtime of its own for each core.
//!
//! A connection stays with the worker that it was given to: its requests wake no other thread, and share nothing with
//! another core that is written to.

use std::convert::Infallible;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::LAST_CALL;

pub(crate) struct Workers(Vec<Worker>);

struct Worker {
    runtime: Handle,
    thread: thread::JoinHandle<()>,
    /// Dropped, it ends the thread.
    stop: oneshot::Sender<Infallible>,
    /// Held by each of its connections.
    load: Arc<()>,
}

impl Workers {
    pub(crate) fn start() -> io::Result<Self> {
        let cores = thread::available_parallelism()?.get();
        (0..cores).map(|_| Worker::start()).collect::<io::Result<_>>().map(Self)
    }

    /// Serves `stream` on the worker that has the fewest.
    pub(crate) fn spawn<F>(&self, stream: TcpStream, serve: impl FnOnce(tokio::net::TcpStream) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send,
    {
        let Some(worker) = self.0.iter().min_by_key(|worker| Arc::strong_count(&worker.load)) else { return };
        let load = Arc::clone(&worker.load);
        worker.runtime.spawn(async move {
            // There, as that runtime is the one to tell it when there is something to read.
            match tokio::net::TcpStream::from_std(stream) {
                Ok(stream) => serve(stream).await,
                Err(error) => tracing::warn!(%error, "a connection cannot be served"),
            }
            drop(load);
        });
    }

    /// Ends what still runs. Blocks.
    pub(crate) fn stop(self) {
        let threads: Vec<_> = self.0.into_iter().map(|worker| (worker.thread, drop(worker.stop)).0).collect();
        for thread in threads {
            // A connection that panics does so in its own task.
            let _ = thread.join();
        }
    }
}

impl Worker {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("connections".to_owned()).spawn(move || {
            let _ = runtime.block_on(stopped);
            runtime.shutdown_timeout(LAST_CALL);
        })?;
        Ok(Self { runtime: handle, thread, stop, load: Arc::default() })
    }
}
