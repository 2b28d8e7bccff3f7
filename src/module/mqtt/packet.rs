//! The packets of MQTT 3.1.1 and 5, as far as a client needs them that only publishes.
//!
//! The two versions differ in the properties and reason codes of 5. "§" means a section of the OASIS standard of version 5.
//!
//! The packets are read and written here because the crate rumqttc-next hides what an acknowledgement depends on: it
//! chooses the packet's number itself, knows no reason code 0x95 (too large, which Mosquitto answers), and has one version of
//! the protocol in each crate.

/// The version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// 3.1.1
    V4,
    V5,
}

/// The largest packet that is read: a client that does not subscribe gets small ones only.
pub(super) const LARGEST_READ: usize = 64 << 10;

// The first byte of each packet (§2.1.2), with the flags that it must have.
pub(super) const CONNECT: u8 = 0x10;
pub(super) const CONNACK: u8 = 0x20;
pub(super) const PUBLISH: u8 = 0x30;
pub(super) const PUBACK: u8 = 0x40;
pub(super) const PUBREC: u8 = 0x50;
pub(super) const PUBREL: u8 = 0x62;
pub(super) const PUBCOMP: u8 = 0x70;
pub(super) const PINGREQ: u8 = 0xC0;
pub(super) const PINGRESP: u8 = 0xD0;
pub(super) const DISCONNECT: u8 = 0xE0;

// Properties (§2.2.2.2).
pub(super) const CONTENT_TYPE: u8 = 0x03;
pub(super) const SERVER_KEEP_ALIVE: u8 = 0x13;
pub(super) const REASON_STRING: u8 = 0x1F;
pub(super) const RECEIVE_MAXIMUM: u8 = 0x21;
pub(super) const MAXIMUM_QOS: u8 = 0x24;
pub(super) const RETAIN_AVAILABLE: u8 = 0x25;
pub(super) const USER_PROPERTY: u8 = 0x26;
pub(super) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
