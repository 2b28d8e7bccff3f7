//! Packets of the client.

use bytes::{BufMut, Bytes, BytesMut};

use super::packet::{
    CONNECT, CONTENT_TYPE, DISCONNECT, LARGEST_READ, MAXIMUM_PACKET_SIZE, PINGREQ, PUBLISH, PUBREL, USER_PROPERTY,
    Version,
};

/// The largest remaining length (§1.5.5).
const LARGEST_LENGTH: usize = 268_435_455;

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

/// Whether a packet of MQTT can have this text (§1.5.4). Servers close the connection for control characters as well,
/// although they only may.
pub(super) fn is_string(text: &str) -> bool {
    let is_noncharacter = |char: char| {
        let code = u32::from(char);
        (0xFDD0..=0xFDEF).contains(&code) || code & 0xFFFE == 0xFFFE
    };
    text.len() <= usize::from(u16::MAX) && !text.chars().any(|char| char.is_control() || is_noncharacter(char))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::incoming::read_length;
    use super::*;

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

    proptest! {
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
