//! The handshake with a peer.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::frame::{self, Decoder, GREETING, Invalid, Received, Role};
use crate::event::{DeliverError, DeliverErrorKind};

/// A connection after the handshake.
pub(super) struct Met {
    pub(super) stream: TcpStream,
    /// The bytes that were received behind the handshake.
    pub(super) buffer: BytesMut,
    /// Whether the peer is a `REP`, which needs an empty part before a message.
    pub(super) is_rep: bool,
}

/// Why there is no peer.
pub(super) enum Wrong {
    Socket(io::Error),
    Peer(Invalid),
}

/// Makes the handshake. There is no time limit.
pub(super) async fn meet(mut stream: TcpStream, role: Role) -> Result<Met, Wrong> {
    let mut theirs = [0; GREETING];
    stream.write_all(&frame::greeting()).await.map_err(Wrong::Socket)?;
    stream.read_exact(&mut theirs).await.map_err(Wrong::Socket)?;
    frame::check_greeting(&theirs).map_err(Wrong::Peer)?;
    stream.write_all(&frame::ready(role)).await.map_err(Wrong::Socket)?;
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::new());
    let command = loop {
        match decoder.next(&mut buffer).map_err(Wrong::Peer)? {
            Some(Received::Command(command)) => break command,
            Some(Received::Message(_)) => return Err(Wrong::Peer(Invalid::Peer("it does not end the handshake"))),
            None if stream.read_buf(&mut buffer).await.map_err(Wrong::Socket)? == 0 => {
                return Err(Wrong::Socket(io::ErrorKind::UnexpectedEof.into()));
            }
            None => {}
        }
    };
    let is_rep = frame::check_ready(role, &command).map_err(Wrong::Peer)?;
    Ok(Met { stream, buffer, is_rep })
}

/// The error of a delivery whose connection ended.
pub(super) fn lost() -> DeliverError {
    DeliverError::new(DeliverErrorKind::Connect, "the connection to the peer was lost")
}
