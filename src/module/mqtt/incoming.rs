//! Packets of the server.

use bytes::{Buf, Bytes, BytesMut};

use super::packet::{
    CONNACK, CONTENT_TYPE, DISCONNECT, LARGEST_READ, MAXIMUM_PACKET_SIZE, MAXIMUM_QOS, PINGRESP, PUBACK, PUBCOMP,
    PUBREC, REASON_STRING, RECEIVE_MAXIMUM, RETAIN_AVAILABLE, SERVER_KEEP_ALIVE, USER_PROPERTY, Version,
};

/// The most bytes of a server's own words that are kept.
const LONGEST_REASON: usize = 300;

/// A packet of the server.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
    Accepted(Limits),
    /// The server refuses the client. The codes of 3.1.1 are 1 to 5; the codes of 5 begin at 0x80.
    Refused(Reason),
    PubAck(u16, Reason),
    PubRec(u16, Reason),
    PubComp(u16, Reason),
    Pong,
    Disconnect(Reason),
}

/// A reason code, and the server's own words for it. 3.1.1 has only the code 0.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reason {
    pub(super) code: u8,
    pub(super) text: Option<Box<str>>,
}

/// The limits of a server.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Limits {
    /// The most messages with QoS 1 and 2 on their way at a time.
    pub(super) in_flight: u16,
    pub(super) qos: u8,
    pub(super) retain: bool,
    /// The largest packet, in bytes.
    pub(super) packet: usize,
    /// The keep alive that replaces the client's, in seconds.
    pub(super) keep_alive: Option<u16>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { in_flight: u16::MAX, qos: 2, retain: true, packet: usize::MAX, keep_alive: None }
    }
}

/// The server violates the protocol: how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Violation(pub(super) &'static str);

const SHORT: Violation = Violation("a packet ends too early");

/// Takes the first packet out of `bytes`. `None` if it is not complete.
pub(super) fn decode(bytes: &mut BytesMut, version: Version) -> Result<Option<Incoming>, Violation> {
    let Some((length, digits)) = read_length(bytes.get(1..).unwrap_or_default())? else { return Ok(None) };
    if length > LARGEST_READ {
        return Err(Violation("a packet is larger than the client allows"));
    }
    if bytes.len() < 1 + digits + length {
        return Ok(None);
    }
    let mut packet = bytes.split_to(1 + digits + length).freeze();
    let first = packet.get_u8();
    packet.advance(digits);
    incoming(first, packet, version).map(Some)
}

fn incoming(first: u8, mut packet: Bytes, version: Version) -> Result<Incoming, Violation> {
    let is_5 = version == Version::V5;
    match first {
        CONNACK => {
            let _session_present = packet.try_get_u8().map_err(|_| SHORT)?;
            let code = packet.try_get_u8().map_err(|_| SHORT)?;
            // A server that does not know version 5 may answer in its own.
            let found = if is_5 && !packet.is_empty() { Found::read(&mut packet)? } else { Found::default() };
            Ok(match code {
                0 => Incoming::Accepted(found.limits),
                code => Incoming::Refused(Reason { code, text: found.reason }),
            })
        }
        PUBACK | PUBREC | PUBCOMP => {
            let id = packet.try_get_u16().map_err(|_| SHORT)?;
            let reason = if is_5 { reason(packet)? } else { Reason::default() };
            Ok(match first {
                PUBACK => Incoming::PubAck(id, reason),
                PUBREC => Incoming::PubRec(id, reason),
                _ => Incoming::PubComp(id, reason),
            })
        }
        PINGRESP => Ok(Incoming::Pong),
        DISCONNECT if is_5 => Ok(Incoming::Disconnect(reason(packet)?)),
        _ => Err(Violation("a packet that a client which only publishes does not get")),
    }
}

/// A reason code and properties, both of which may be missing (§3.4.2).
fn reason(mut packet: Bytes) -> Result<Reason, Violation> {
    let Ok(code) = packet.try_get_u8() else { return Ok(Reason::default()) };
    let text = if packet.is_empty() { None } else { Found::read(&mut packet)?.reason };
    Ok(Reason { code, text })
}

/// The properties of a server's packet that are used.
#[derive(Default)]
struct Found {
    limits: Limits,
    reason: Option<Box<str>>,
}

impl Found {
    fn read(packet: &mut Bytes) -> Result<Self, Violation> {
        let (length, digits) = read_length(packet)?.ok_or(SHORT)?;
        packet.advance(digits);
        if packet.len() < length {
            return Err(SHORT);
        }
        let mut properties = packet.split_to(length);
        let mut found = Self::default();
        while let Ok(name) = properties.try_get_u8() {
            found.property(name, &mut properties)?;
        }
        Ok(found)
    }

    fn property(&mut self, name: u8, properties: &mut Bytes) -> Result<(), Violation> {
        let limits = &mut self.limits;
        match name {
            0x01 | 0x17 | 0x19 | 0x28..=0x2A | MAXIMUM_QOS | RETAIN_AVAILABLE => {
                let value = properties.try_get_u8().map_err(|_| SHORT)?;
                match name {
                    MAXIMUM_QOS => limits.qos = value.min(2),
                    RETAIN_AVAILABLE => limits.retain = value != 0,
                    _ => {}
                }
            }
            0x22 | 0x23 | SERVER_KEEP_ALIVE | RECEIVE_MAXIMUM => {
                let value = properties.try_get_u16().map_err(|_| SHORT)?;
                match name {
                    SERVER_KEEP_ALIVE => limits.keep_alive = Some(value),
                    RECEIVE_MAXIMUM if value == 0 => return Err(Violation("it takes no message at all")),
                    RECEIVE_MAXIMUM => limits.in_flight = value,
                    _ => {}
                }
            }
            0x02 | 0x11 | 0x18 | MAXIMUM_PACKET_SIZE => {
                let value = properties.try_get_u32().map_err(|_| SHORT)?;
                if name == MAXIMUM_PACKET_SIZE {
                    limits.packet = usize::try_from(value).unwrap_or(usize::MAX);
                }
            }
            0x0B => {
                let (_, digits) = read_length(properties)?.ok_or(SHORT)?;
                properties.advance(digits);
            }
            CONTENT_TYPE | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1A | 0x1C | REASON_STRING => {
                let text = take_text(properties)?;
                if name == REASON_STRING {
                    self.reason = Some(words(&text));
                }
            }
            USER_PROPERTY => {
                take_text(properties)?;
                take_text(properties)?;
            }
            _ => return Err(Violation("a packet has an unknown property")),
        }
        Ok(())
    }
}

/// A server's own words, without control characters and not too long.
fn words(text: &[u8]) -> Box<str> {
    let text = String::from_utf8_lossy(&text[..text.len().min(LONGEST_REASON)]);
    text.chars().filter(|char| !char.is_control()).collect()
}

fn take_text(bytes: &mut Bytes) -> Result<Bytes, Violation> {
    let length = usize::from(bytes.try_get_u16().map_err(|_| SHORT)?);
    match bytes.len() >= length {
        true => Ok(bytes.split_to(length)),
        false => Err(SHORT),
    }
}

/// A variable byte integer and its number of bytes; `None` if it is not complete.
pub(super) fn read_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Violation> {
    let mut length = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((length, at + 1)));
        }
    }
    match bytes.len() {
        0..=3 => Ok(None),
        _ => Err(Violation("a packet's length is not one")),
    }
}

/// A server's bytes are read alike however they are cut, and never make the reader panic. The first byte chooses the version.
#[cfg(fuzzing)]
pub(crate) fn fuzz(input: &[u8]) {
    let Some((first, sent)) = input.split_first() else { return };
    let version = if first & 1 == 0 { Version::V4 } else { Version::V5 };
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut buffer, mut packets) = (BytesMut::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                match decode(&mut buffer, version) {
                    Ok(Some(packet)) => packets.push(packet),
                    Ok(None) => break,
                    Err(violation) => return (packets, Some(violation)),
                }
            }
        }
        (packets, None)
    };
    assert_eq!(read(&mut [sent].into_iter()), read(&mut sent.chunks(1)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8], version: Version) -> Result<Option<Incoming>, Violation> {
        decode(&mut BytesMut::from(bytes), version)
    }

    #[test]
    fn the_answers_of_a_server_are_read() {
        use Incoming::{Accepted, Disconnect, Pong, PubAck, PubComp, PubRec, Refused};
        let code = |code| Reason { code, text: None };
        for (bytes, version, expected) in [
            (&b"\x20\x02\0\0"[..], Version::V4, Accepted(Limits::default())),
            (b"\x20\x02\0\x05", Version::V4, Refused(code(5))),
            (b"\x20\x02\0\x01", Version::V5, Refused(code(1))),
            (
                b"\x20\x12\0\0\x0f\x21\0\x14\x24\x01\x25\0\x27\0\0\x01\0\x13\0\x0a",
                Version::V5,
                Accepted(Limits { in_flight: 20, qos: 1, retain: false, packet: 256, keep_alive: Some(10) }),
            ),
            (b"\x40\x02\0\x07", Version::V4, PubAck(7, code(0))),
            (b"\x40\x02\0\x07", Version::V5, PubAck(7, code(0))),
            (b"\x40\x03\0\x07\x10", Version::V5, PubAck(7, code(0x10))),
            // Mosquitto answers so to a message that is too large, although the standard has no such PUBACK.
            (b"\x40\x04\0\x07\x95\0", Version::V5, PubAck(7, code(0x95))),
            (
                b"\x50\x0c\0\x07\x97\x08\x1f\0\x05fu\nll",
                Version::V5,
                PubRec(7, Reason { code: 0x97, text: Some("full".into()) }),
            ),
            (b"\x70\x02\x01\0", Version::V5, PubComp(256, code(0))),
            (b"\xd0\0", Version::V5, Pong),
            (b"\xe0\x01\x8e", Version::V5, Disconnect(code(0x8e))),
            (b"\xe0\0", Version::V5, Disconnect(code(0))),
        ] {
            assert_eq!(read(bytes, version), Ok(Some(expected)), "{bytes:x?}");
            for end in 0..bytes.len() {
                assert_eq!(read(&bytes[..end], version), Ok(None), "{bytes:x?} up to {end}");
            }
        }
    }

    #[test]
    fn other_packets_are_violations() {
        for (bytes, version) in [
            (&b"\x30\x05\0\x03a/b"[..], Version::V5),
            (b"\xe0\0", Version::V4),
            (b"\x40\x01\0", Version::V5),
            (b"\x20\x01\0", Version::V5),
            (b"\x20\x05\0\0\x02\x21\0", Version::V5),
            (b"\x20\x06\0\0\x03\x21\0\0", Version::V5),
            (b"\x20\x05\0\0\x02\x7e\0", Version::V5),
            (b"\x40\x05\0\x01\0\x09\x1f", Version::V5),
            (b"\x40\xff\xff\x7f", Version::V5),
            (b"\x40\xff\xff\xff\xff", Version::V5),
        ] {
            assert!(read(bytes, version).is_err(), "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..64), is_5: bool) {
            let _ = read(&bytes, if is_5 { Version::V5 } else { Version::V4 });
        }
    }
}
