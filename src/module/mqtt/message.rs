//! The content of a message.

use bytes::Bytes;

use super::config::{MqttConfig, MqttFormat};
use crate::event::Delivery;
use crate::module::broker::envelope;
use crate::module::forward::Forward;

/// How a message is made of an event.
#[derive(Debug)]
pub(super) enum Form {
    Body,
    /// `{"payload": …, "headers": {…}}`.
    Envelope,
    /// For Shelly devices of the second generation: `{"id": …, "source": "webhook", "params": {…}}`. The `id` is JSON.
    Shelly {
        id: String,
    },
    /// An object of JSON.
    Tasmota,
}

impl Form {
    pub(super) fn of(config: &MqttConfig) -> Self {
        match config.format {
            _ if config.shelly_gen2_format => {
                Self::Shelly { id: envelope::quoted(config.device_id.as_deref().unwrap_or("webhook")) }
            }
            _ if config.tasmota_format => Self::Tasmota,
            MqttFormat::Json | MqttFormat::Raw => Self::Body,
            MqttFormat::Envelope => Self::Envelope,
        }
    }

    pub(super) fn body(&self, delivery: &Delivery, forward: &Forward) -> Bytes {
        match self {
            Self::Body => delivery.body().clone(),
            Self::Envelope => envelope::json(delivery, forward).into(),
            Self::Shelly { id } => {
                let params = object(delivery);
                let parts = [br#"{"id":"#, id.as_bytes(), br#","source":"webhook","params":"#, &params, b"}"];
                parts.concat().into()
            }
            Self::Tasmota => object(delivery).into(),
        }
    }

    /// The content type, if it is not that of the event.
    pub(super) fn content_type(&self) -> Option<&'static str> {
        match self {
            Self::Body => None,
            Self::Envelope | Self::Shelly { .. } | Self::Tasmota => Some("application/json"),
        }
    }
}

/// The body if it is an object of JSON, or else an object with the body as its `data`.
fn object(delivery: &Delivery) -> Vec<u8> {
    let mut payload = Vec::with_capacity(delivery.body().len());
    envelope::payload(&mut payload, delivery.webhook().data_type(), delivery.body());
    match payload.trim_ascii_start().starts_with(b"{") {
        true => payload,
        false => [br#"{"data":"#, &*payload, b"}"].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DataType;
    use crate::module::broker::envelope::tests::delivery;
    use crate::module::broker::forward;

    fn body(config: &str, data_type: DataType, body: &'static [u8]) -> String {
        let form = Form::of(&serde_json::from_str(config).unwrap());
        let body = form.body(&delivery(data_type, &[], body), &forward(false, None).unwrap());
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[test]
    fn messages_are_those_of_the_service_before() {
        for (config, data_type, sent, expected) in [
            (r#"{"format": "json"}"#, DataType::Json, &b"{ \"a\" : 1 }"[..], r#"{ "a" : 1 }"#),
            (r#"{"format": "raw"}"#, DataType::Blob, b"x", "x"),
            (
                r#"{"shelly_gen2_format": true, "device_id": "d\"1"}"#,
                DataType::Json,
                b"{\"on\": true}",
                r#"{"id":"d\"1","source":"webhook","params":{"on": true}}"#,
            ),
            (
                r#"{"shelly_gen2_format": true}"#,
                DataType::Json,
                b"[1]",
                r#"{"id":"webhook","source":"webhook","params":{"data":[1]}}"#,
            ),
            (r#"{"tasmota_format": true}"#, DataType::Json, b" {\"POWER\": \"ON\"}", r#" {"POWER": "ON"}"#),
            (r#"{"tasmota_format": true}"#, DataType::Json, b"\"ON\"", r#"{"data":"ON"}"#),
            (r#"{"tasmota_format": true}"#, DataType::Form, b"a=1", r#"{"data":"a=1"}"#),
            (r#"{"tasmota_format": true}"#, DataType::Blob, b"{\0", r#"{"data":"ewA="}"#),
        ] {
            assert_eq!(body(config, data_type, sent), expected, "{config}");
        }
        let envelope = body(r#"{"format": "envelope"}"#, DataType::Json, b"{}");
        assert!(envelope.starts_with(r#"{"payload":{},"headers":{"x-event-id":"#), "{envelope}");
    }
}
