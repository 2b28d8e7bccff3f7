//! `websocket`: sends events to a target over WebSocket (RFC 6455).

mod config;
mod connection;
mod error;
mod session;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tokio::sync::OnceCell;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::protocol::Message;

pub use self::config::{WebSocketConfig, WebSocketConnectionConfig, WebSocketFormat};
pub use self::connection::{WebSocketClient, WebSocketConnection};
use self::session::Proof;
use super::broker::{self, envelope};
use super::connection::Shared;
use super::forward::Forward;
use super::{ConfigModule, Module};
use crate::config::{BuildContext, BuildError, DataType};
use crate::egress::Egress;
use crate::event::{Ack, DeliverError, DeliverErrorKind, Delivery};

/// The wait before an attempt tries again.
const WAIT: Duration = Duration::from_millis(100);

/// Sends each event as a message over an open WebSocket connection.
///
/// The protocol has no acknowledgement. With `wait_for_response` an event is delivered once the target has answered it
/// with a message; one event is on its way over a connection at a time, so that the answer is to this very event. Whatever
/// the message says, it counts; the target must send no other messages. Without it, an event is delivered once the
/// target's implementation of the protocol has read it: a ping follows each message, and the pong to it is waited for.
/// Nobody confirms then that the program behind it has got the event.
///
/// # The message
///
/// A text message with an object of JSON: `{"payload": …}`, where `payload` is the body of a `json` webhook byte for byte,
/// the text of a `form`, and for a `blob` its Base64, beside `"encoding": "base64"`. With `include_headers` there are also
/// `headers`: the received ones that are sent on, with names in lower case, and `x-event-id`, `x-namespace`, `x-webhook`
/// and `x-received-at`. With `"format": "raw"` the message is the body alone, without the event's id: a binary message for
/// a `blob`, and a text message otherwise.
///
/// # Errors
///
/// | cause | kind of error |
/// |---|---|
/// | no connection, or it broke or was closed before the event was known to have arrived | [`Connect`](DeliverErrorKind::Connect) |
/// | no answer within `timeout`; a target that accepts a connection and is silent | [`Timeout`](DeliverErrorKind::Timeout) |
/// | the handshake is answered 401, 403 or 407; the target closes with the code 3000 or 3003, or refuses the client's certificate | [`Auth`](DeliverErrorKind::Auth) |
/// | the handshake is answered by another status below 500; the code 1008 to one event; the policy allows no address | [`Config`](DeliverErrorKind::Config) |
/// | the status 429, or the code 1013 | [`Throttled`](DeliverErrorKind::Throttled) |
/// | a status of 500 or more, or the codes 1001, 1011 and 1012 | [`Unavailable`](DeliverErrorKind::Unavailable) |
/// | the codes 1003, 1007 and 1009 to one event | [`Permanent`](DeliverErrorKind::Permanent) |
///
/// If several events are on their way when the target closes the connection for one of them, each of them fails as
/// `Connect`, because nobody says which one it was.
///
/// # Repetitions
///
/// If an attempt ends without an answer, the event may have arrived, and another attempt sends it again.
#[derive(Clone)]
pub struct WebSocket {
    way: Way,
    target: Arc<Target>,
}

struct Target {
    proof: Proof,
    format: WebSocketFormat,
    include_headers: bool,
    forward: Forward,
    timeout: Duration,
    tries: u32,
}

/// The client that is used.
#[derive(Clone)]
enum Way {
    Connection(Shared<WebSocketConnection>),
    /// Of this webhook alone. The first delivery opens it.
    Own(Arc<(WebSocketConnection, OnceCell<WebSocketClient>)>),
}

impl WebSocket {
    /// Sends through the connection that the webhook names, or to the `url` through `egress`.
    ///
    /// # Errors
    ///
    /// When an option violates the rules in [`WebSocketConfig`], or the host is an address that the policy of `egress`
    /// refuses.
    pub fn new(egress: &Egress, config: WebSocketConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        let way = match (cx.optional_connection()?, config.connection()?) {
            (Some(_), Some(_)) => return Err("the webhook names a connection, so `url` must be left out".into()),
            (None, None) => {
                return Err("the module needs a target: `url`, or a `connection` of the type `websocket`".into());
            }
            (Some(connection), None) => Way::Connection(connection),
            (None, Some(own)) => Way::Own(Arc::new((WebSocketConnection::new(egress, own)?, OnceCell::new()))),
        };
        if !config.wait_for_response {
            cx.warn(
                "WebSocket has no acknowledgement: an event counts as delivered once the target's implementation of the \
                 protocol has read it; `wait_for_response` waits for a message of the target",
            );
        }
        let target = Target {
            proof: if config.wait_for_response { Proof::Response } else { Proof::Pong },
            format: config.format,
            include_headers: config.include_headers,
            forward: config.forward()?,
            timeout: config.limit()?,
            tries: config.tries()?,
        };
        Ok(Self { way, target: Arc::new(target) })
    }

    async fn send(&self, message: Message) -> Result<Ack, DeliverError> {
        let mut tries = 1;
        loop {
            let sent = match &self.way {
                Way::Connection(connection) => match connection.client().await {
                    Ok(client) => client.send(self.target.proof, message.clone()).await,
                    Err(error) => Err(error),
                },
                Way::Own(own) => {
                    let client = own.1.get_or_init(async || own.0.open()).await;
                    client.send(self.target.proof, message.clone()).await
                }
            };
            match sent {
                Ok(()) => return Ok(Ack::Delivered),
                Err(error) if error.kind() == DeliverErrorKind::Connect && tries < self.target.tries => {
                    tries += 1;
                    sleep(WAIT).await;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Module for WebSocket {
    async fn deliver(&self, delivery: Delivery) -> Result<Ack, DeliverError> {
        let limit = self.target.timeout;
        let message = self.target.message(&delivery)?;
        match timeout(limit, self.send(message)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(DeliverError::new(DeliverErrorKind::Timeout, format!("no answer within {limit:?}"))),
        }
    }

    fn target(&self) -> Option<String> {
        let connection = match &self.way {
            Way::Connection(connection) => connection.kind(),
            Way::Own(own) => &own.0,
        };
        Some(connection.shown().to_owned())
    }

    fn uses_header(&self, name: &HeaderName) -> bool {
        self.target.include_headers && broker::uses(&self.target.forward, name)
    }
}

impl ConfigModule for WebSocket {
    const NAME: &'static str = "websocket";
    type Config = WebSocketConfig;

    /// Connects to public addresses only, if the webhook names no connection.
    fn build(config: WebSocketConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        Self::new(&Egress::default(), config, cx)
    }
}

impl Target {
    fn message(&self, delivery: &Delivery) -> Result<Message, DeliverError> {
        let body = delivery.body();
        let text = match (self.format, delivery.webhook().data_type()) {
            (WebSocketFormat::Raw, DataType::Blob) => return Ok(Message::Binary(body.clone())),
            (WebSocketFormat::Raw, DataType::Json | DataType::Form) => String::from_utf8(body.to_vec()),
            (WebSocketFormat::Json, _) if self.include_headers => {
                String::from_utf8(envelope::json(delivery, &self.forward))
            }
            (WebSocketFormat::Json, _) => String::from_utf8(envelope::bare(delivery)),
        };
        // JSON is UTF-8, and forms are checked.
        text.map(Message::text).map_err(|_| DeliverError::new(DeliverErrorKind::Permanent, "the body is not UTF-8"))
    }
}

/// Omits everything that may name a credential.
impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").field("format", &self.target.format).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WebhookKey;
    use crate::module::broker::envelope::tests::delivery;

    fn build(json: &str) -> Result<WebSocket, String> {
        let webhook = WebhookKey::new("shop", "orders").unwrap();
        let egress = Egress::new("127.0.0.0/8".parse().unwrap());
        let config = serde_json::from_str(json).map_err(|error| error.to_string())?;
        WebSocket::new(&egress, config, &BuildContext::bare(&webhook)).map_err(|error| error.to_string())
    }

    #[test]
    fn messages_are_those_of_the_service_before() {
        for (json, data_type, body, expected) in [
            (
                r#"{"url": "ws://a"}"#,
                DataType::Json,
                &b"{ \"a\" : 1 }"[..],
                Message::text(r#"{"payload":{ "a" : 1 }}"#),
            ),
            (r#"{"url": "ws://a"}"#, DataType::Blob, b"\0", Message::text(r#"{"payload":"AA==","encoding":"base64"}"#)),
            (r#"{"url": "ws://a", "format": "raw"}"#, DataType::Json, b"{ }", Message::text("{ }")),
            (r#"{"url": "ws://a", "format": "raw"}"#, DataType::Blob, b"\0\xff", Message::binary(&b"\0\xff"[..])),
        ] {
            let message = build(json).unwrap().target.message(&delivery(data_type, &[], body)).unwrap();
            assert_eq!(message, expected, "{json}");
        }
        let with = build(r#"{"url": "ws://a", "include_headers": true}"#).unwrap();
        let event = delivery(DataType::Json, &[("x-a", "1"), ("cookie", "s3cret")], b"{}");
        let message = with.target.message(&event).unwrap().into_text().unwrap();
        assert!(message.contains(r#""x-a":"1""#) && message.contains(&event.id().to_string()), "{message}");
        assert!(!message.contains("s3cret"));
    }

    #[test]
    fn a_webhook_has_one_target() {
        assert!(build("{}").unwrap_err().contains("needs a target"));
        assert!(build(r#"{"url": "ws://10.0.0.1"}"#).unwrap_err().contains("names a private address"));
    }
}
