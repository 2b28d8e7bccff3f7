//! ZMTP 3.0 without security (the mechanism NULL), written and read: <https://rfc.zeromq.org/spec/23/>.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

/// The length of a greeting.
pub(super) const GREETING: usize = 64;

/// The bounds of what a peer sends: replies, subscriptions and commands.
const MAX_FRAME: usize = 64 << 10;
const MAX_PARTS: usize = 64;

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// The type of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Pub,
    Push,
    Req,
    Dealer,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Pub => "PUB",
            Self::Push => "PUSH",
            Self::Req => "REQ",
            Self::Dealer => "DEALER",
        }
    }

    /// Whether a peer of this type understands the messages.
    fn suits(self, peer: &str) -> bool {
        match self {
            Self::Pub => matches!(peer, "SUB" | "XSUB"),
            Self::Push => peer == "PULL",
            Self::Req => matches!(peer, "REP" | "ROUTER"),
            Self::Dealer => matches!(peer, "REP" | "DEALER" | "ROUTER"),
        }
    }
}

/// The first bytes of a connection.
pub(super) fn greeting() -> [u8; GREETING] {
    let mut greeting = [0; GREETING];
    greeting[0] = 0xff;
    greeting[9] = 0x7f;
    greeting[10] = 3;
    greeting[12..16].copy_from_slice(b"NULL");
    greeting
}

/// Checks the first bytes of a peer.
pub(super) fn check_greeting(greeting: &[u8; GREETING]) -> Result<(), Invalid> {
    if greeting[0] != 0xff || greeting[9] & 1 == 0 {
        return Err(Invalid::Peer("it does not speak ZMTP"));
    }
    if greeting[10] < 3 {
        return Err(Invalid::Peer("it speaks a version of ZMTP before 3.0"));
    }
    let mut mechanism = [0; 20];
    mechanism[..4].copy_from_slice(b"NULL");
    match greeting[12..32] == mechanism {
        true => Ok(()),
        false => Err(Invalid::Peer("it requires a security mechanism, such as CURVE, and this module has none")),
    }
}

/// The command that ends the handshake on our side.
pub(super) fn ready(role: Role) -> Vec<u8> {
    let mut body = b"\x05READY".to_vec();
    let mut property = |name: &str, value: &str| {
        body.push(name.len() as u8);
        body.extend_from_slice(name.as_bytes());
        body.extend_from_slice(&(value.len() as u32).to_be_bytes());
        body.extend_from_slice(value.as_bytes());
    };
    property("Socket-Type", role.name());
    if role != Role::Pub && role != Role::Push {
        property("Identity", "");
    }
    let mut frame = Vec::new();
    head(COMMAND, body.len(), &mut frame);
    frame.extend_from_slice(&body);
    frame
}

/// The empty part before a message for a socket that replies (<https://rfc.zeromq.org/spec/28/>).
pub(super) const DELIMITER: &[u8] = &[MORE, 0];

/// A message. Clones share its body.
#[derive(Clone)]
pub(super) struct Message {
    /// Everything before the bytes of the body.
    pub(super) head: Bytes,
    pub(super) body: Bytes,
}

impl Message {
    /// The parts in `before`, and the body as the last one.
    pub(super) fn new(before: &[&[u8]], body: &Bytes) -> Self {
        Self::behind(&[], before, body)
    }

    /// The same, behind the empty part that a request needs.
    pub(super) fn request(before: &[&[u8]], body: &Bytes) -> Self {
        Self::behind(DELIMITER, before, body)
    }

    fn behind(first: &[u8], before: &[&[u8]], body: &Bytes) -> Self {
        let mut bytes = first.to_vec();
        for part in before {
            head(MORE, part.len(), &mut bytes);
            bytes.extend_from_slice(part);
        }
        head(0, body.len(), &mut bytes);
        Self { head: bytes.into(), body: body.clone() }
    }

    /// How many bytes it has.
    pub(super) fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

fn head(flags: u8, length: usize, bytes: &mut Vec<u8>) {
    match u8::try_from(length) {
        Ok(short) => bytes.extend_from_slice(&[flags, short]),
        Err(_) => {
            bytes.push(flags | LONG);
            bytes.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// A message or a command of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Received {
    Message(Vec<Vec<u8>>),
    Command(Vec<u8>),
}

/// Why bytes are not from a peer that understands us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Invalid {
    Peer(&'static str),
    /// The peer has another type of socket.
    Type(String),
    /// The peer has refused the handshake.
    Refused(String),
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(text) => f.write_str(text),
            Self::Type(name) => write!(f, "it is a socket of the type {name}, which does not fit to this one"),
            Self::Refused(text) => write!(f, "it refuses the connection: {text}"),
        }
    }
}

/// Checks the command that ends the handshake on the peer's side. Returns whether the peer is a `REP`, which needs an
/// empty part before a message.
pub(super) fn check_ready(role: Role, command: &[u8]) -> Result<bool, Invalid> {
    if let Some(reason) = command.strip_prefix(b"\x05ERROR") {
        return Err(Invalid::Refused(shown(reason.get(1..).unwrap_or_default())));
    }
    let mut rest = command.strip_prefix(b"\x05READY").ok_or(Invalid::Peer("it does not end the handshake"))?;
    while !rest.is_empty() {
        let (name, value, behind) = property(rest).ok_or(Invalid::Peer("its handshake is invalid"))?;
        if name.eq_ignore_ascii_case(b"Socket-Type") {
            let kind = shown(value);
            return match role.suits(&kind) {
                true => Ok(kind == "REP"),
                false => Err(Invalid::Type(kind)),
            };
        }
        rest = behind;
    }
    Err(Invalid::Peer("it does not say of which type it is"))
}

/// The name and value of the first property, and what is behind it.
fn property(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(length))?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (value, behind) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    Some((name, value, behind))
}

/// A text of the peer: short, and without control characters.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().take(100).map(|char| if char.is_control() { ' ' } else { char }).collect()
}

/// The answer to a `PING` command: a `PONG` with its context.
pub(super) fn pong(command: &[u8]) -> Option<Vec<u8>> {
    let context = command.strip_prefix(b"\x04PING")?.get(2..)?;
    let context = &context[..context.len().min(16)];
    let mut frame = Vec::new();
    head(COMMAND, 5 + context.len(), &mut frame);
    frame.extend_from_slice(b"\x04PONG");
    frame.extend_from_slice(context);
    Some(frame)
}

/// Reads messages and commands from bytes that arrive in pieces.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    parts: Vec<Vec<u8>>,
    length: usize,
}

impl Decoder {
    /// Whether no part of a message has been taken without its last one.
    pub(super) fn is_between_messages(&self) -> bool {
        self.parts.is_empty()
    }

    /// Takes the next message or command from the front of `buffer`. `None` if it is not complete yet.
    ///
    /// # Errors
    ///
    /// When the bytes are no frame, or a message is beyond the bounds. Nothing can be read afterwards.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Received>, Invalid> {
        loop {
            let Some((flags, head, length)) = frame(buffer)? else { return Ok(None) };
            if self.length + length > MAX_FRAME || self.parts.len() == MAX_PARTS {
                return Err(Invalid::Peer("it sends a message that is too long"));
            }
            if buffer.len() - head < length {
                return Ok(None);
            }
            let body = buffer[head..head + length].to_vec();
            buffer.advance(head + length);
            if flags & COMMAND != 0 {
                return Ok(Some(Received::Command(body)));
            }
            self.length += length;
            self.parts.push(body);
            if flags & MORE == 0 {
                self.length = 0;
                return Ok(Some(Received::Message(std::mem::take(&mut self.parts))));
            }
        }
    }
}

/// The flags of the first frame, the length of its head and that of its body.
fn frame(bytes: &[u8]) -> Result<Option<(u8, usize, usize)>, Invalid> {
    let Some(&flags) = bytes.first() else { return Ok(None) };
    if flags & !(MORE | LONG | COMMAND) != 0 || flags & (MORE | COMMAND) == MORE | COMMAND {
        return Err(Invalid::Peer("it sends something else than frames"));
    }
    if flags & LONG == 0 {
        return Ok(bytes.get(1).map(|&length| (flags, 2, usize::from(length))));
    }
    let Some(length) = bytes[1..].first_chunk::<8>() else { return Ok(None) };
    match usize::try_from(u64::from_be_bytes(*length)) {
        Ok(length) if length <= MAX_FRAME => Ok(Some((flags, 9, length))),
        _ => Err(Invalid::Peer("it sends a message that is too long")),
    }
}

/// A message that was read is the same however its bytes arrive, and after it was written again.
#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut decoder, mut buffer, mut all) = (Decoder::default(), BytesMut::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                match decoder.next(&mut buffer) {
                    Ok(Some(received)) => all.push(received),
                    Ok(None) => break,
                    Err(_) => return (all, true),
                }
            }
        }
        (all, false)
    };
    let (all, is_invalid) = read(&mut std::iter::once(bytes));
    let (again, failed) = read(&mut bytes.chunks(1));
    assert_eq!((&all, is_invalid), (&again, failed));
    for received in all {
        match &received {
            Received::Message(parts) => {
                let written = written(parts);
                assert_eq!(read(&mut std::iter::once(&written[..])), (vec![received], false));
            }
            Received::Command(command) => {
                let _ = (check_ready(Role::Req, command), pong(command));
            }
        }
    }
    if let Some(greeting) = bytes.first_chunk() {
        let _ = check_greeting(greeting);
    }
}

/// The bytes of a message of these parts, of which there is at least one.
#[cfg(any(fuzzing, test))]
fn written(parts: &[Vec<u8>]) -> Vec<u8> {
    let parts: Vec<_> = parts.iter().map(Vec::as_slice).collect();
    let Some((body, before)) = parts.split_last() else { return Vec::new() };
    let message = Message::new(before, &Bytes::copy_from_slice(body));
    [message.head, message.body].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pieces: &[&[u8]]) -> Result<Vec<Received>, Invalid> {
        let (mut decoder, mut buffer, mut all) = (Decoder::default(), BytesMut::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Some(received) = decoder.next(&mut buffer)? {
                all.push(received);
            }
        }
        Ok(all)
    }

    /// The bytes are those of libzmq 4.3.5.
    #[test]
    fn the_handshake_of_libzmq_is_read() {
        let mut theirs = [0; GREETING];
        theirs[..16].copy_from_slice(b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x01NULL");
        assert_eq!(check_greeting(&theirs), Ok(()));
        let pull = b"\x05READY\x0bSocket-Type\0\0\0\x04PULL";
        assert_eq!(check_ready(Role::Push, pull), Ok(false));
        assert_eq!(check_ready(Role::Req, pull), Err(Invalid::Type("PULL".to_owned())));
        let rep = b"\x05READY\x08Identity\0\0\0\0\x0bSocket-Type\0\0\0\x03REP";
        assert_eq!((check_ready(Role::Dealer, rep), check_ready(Role::Req, rep)), (Ok(true), Ok(true)));
        assert_eq!(check_ready(Role::Req, b"\x05ERROR\x07Invalid"), Err(Invalid::Refused("Invalid".to_owned())));
        for command in [
            &b"\x05READY"[..],
            b"\x05READY\x0bSocket",
            b"\x05READY\x0bSocket-Type\xff\xff\xff\xffREP",
            b"",
            b"\x04PING",
        ] {
            assert!(matches!(check_ready(Role::Req, command), Err(Invalid::Peer(_))), "{command:?}");
        }
        for (at, byte) in [(0, 0), (9, 0), (10, 2), (12, b'C'), (31, 1)] {
            let mut wrong = theirs;
            wrong[at] = byte;
            assert!(check_greeting(&wrong).is_err(), "{at}");
        }
        assert_eq!(pong(b"\x04PING\0\x64context"), Some(b"\x04\x0c\x04PONGcontext".to_vec()));
        assert_eq!(pong(b"\x04PING"), None);
        assert_eq!(ready(Role::Push), b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x04PUSH");
    }

    #[test]
    fn other_bytes_are_refused() {
        for bytes in
            [&b"\x08"[..], b"\x05\0", b"\x02\0\0\0\0\0\x01\0\x01", b"\x02\xff\xff\xff\xff\xff\xff\xff\xff", b"HTTP"]
        {
            assert!(read(&[bytes]).is_err(), "{bytes:?}");
        }
        assert!(read(&[&b"\x01\0".repeat(MAX_PARTS + 1)]).is_err());
        let long = written(&[vec![0; MAX_FRAME], b"x".to_vec()]);
        assert!(read(&[&long]).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..5),
            cut in any::<prop::sample::Index>(),
        ) {
            let bytes = written(&parts);
            let (first, second) = bytes.split_at(cut.index(bytes.len()));
            prop_assert_eq!(read(&[first, second]).unwrap(), vec![Received::Message(parts)]);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(prop_oneof![0_u8..8, any::<u8>()], 0..60)) {
            let pieces: Vec<_> = bytes.chunks(1).collect();
            prop_assert_eq!(read(&[&bytes]).ok(), read(&pieces).ok());
            let _ = (check_ready(Role::Req, &bytes), pong(&bytes));
        }
    }
}
