//! The packets of MQTT 3.1.1 and 5, as far as a client needs them that only publishes.
//!
//! The two versions differ in the properties and reason codes of 5. "§" means a section of the OASIS standard of version 5.
//!
//! The packets are read and written here because the crate rumqttc-next hides what an acknowledgement depends on: it
//! chooses the packet's number itself, knows no reason code 0x95 (too large, which Mosquitto answers), and has one version of
//! the protocol in each crate.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The largest packet that is read: a client that does not subscribe gets small ones only.
pub(super) const LARGEST_READ: usize = 64 << 10;

/// The largest remaining length (§1.5.5).
const LARGEST_LENGTH: usize = 268_435_455;

/// The most bytes of a server's own words that are kept.
const LONGEST_REASON: usize = 300;

// The first byte of each packet (§2.1.2), with the flags that it must have.
const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
const PUBCOMP: u8 = 0x70;
const PINGREQ: u8 = 0xC0;
const PINGRESP: u8 = 0xD0;
const DISCONNECT: u8 = 0xE0;

// Properties (§2.2.2.2).
const CONTENT_TYPE: u8 = 0x03;
const SERVER_KEEP_ALIVE: u8 = 0x13;
const REASON_STRING: u8 = 0x1F;
const RECEIVE_MAXIMUM: u8 = 0x21;
const MAXIMUM_QOS: u8 = 0x24;
const RETAIN_AVAILABLE: u8 = 0x25;
const USER_PROPERTY: u8 = 0x26;
const MAXIMUM_PACKET_SIZE: u8 = 0x27;

/// The version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// 3.1.1
    V4,
    V5,
}

/// Whether a packet of MQTT can have this text (§1.5.4). Servers close the connection for control characters as well,
/// although they only may.
pub(super) fn is_string(text: &str) -> bool {
    let is_noncharacter = |char: char| {
        let code = u32::from(char);
        (0xFDD0..=0xFDEF).contains(&code) || code & 0xFFFE == 0xFFFE
    };
    text.len() <= usize::from(u16::MAX) && !text.chars().any(|char| char.is_control() || is_noncharacter(char))
}

/// The first packet of a client.
pub(super) struct Connect<'a> {
    pub(super) version: Version,
    pub(super) client_id: &'a str,
    pub(super) user: Option<&'a str>,
    pub(super) password: Option<&'a str>,
    /// In seconds.
    pub(super) keep_alive: u16,
}

impl Connect<'_> {
    /// A session that begins empty and ends with the connection.
    pub(super) fn encode(&self) -> Bytes {
        let mut packet = BytesMut::new();
        put_text(&mut packet, "MQTT");
        let clean_start = 0x02;
        let user = if self.user.is_some() { 0x80 } else { 0 };
        let password = if self.password.is_some() { 0x40 } else { 0 };
        packet.put_u8(if self.version == Version::V5 { 5 } else { 4 });
        packet.put_u8(clean_start | user | password);
        packet.put_u16(self.keep_alive);
        if self.version == Version::V5 {
            // Nothing is received, so one property says enough.
            put_length(&mut packet, 5);
            packet.put_u8(MAXIMUM_PACKET_SIZE);
            packet.put_u32(LARGEST_READ as u32);
        }
        put_text(&mut packet, self.client_id);
        for text in [self.user, self.password].into_iter().flatten() {
            put_text(&mut packet, text);
        }
        let mut whole = BytesMut::with_capacity(packet.len() + 5);
        whole.put_u8(CONNECT);
        put_length(&mut whole, packet.len());
        whole.extend_from_slice(&packet);
        whole.freeze()
    }
}

/// A message.
#[derive(Clone, Debug)]
pub(super) struct Publish {
    pub(super) topic: String,
    /// 0, 1 or 2.
    pub(super) qos: u8,
    pub(super) retain: bool,
    /// For version 5; `None` for 3.1.1.
    pub(super) properties: Option<Properties>,
    pub(super) body: Bytes,
}

impl Publish {
    /// Everything before the body. `None` if the packet would be larger than the protocol allows.
    pub(super) fn head(&self, id: u16) -> Option<Bytes> {
        let length = self.length();
        if length > LARGEST_LENGTH {
            return None;
        }
        let mut head = BytesMut::with_capacity(length - self.body.len() + 5);
        head.put_u8(PUBLISH | self.qos << 1 | u8::from(self.retain));
        put_length(&mut head, length);
        put_text(&mut head, &self.topic);
        if self.qos > 0 {
            head.put_u16(id);
        }
        if let Some(Properties(properties)) = &self.properties {
            put_length(&mut head, properties.len());
            head.extend_from_slice(properties);
        }
        Some(head.freeze())
    }

    /// The bytes of the whole packet.
    pub(super) fn size(&self) -> usize {
        let length = self.length();
        1 + length_of_length(length) + length
    }

    fn length(&self) -> usize {
        let properties =
            self.properties.as_ref().map_or(0, |Properties(bytes)| length_of_length(bytes.len()) + bytes.len());
        2 + self.topic.len() + if self.qos > 0 { 2 } else { 0 } + properties + self.body.len()
    }
}

/// Properties of a message. Values that a packet cannot have are left out.
#[derive(Clone, Debug, Default)]
pub(super) struct Properties(BytesMut);

impl Properties {
    pub(super) fn content_type(&mut self, text: &str) {
        if is_string(text) {
            self.0.put_u8(CONTENT_TYPE);
            put_text(&mut self.0, text);
        }
    }

    pub(super) fn user(&mut self, name: &str, value: &str) {
        if is_string(name) && is_string(value) {
            self.0.put_u8(USER_PROPERTY);
            put_text(&mut self.0, name);
            put_text(&mut self.0, value);
        }
    }
}

/// The third packet of the four for a message with QoS 2.
pub(super) fn release(id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [PUBREL, 2, high, low]
}

/// A question for a sign of life.
pub(super) const PING: [u8; 2] = [PINGREQ, 0];

/// The last packet of a client.
pub(super) const FAREWELL: [u8; 2] = [DISCONNECT, 0];

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

/// Writes a text with its length. A longer one than [`is_string`] allows is cut, so that the packet stays a valid one.
fn put_text(packet: &mut BytesMut, text: &str) {
    let bytes = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
    packet.put_u16(bytes.len() as u16);
    packet.extend_from_slice(bytes);
}

/// Writes a variable byte integer (§1.5.5).
fn put_length(packet: &mut BytesMut, mut length: usize) {
    loop {
        let digit = (length % 128) as u8;
        length /= 128;
        if length == 0 {
            return packet.put_u8(digit);
        }
        packet.put_u8(digit | 0x80);
    }
}

fn length_of_length(length: usize) -> usize {
    match length {
        0..=127 => 1,
        128..=16_383 => 2,
        16_384..=2_097_151 => 3,
        _ => 4,
    }
}

/// A variable byte integer and its number of bytes; `None` if it is not complete.
fn read_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Violation> {
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

    /// The bytes follow the examples of the standard.
    #[test]
    fn a_client_greets_in_its_version() {
        let connect =
            |version| Connect { version, client_id: "c", user: Some("u"), password: Some("p"), keep_alive: 60 };
        let expected = b"\x10\x13\0\x04MQTT\x04\xc2\0\x3c\0\x01c\0\x01u\0\x01p";
        assert_eq!(&connect(Version::V4).encode()[..], expected);
        let expected = b"\x10\x19\0\x04MQTT\x05\xc2\0\x3c\x05\x27\0\x01\0\0\0\x01c\0\x01u\0\x01p";
        assert_eq!(&connect(Version::V5).encode()[..], expected);
        let bare = Connect { user: None, password: None, ..connect(Version::V4) };
        assert_eq!(&bare.encode()[..], b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01c");
    }

    #[test]
    fn a_message_has_its_id_only_with_an_acknowledgement() {
        let message = |qos| Publish { topic: "a/b".into(), qos, retain: false, properties: None, body: "xy".into() };
        assert_eq!(&message(0).head(7).unwrap()[..], b"\x30\x07\0\x03a/b");
        assert_eq!(&message(1).head(0x0102).unwrap()[..], b"\x32\x09\0\x03a/b\x01\x02");
        let mut properties = Properties::default();
        properties.content_type("t");
        properties.user("n", "v");
        properties.user("n", "a\tb");
        let with = Publish { retain: true, properties: Some(properties), ..message(2) };
        assert_eq!(&with.head(1).unwrap()[..], b"\x35\x15\0\x03a/b\0\x01\x0b\x03\0\x01t\x26\0\x01n\0\x01v");
        assert_eq!(with.size(), 2 + 0x15);
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

        #[test]
        fn a_head_says_how_long_its_packet_is(topic in "[a-z/]{1,200}", body in 0usize..20_000, qos in 0u8..3, is_5: bool) {
            let properties = is_5.then(Properties::default);
            let message = Publish { topic, qos, retain: false, properties, body: vec![0; body].into() };
            let head = message.head(1).unwrap();
            let (length, digits) = read_length(&head[1..]).unwrap().unwrap();
            prop_assert_eq!(1 + digits + length, head.len() + body);
            prop_assert_eq!(message.size(), head.len() + body);
        }

        #[test]
        fn texts_that_servers_refuse_are_not_sent(text in any::<String>()) {
            let refused = text.chars().any(|char| matches!(char, '\0'..='\x1f' | '\x7f'..='\u{9f}' | '\u{fdd0}'..='\u{fdef}' | '\u{fffe}'..='\u{ffff}'));
            prop_assert!(!refused || !is_string(&text));
        }
    }
}
