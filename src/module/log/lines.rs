//! Lines to a blocking writer, without blocking the runtime.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::round::{Crowd, HasCrowd, Recent, Seat, gather, idle};

/// How many bytes may wait to be written; senders beyond that wait for room.
const ROOM: usize = 1 << 20;

/// Writes whole lines, each acknowledged once it has been flushed.
///
/// One thread writes; all that is waiting goes out in one write. Clones share the thread, which starts with the first
/// line.
#[derive(Clone)]
pub struct Lines {
    handle: Arc<Handle>,
}

/// What all clones share. The thread ends with it.
struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// There is something for the thread to do.
    wake: Condvar,
}

struct Queue {
    crowd: Crowd<Outcome>,
    text: Vec<u8>,
    /// Until the thread has it.
    writer: Option<Box<dyn Write + Send>>,
    /// The thread is gone, or is to go.
    is_closed: bool,
}

type Outcome = Result<(), Arc<io::Error>>;

impl HasCrowd for Queue {
    type Outcome = Outcome;

    const TURNS: usize = 1;

    fn crowd(&mut self) -> &mut Crowd<Outcome> {
        &mut self.crowd
    }
}

impl Lines {
    /// Writes to `writer`.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        let writer: Option<Box<dyn Write + Send>> = Some(Box::new(writer));
        let queue = Mutex::new(Queue { crowd: Crowd::default(), text: Vec::new(), writer, is_closed: false });
        let shared = Arc::new(Shared { queue, wake: Condvar::new() });
        Self { handle: Arc::new(Handle { shared }) }
    }

    /// Writes `line`, which ends with a newline, and waits until it is out.
    pub(super) async fn write(&self, line: &[u8]) -> Outcome {
        let gone = || Err(Arc::new(io::Error::other("the writing thread is gone")));
        loop {
            let Some((seat, is_in)) = self.push(line) else { return gone() };
            let outcome = seat.await.unwrap_or_else(gone);
            if is_in {
                return outcome;
            }
        }
    }

    /// Adds a line if there is room for it, and a place among those who wait in either case.
    fn push(&self, line: &[u8]) -> Option<(Seat<Outcome>, bool)> {
        let shared = &self.handle.shared;
        let mut queue = shared.lock();
        if let Some(writer) = queue.writer.take() {
            let shared = Arc::clone(shared);
            let spawned = thread::Builder::new().name("log-lines".into()).spawn(move || run(&Host(shared), writer));
            if let Err(error) = spawned {
                tracing::error!(%error, "cannot start the thread that writes the log module's lines");
                queue.is_closed = true;
            }
        }
        if queue.is_closed {
            return None;
        }
        let is_in = queue.text.is_empty() || queue.text.len() + line.len() <= ROOM;
        if is_in {
            queue.text.extend_from_slice(line);
        }
        let (seat, wake) = queue.crowd.join(None, false);
        drop(queue);
        if wake {
            shared.wake.notify_one();
        }
        Some((seat, is_in))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().is_closed = true;
        self.wake.notify_one();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// The thread's side.
struct Host(Arc<Shared>);

impl Drop for Host {
    fn drop(&mut self) {
        self.0.close();
        // Whoever waits learns that nothing comes.
        drop(self.0.lock().crowd.begin());
    }
}

fn run(Host(shared): &Host, mut writer: Box<dyn Write + Send>) {
    let mut text = Vec::new();
    let mut recent = Recent::default();
    loop {
        let look_again = recent.wake();
        let mut queue = gather(&shared.wake, shared.lock());
        if queue.crowd.count() == 0 {
            if queue.is_closed {
                return;
            }
            let time = look_again.map(|at| at.saturating_duration_since(std::time::Instant::now()));
            drop(idle(&shared.wake, queue, time));
            continue;
        }
        text.clear();
        std::mem::swap(&mut text, &mut queue.text);
        let round = queue.crowd.begin();
        drop(queue);
        let outcome = writer.write_all(&text).and_then(|()| writer.flush());
        round.end(outcome.map_err(Arc::new), &mut recent);
    }
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::join_all;

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
            async move { lines.write(format!("{n}\n").as_bytes()).await }
        });
        for outcome in join_all(writes).await {
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
            assert_eq!(lines.write(b"x\n").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        }
    }
    struct Panics;

    impl Write for Panics {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            panic!("as told")
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_thread_that_is_gone_leaves_nobody_waiting() {
        let lines = Lines::new(Panics);
        for outcome in join_all((0..9).map(|_| lines.write(b"x\n"))).await {
            assert!(outcome.unwrap_err().to_string().contains("gone"));
        }
        assert!(lines.write(b"x\n").await.is_err());
    }

    #[tokio::test]
    async fn who_finds_no_room_waits_for_it() {
        let sink = Sink::default();
        let lines = Lines::new(sink.clone());
        let held = sink.0.lock().unwrap();
        let line = [&[b'x'; ROOM / 4 - 1][..], b"\n"].concat();
        let mut writes = join_all((0..20).map(|_| lines.write(&line)));
        assert!((&mut writes).now_or_never().is_none());
        let queued = lines.handle.shared.lock().text.len();
        assert!(queued <= ROOM, "{queued}");
        drop(held);
        writes.await.into_iter().for_each(|outcome| outcome.unwrap());
        assert_eq!(sink.0.lock().unwrap().len(), 20 * line.len());
    }
}
