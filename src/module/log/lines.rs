//! Writes lines to a blocking writer, without blocking the runtime.

mod out;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use self::out::Out;
use crate::base::group::{Gathering, Gathers, Stragglers, Waiter, gather, idle};
use crate::base::lock::lock;

/// The most bytes that wait for the thread; a sender beyond that waits for room. The thread writes at most this much at
/// a time. While nobody reads, it is unknown whether these bytes will be printed.
const ROOM: usize = 64 << 10;

/// Writes whole lines, each acknowledged once it has been flushed.
///
/// One thread writes: all waiting lines go out in one write. Clones share the thread, which starts with the first line.
#[derive(Clone)]
pub struct Lines {
    handle: Arc<Handle>,
}

/// Shared by all clones. Dropping it ends the thread.
struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Wakes the thread when there is something to do.
    wake: Condvar,
}

struct Queue {
    gathering: Gathering<Outcome>,
    /// The waiting lines by ticket, which grows by one with each line.
    lines: BTreeMap<u64, Box<[u8]>>,
    /// The total length of these lines.
    bytes: usize,
    next: u64,
    /// Until the thread takes it.
    writer: Option<Out>,
    /// The thread has ended, or must end.
    is_closed: bool,
}

/// The outcome of a group of lines.
#[derive(Clone)]
struct Outcome {
    /// The first ticket that was not written.
    upto: u64,
    /// The error, if there was one.
    error: Option<Arc<io::Error>>,
}

impl Gathers for Queue {
    type Outcome = Outcome;

    const MAX_TURNS: usize = 1;

    fn gathering(&mut self) -> &mut Gathering<Outcome> {
        &mut self.gathering
    }
}

impl Lines {
    /// Writes lines to `writer`.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        let queue = Queue {
            gathering: Gathering::default(),
            lines: BTreeMap::new(),
            bytes: 0,
            next: 0,
            writer: Some(Out::new(writer)),
            is_closed: false,
        };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), wake: Condvar::new() });
        Self { handle: Arc::new(Handle { shared }) }
    }

    /// Writes to the process's stdout without std's buffer: an acknowledged line has left the process.
    pub fn stdout() -> Self {
        Self::new(out::stdout())
    }

    /// Writes `line`, which ends with a newline, and waits until it has been flushed. If the future is dropped, the
    /// line is not written unless the thread already has it.
    pub(super) async fn write(&self, line: &[u8]) -> Result<(), Arc<io::Error>> {
        let gone = || Arc::new(io::Error::other("the writing thread is gone"));
        loop {
            let (waiter, place) = self.push(line).ok_or_else(gone)?;
            let outcome = waiter.await;
            let Some(place) = place else { continue };
            let ticket = place.leave();
            let Outcome { upto, error } = outcome.ok_or_else(gone)?;
            return if ticket < upto { Ok(()) } else { Err(error.unwrap_or_else(gone)) };
        }
    }

    /// Adds a line if there is room, and a waiter in any case.
    fn push(&self, line: &[u8]) -> Option<(Waiter<Outcome>, Option<Place<'_>>)> {
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
        let is_in = queue.bytes == 0 || queue.bytes + line.len() <= ROOM;
        let place = is_in.then(|| Place { shared, ticket: queue.add(line) });
        let (waiter, wake) = queue.gathering.join(None, false);
        drop(queue);
        if wake {
            shared.wake.notify_one();
        }
        Some((waiter, place))
    }
}

impl Queue {
    fn add(&mut self, line: &[u8]) -> u64 {
        let ticket = self.next;
        self.next += 1;
        self.bytes += line.len();
        self.lines.insert(ticket, line.into());
        ticket
    }
}

/// The ticket of a line whose sender waits. A sender that gives up removes its line, because it may send the event
/// again.
struct Place<'a> {
    shared: &'a Shared,
    ticket: u64,
}

impl Place<'_> {
    /// The thread has taken the line.
    fn leave(self) -> u64 {
        std::mem::ManuallyDrop::new(self).ticket
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        if let Some(line) = queue.lines.remove(&self.ticket) {
            queue.bytes -= line.len();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
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

/// The part of the thread.
struct Host(Arc<Shared>);

impl Drop for Host {
    fn drop(&mut self) {
        self.0.close();
        // Every waiter learns that no outcome will come.
        drop(self.0.lock().gathering.begin());
    }
}

fn run(Host(shared): &Host, mut out: Out) {
    let mut stragglers = Stragglers::default();
    loop {
        let look_again = stragglers.wake();
        let mut queue = gather(&shared.wake, shared.lock());
        if queue.gathering.count() == 0 {
            if queue.is_closed {
                return;
            }
            let time = look_again.map(|at| at.saturating_duration_since(std::time::Instant::now()));
            drop(idle(&shared.wake, queue, time));
            continue;
        }
        let lines = std::mem::take(&mut queue.lines);
        queue.bytes = 0;
        let next = queue.next;
        let group = queue.gathering.begin();
        drop(queue);
        let (written, outcome) = out.write(lines.values());
        let upto = lines.keys().nth(written).copied().unwrap_or(next);
        group.end(Outcome { upto, error: outcome.err().map(Arc::new) }, &mut stragglers);
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
    async fn every_acknowledged_line_has_been_written() {
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
    async fn no_sender_waits_for_a_thread_that_has_ended() {
        let lines = Lines::new(Panics);
        for outcome in join_all((0..9).map(|_| lines.write(b"x\n"))).await {
            assert!(outcome.unwrap_err().to_string().contains("gone"));
        }
        assert!(lines.write(b"x\n").await.is_err());
    }

    #[tokio::test]
    async fn the_line_of_a_sender_that_gives_up_is_not_written() {
        let sink = Sink::default();
        let lines = Lines::new(sink.clone());
        let held = sink.0.lock().unwrap();
        let mut first = Box::pin(lines.write(b"first\n"));
        assert!((&mut first).now_or_never().is_none());
        // The thread takes the first line before the others arrive.
        while lines.handle.shared.lock().bytes > 0 {
            thread::yield_now();
        }
        assert!(lines.write(b"given up\n").now_or_never().is_none());
        let mut last = Box::pin(lines.write(b"last\n"));
        assert!((&mut last).now_or_never().is_none());
        assert_eq!(lines.handle.shared.lock().bytes, 5);
        drop(held);
        first.await.unwrap();
        last.await.unwrap();
        assert_eq!(*sink.0.lock().unwrap(), b"first\nlast\n");
    }

    #[tokio::test]
    async fn a_sender_waits_for_room() {
        let sink = Sink::default();
        let lines = Lines::new(sink.clone());
        let held = sink.0.lock().unwrap();
        let line = [&[b'x'; ROOM / 4 - 1][..], b"\n"].concat();
        let mut writes = join_all((0..20).map(|_| lines.write(&line)));
        assert!((&mut writes).now_or_never().is_none());
        let queued = lines.handle.shared.lock().bytes;
        assert!(queued <= ROOM, "{queued}");
        drop(held);
        writes.await.into_iter().for_each(|outcome| outcome.unwrap());
        assert_eq!(sink.0.lock().unwrap().len(), 20 * line.len());
    }
}
