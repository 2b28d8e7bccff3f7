//! A network connection that carries the commands of several deliveries in one write.

use std::io::Error;
use std::mem::replace;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Lets the tasks that are ready run before it writes. The server answers many commands at a time, and each answer lets a
/// delivery end and another one begin: without this the first new command would be written alone, and so would the second.
pub(super) struct Batched<S> {
    stream: S,
    /// Whether the others have had their turn since the last flush.
    has_yielded: bool,
}

impl<S> Batched<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, has_yielded: false }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Batched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Error>> {
        if !replace(&mut self.has_yielded, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.has_yielded = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Batched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::future::join;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// Whether a future that is ready runs before a byte is written, although it is polled later.
    async fn lets_others_run(stream: &mut Batched<DuplexStream>) -> bool {
        let (has_run, had_run) = (Cell::new(false), Cell::new(false));
        let write = async {
            stream.write_all(b"a").await.unwrap();
            had_run.set(has_run.get());
        };
        join(write, async { has_run.set(true) }).await;
        had_run.get()
    }

    #[tokio::test]
    async fn others_run_once_before_each_round_of_writes() {
        let (ours, mut theirs) = duplex(100);
        let mut stream = Batched::new(ours);
        for _ in 0..2 {
            let writes = [lets_others_run(&mut stream).await, lets_others_run(&mut stream).await];
            assert_eq!(writes, [true, false]);
            stream.flush().await.unwrap();
            let mut read = [0; 2];
            theirs.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, b"aa");
        }
    }
}
