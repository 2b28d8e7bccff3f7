//! HTTP/2 frame by frame, because client libraries can neither send nor show all frames.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::within;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;

pub(crate) const END_STREAM: u8 = 1;
const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// A frame, except those that keep a connection alive.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The error code of a `RST_STREAM`.
    pub(crate) fn code(&self) -> u32 {
        u32::from_be_bytes(self.payload[..4].try_into().unwrap())
    }

    /// The status of an answer, if HPACK's static table has it: 200, 204, 206, 304, 400, 404 or 500.
    pub(crate) fn status(&self) -> Option<u16> {
        // Updates of the dynamic table's size may come first.
        let byte = self.payload.iter().find(|byte| **byte & 0xe0 != 0x20)?;
        [200, 204, 206, 304, 400, 404, 500].get(usize::from(byte.checked_sub(0x88)?)).copied()
    }
}

/// One connection.
pub(crate) struct Frames {
    stream: TcpStream,
}

impl Frames {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &[]).await
    }

    /// Connects with these SETTINGS: for each a number of two bytes and a value of four.
    pub(crate) async fn connect_with(address: SocketAddr, settings: &[u8]) -> Self {
        let stream = within("a connection", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut frames = Self { stream };
        frames.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        frames.send(SETTINGS, 0, 0, settings).await;
        frames
    }

    /// Whether the peer still accepts data.
    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let length = (payload.len() as u32).to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        within("the peer to read", self.stream.write_all(&frame)).await.is_ok()
    }

    /// Opens `stream` with these fields.
    pub(crate) async fn request(&mut self, stream: u32, fields: &[(&str, &str)], flags: u8) -> bool {
        let mut block = Vec::new();
        for (name, value) in fields {
            // A literal with a new name, without Huffman coding.
            block.extend_from_slice(&[0, name.len() as u8]);
            block.extend_from_slice(name.as_bytes());
            block.push(value.len() as u8);
            block.extend_from_slice(value.as_bytes());
        }
        self.send(HEADERS, END_HEADERS | flags, stream, &block).await
    }

    /// Sends a PING, whose answer is not shown.
    pub(crate) async fn ping(&mut self) -> bool {
        self.send(PING, 0, 0, &[0; 8]).await
    }

    /// The next frame; `None` if the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            let frame = within("a frame", self.read()).await?;
            match (frame.kind, frame.flags & ACK) {
                (SETTINGS | PING, 0) => {
                    let payload = if frame.kind == PING { &frame.payload[..] } else { &[] };
                    self.send(frame.kind, ACK, 0, payload).await;
                }
                (DATA | HEADERS | RST_STREAM | GOAWAY, _) => return Some(frame),
                _ => {}
            }
        }
    }

    async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }
}
