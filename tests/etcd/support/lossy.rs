//! A proxy that loses one message of a watch, as etcd itself has done (#17529, #18089).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The length of a frame's head in HTTP/2: length, type, flags and stream.
const HEAD: usize = 9;

const DATA: u8 = 0;

/// The field number of the events in a message of a watch. No answer to a read has this field.
const EVENTS: u64 = 11;

pub struct Lossy {
    port: u16,
    losing: Arc<Losing>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Losing {
    /// The key whose next event is lost, with its message.
    key: Mutex<Option<Vec<u8>>>,
    lost: AtomicUsize,
}

impl Lossy {
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let losing = Arc::new(Losing::default());
        let shared = Arc::clone(&losing);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, port, Arc::clone(&shared)));
            }
        });
        Self { port: own, losing, task }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Loses the next message of a watch that has an event of this key.
    pub fn lose(&self, key: &str) {
        *self.losing.key.lock().unwrap() = Some(key.into());
    }

    /// How many messages were lost.
    pub fn lost(&self) -> usize {
        self.losing.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Losing {
    fn loses(&self, kind: u8, payload: &[u8]) -> bool {
        let mut key = self.key.lock().unwrap();
        let names = key.as_ref().is_some_and(|key| payload.windows(key.len()).any(|window| window == key));
        let loses = names && kind == DATA && has_events(payload);
        if loses {
            *key = None;
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        loses
    }
}

async fn carry(client: TcpStream, port: u16, losing: Arc<Losing>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let (mut client_read, client_write) = client.into_split();
    let (server_read, mut server_write) = server.into_split();
    tokio::select! {
        _ = copy(&mut client_read, &mut server_write) => {}
        _ = frames(server_read, client_write, &losing) => {}
    }
}

/// Passes frames on. A missing message does not disturb the others: a frame of data affects nothing but the
/// flow-control window, which the few bytes do not fill.
async fn frames(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    losing: &Losing,
) -> std::io::Result<()> {
    loop {
        let mut frame = vec![0; HEAD];
        from.read_exact(&mut frame).await?;
        let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]) as usize;
        frame.resize(HEAD + length, 0);
        from.read_exact(&mut frame[HEAD..]).await?;
        if !losing.loses(frame[3], &frame[HEAD..]) {
            to.write_all(&frame).await?;
        }
    }
}

/// Whether the payload is one whole gRPC message of a watch, with events.
fn has_events(payload: &[u8]) -> bool {
    let Some((&[0, a, b, c, d], mut message)) = payload.split_first_chunk() else { return false };
    if u32::from_be_bytes([a, b, c, d]) as usize != message.len() {
        return false;
    }
    while !message.is_empty() {
        let tag = varint(&mut message);
        match tag & 7 {
            2 if tag >> 3 == EVENTS => return true,
            0 => {
                varint(&mut message);
            }
            2 => {
                let length = varint(&mut message) as usize;
                message = message.get(length..).unwrap_or_default();
            }
            _ => return false,
        }
    }
    false
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let Some((byte, rest)) = bytes.split_first() else { break };
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    number
}
