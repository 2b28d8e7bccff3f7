//! Stderr, which may have no reader. Lines go to a thread that writes them, and nothing ever waits for that thread.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How many bytes may wait to be written. Further lines are left out.
const ROOM: usize = 4 << 20;

/// How long writing the last lines may take at the end.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The thread's pause before it writes again to a full pipe that does not block.
const PAUSE: Duration = Duration::from_millis(10);

/// Lines to stderr. Clones share one thread.
#[derive(Clone)]
pub(crate) struct Stderr(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    /// There is something to write.
    filled: Condvar,
    /// Everything is written.
    emptied: Condvar,
}

#[derive(Default)]
struct Queue {
    text: Vec<u8>,
    /// How many bytes are being written.
    writing: usize,
    left_out: LeftOut,
}

/// Lines that were never written.
#[derive(Default)]
struct LeftOut {
    lines: u64,
    /// How many of them a line has reported.
    told: u64,
}

impl Stderr {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        // Not std's handle: other writers would wait for its lock.
        let file = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        let shared = Arc::new(Shared { queue: Mutex::default(), filled: Condvar::new(), emptied: Condvar::new() });
        let host = Arc::clone(&shared);
        thread::Builder::new().name("stderr".to_owned()).spawn(move || host.run(file))?;
        Ok(Self(shared))
    }

    /// Adds a line, or leaves it out if too many bytes wait.
    pub(crate) fn line(&self, line: &str) {
        self.push(format!("{line}\n").as_bytes());
    }

    /// Waits until everything is written, for [`LAST_LINES`] at most.
    pub(crate) fn flush_at_exit(&self) {
        let end = Instant::now() + LAST_LINES;
        let mut queue = self.0.lock();
        while !queue.is_empty() {
            let Some(time) = end.checked_duration_since(Instant::now()) else { return };
            queue = self.0.emptied.wait_timeout(queue, time).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn push(&self, lines: &[u8]) {
        let mut queue = self.0.lock();
        if queue.writing + queue.text.len() + lines.len() > ROOM {
            queue.left_out.lines += count(lines);
            drop(queue);
            measure(lines);
            return;
        }
        queue.text.extend_from_slice(lines);
        drop(queue);
        self.0.filled.notify_one();
    }
}

/// Accepts everything at once: its callers write whole lines.
impl Write for Stderr {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.push(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.text.is_empty() && self.writing == 0
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut file: File) {
        let mut text = Vec::new();
        loop {
            let mut queue = self.lock();
            while queue.text.is_empty() {
                self.emptied.notify_all();
                queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            text.clear();
            std::mem::swap(&mut text, &mut queue.text);
            queue.writing = text.len();
            drop(queue);

            let written = write(&mut file, &text);
            let lost = &text[written..];
            if !lost.is_empty() {
                measure(lost);
            }
            let mut queue = self.lock();
            queue.writing = 0;
            queue.left_out.lines += count(lost);
            // Only after a successful write: otherwise the line about it would be left out too, for ever.
            let untold = if lost.is_empty() { queue.left_out.tell() } else { 0 };
            drop(queue);
            if untold > 0 {
                tracing::warn!(lines = untold, "log lines were left out: nobody read stderr");
            }
        }
    }
}

impl LeftOut {
    fn tell(&mut self) -> u64 {
        let untold = self.lines - self.told;
        self.told = self.lines;
        untold
    }
}

/// Makes the metric appear with the value 0.
pub(crate) fn describe() {
    measure(b"");
}

fn measure(lines: &[u8]) {
    metrics::counter!("tower_webhook_log_lines_dropped_total").increment(count(lines));
}

/// Writes as much of `text` as it can, and returns how much that was.
fn write(file: &mut File, text: &[u8]) -> usize {
    let mut written = 0;
    while written < text.len() {
        match file.write(&text[written..]) {
            Ok(0) => break,
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Another process has made the pipe non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(_) => break,
        }
    }
    written
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|byte| **byte == b'\n').count() as u64
}
