//! Writes lines to a writer that may fail in the middle of a line.

use std::io::{self, ErrorKind, Write};
use std::thread::sleep;
use std::time::Duration;

/// The first and the longest wait for a non-blocking pipe that is full.
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(100)];

/// Writes whole lines, and reports how many were written.
pub(super) struct Out {
    writer: Box<dyn Write + Send>,
    text: Vec<u8>,
    /// The last line was written in part: the next one must not continue it.
    is_torn: bool,
}

impl Out {
    pub(super) fn new(writer: impl Write + Send + 'static) -> Self {
        Self { writer: Box::new(writer), text: Vec::new(), is_torn: false }
    }

    /// Returns how many of the lines were written whole, and the error if there was one. Waits for a pipe that nobody
    /// reads.
    pub(super) fn write<'a>(&mut self, lines: impl Iterator<Item = &'a Box<[u8]>>) -> (usize, io::Result<()>) {
        self.text.clear();
        if self.is_torn {
            self.text.push(b'\n');
        }
        let mut ends = Vec::new();
        for line in lines {
            self.text.extend_from_slice(line);
            ends.push(self.text.len());
        }
        let (done, outcome) = self.write_text();
        if let Some(last) = done.checked_sub(1) {
            self.is_torn = self.text.get(last) != Some(&b'\n');
        }
        if let Err(error) = outcome {
            return (ends.partition_point(|end| *end <= done), Err(error));
        }
        match self.writer.flush() {
            Ok(()) => (ends.len(), Ok(())),
            Err(error) => (0, Err(error)),
        }
    }

    /// Returns how many bytes were written.
    fn write_text(&mut self) -> (usize, io::Result<()>) {
        let (mut done, mut pause) = (0, PAUSES[0]);
        while done < self.text.len() {
            match self.writer.write(&self.text[done..]) {
                Ok(0) => return (done, Err(ErrorKind::WriteZero.into())),
                Ok(written) => (done, pause) = (done + written, PAUSES[0]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    sleep(pause);
                    pause = (2 * pause).min(PAUSES[1]);
                }
                Err(error) => return (done, Err(error)),
            }
        }
        (done, Ok(()))
    }
}

/// The process's stdout without a buffer: the rest of a failed line must not come out later, and the process must be
/// able to end while nobody reads.
#[cfg(unix)]
pub(super) fn stdout() -> impl Write + Send {
    Stdout(None)
}

#[cfg(not(unix))]
pub(super) fn stdout() -> impl Write + Send {
    io::stdout()
}

#[cfg(unix)]
struct Stdout(Option<std::fs::File>);

#[cfg(unix)]
impl Stdout {
    fn file(&mut self) -> io::Result<&mut std::fs::File> {
        use std::os::fd::AsFd;
        if self.0.is_none() {
            let file = std::fs::File::from(io::stdout().as_fd().try_clone_to_owned()?);
            if is_null(&file) {
                return Err(io::Error::other("stdout is closed or /dev/null"));
            }
            self.0 = Some(file);
        }
        self.0.as_mut().ok_or_else(|| ErrorKind::BrokenPipe.into())
    }
}

/// Whether stdout is `/dev/null`, which it becomes before `main` if it was closed when the process started. An event
/// written there would be lost.
#[cfg(unix)]
fn is_null(stdout: &std::fs::File) -> bool {
    use std::os::unix::fs::MetadataExt;
    let device = |file: io::Result<std::fs::Metadata>| file.ok().map(|file| file.rdev()).filter(|device| *device != 0);
    let null = device(std::fs::metadata("/dev/null"));
    null.is_some() && device(stdout.metadata()) == null
}

#[cfg(unix)]
impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file()?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file()?.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Accepts this number of bytes each time, or fails.
    #[derive(Clone, Default)]
    struct Scripted {
        steps: Arc<Mutex<VecDeque<Result<usize, ErrorKind>>>>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Scripted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = self.steps.lock().unwrap().pop_front().unwrap_or(Ok(usize::MAX))?;
            let count = room.min(bytes.len());
            self.taken.lock().unwrap().extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(steps: &[Result<usize, ErrorKind>], rounds: &[&[&str]]) -> (Vec<(usize, bool)>, String) {
        let writer = Scripted::default();
        writer.steps.lock().unwrap().extend(steps);
        let mut out = Out::new(writer.clone());
        let outcomes = rounds.iter().map(|lines| {
            let lines: Vec<Box<[u8]>> = lines.iter().map(|line| line.as_bytes().into()).collect();
            let (count, outcome) = out.write(lines.iter());
            (count, outcome.is_ok())
        });
        let outcomes = outcomes.collect();
        let text = String::from_utf8(writer.taken.lock().unwrap().clone()).unwrap();
        (outcomes, text)
    }

    #[test]
    fn a_pipe_that_takes_a_little_at_a_time_gets_each_line_once() {
        let (wait, again) = (Err(ErrorKind::WouldBlock), Err(ErrorKind::Interrupted));
        let steps = [Ok(1), wait, wait, Ok(4), again, Ok(2), wait];
        assert_eq!(written(&steps, &[&["abc\n", "defg\n"]]), (vec![(2, true)], "abc\ndefg\n".to_owned()));
    }

    #[test]
    fn a_line_that_was_written_in_part_is_not_continued_by_the_next() {
        let full = Err(ErrorKind::StorageFull);
        let (outcomes, text) = written(&[Ok(6), full, full], &[&["abc\n", "defg\n", "h\n"], &["i\n"], &["j\n"]]);
        assert_eq!(outcomes, [(1, false), (0, false), (1, true)]);
        assert_eq!(text, "abc\nde\nj\n");
        // A failure between two lines leaves no partial line.
        let (outcomes, text) = written(&[Ok(4), full], &[&["abc\n", "defg\n"], &["j\n"]]);
        assert_eq!((outcomes, text.as_str()), (vec![(1, false), (1, true)], "abc\nj\n"));
    }
}
