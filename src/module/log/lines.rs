//! Lines to a blocking writer, without blocking the runtime.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use std::thread;

use tokio::sync::{mpsc, oneshot};

/// How many lines may wait to be written; senders beyond that wait for room.
const QUEUE: usize = 1024;

/// Writes whole lines, each acknowledged once it has been flushed.
///
/// One thread writes; all that is waiting goes out in one write. Clones share the thread, which starts with the first
/// line.
#[derive(Clone)]
pub struct Lines {
    shared: Arc<Shared>,
}

struct Shared {
    writer: std::sync::Mutex<Option<Box<dyn Write + Send>>>,
    queue: OnceLock<mpsc::Sender<Line>>,
}

struct Line {
    text: Vec<u8>,
    done: oneshot::Sender<io::Result<()>>,
}

impl Lines {
    /// Writes to `writer`.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        Self {
            shared: Arc::new(Shared { writer: std::sync::Mutex::new(Some(Box::new(writer))), queue: OnceLock::new() }),
        }
    }

    /// Writes `line`, which ends with a newline, and waits until it is out.
    pub(super) async fn write(&self, text: Vec<u8>) -> io::Result<()> {
        let (done, outcome) = oneshot::channel();
        let gone = || io::Error::other("the writing thread is gone");
        self.queue().send(Line { text, done }).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }

    fn queue(&self) -> &mpsc::Sender<Line> {
        self.shared.queue.get_or_init(|| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            let writer = self.shared.writer.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
            if let Some(writer) = writer {
                let spawned = thread::Builder::new().name("log-lines".into()).spawn(move || run(writer, receiver));
                if let Err(error) = spawned {
                    // The receiver is dropped with the closure: every line is refused, none is lost silently.
                    tracing::error!(%error, "cannot start the thread that writes the log module's lines");
                }
            }
            sender
        })
    }
}

fn run(mut writer: Box<dyn Write + Send>, mut queue: mpsc::Receiver<Line>) {
    let mut batch = Vec::new();
    let mut text = Vec::new();
    while queue.blocking_recv_many(&mut batch, QUEUE) > 0 {
        text.clear();
        for line in &batch {
            text.extend_from_slice(&line.text);
        }
        let outcome = writer.write_all(&text).and_then(|()| writer.flush());
        for line in batch.drain(..) {
            let outcome = match &outcome {
                Ok(()) => Ok(()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            // Nobody waits any more when the sender has hung up.
            let _ = line.done.send(outcome);
        }
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn every_line_is_out_when_it_is_acknowledged() {
        let sink = Sink::default();
        let lines = Lines::new(sink.clone());
        let writes = (0..100).map(|n| {
            let lines = lines.clone();
            async move { lines.write(format!("{n}\n").into_bytes()).await }
        });
        for outcome in futures_util::future::join_all(writes).await {
            outcome.unwrap();
        }
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        let mut numbers: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_broken_writer_is_an_error_each_time() {
        let lines = Lines::new(Broken);
        for _ in 0..3 {
            assert_eq!(lines.write(b"x\n".to_vec()).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        }
    }
}
