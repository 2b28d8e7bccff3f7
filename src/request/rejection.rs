//! Refusals: all kinds, and the one table from kind to status.
//!
//! A layer that refuses answers with a response whose body is `ResBody::default()`, and puts the [`Rejection`] into
//! the response's extensions. An outer layer can distinguish the kinds there, and render a body of its own;
//! [`ProblemJsonLayer`](crate::layers::ProblemJsonLayer) renders RFC 9457.

use std::borrow::Cow;
use std::fmt;
use std::sync::LazyLock;

use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::missing::Missing;
use crate::base::log_limit::LogLimit;

/// The refusal of a request. It never contains any part of a credential or of a body.
#[derive(Clone, Debug)]
pub struct Rejection {
    kind: RejectionKind,
    detail: Cow<'static, str>,
    /// The value of the header field that belongs to the status: `WWW-Authenticate` for 401, `Allow` for 405.
    value: Option<HeaderValue>,
    /// The guard that refused, and its reason. The sender does not get them.
    reason: Option<(&'static str, &'static str)>,
    /// Whether a line in the log reports the refusal already.
    is_logged: bool,
}

impl Rejection {
    /// A refusal with the kind's own text.
    pub fn new(kind: RejectionKind) -> Self {
        Self { kind, detail: Cow::Borrowed(kind.row().detail), value: None, reason: None, is_logged: false }
    }

    /// A refusal with a text for the sender. Strangers can read the text.
    pub fn with_detail(kind: RejectionKind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { detail: detail.into(), ..Self::new(kind) }
    }

    /// A 401 that says how to authenticate (RFC 9110 §11.6.1).
    pub fn unauthenticated(challenge: HeaderValue) -> Self {
        Self { value: Some(challenge), ..Self::new(RejectionKind::Unauthenticated) }
    }

    /// The same refusal, of a method: these are allowed.
    pub(crate) fn allowing(self, methods: HeaderValue) -> Self {
        Self { value: Some(methods), ..self }
    }

    /// A layer finds that a part of the stack is missing that it needs. Always a 500, never a pass.
    pub(crate) fn misassembled(missing: Missing) -> Self {
        static LINES: LazyLock<LogLimit<Missing>> = LazyLock::new(LogLimit::default);
        if let Some(left_out) = LINES.admit(missing) {
            let left_out = (left_out > 0).then_some(left_out);
            let cure = missing.cure();
            tracing::error!(?missing, left_out, "the stack is wrongly assembled, so requests get 500: {cure}");
        }
        Self::new(RejectionKind::Misassembled).logged()
    }

    /// Adds the guard that refused and its reason, for operators. The sender does not get them.
    pub(crate) fn because(self, guard: &'static str, reason: &'static str) -> Self {
        Self { reason: Some((guard, reason)), ..self }
    }

    /// The guard that refused, if one did.
    pub(crate) fn guard(&self) -> Option<&'static str> {
        self.reason.map(|(guard, _)| guard)
    }

    /// The reason for a line in the log: the guard's, or else the text that the sender gets.
    pub(crate) fn reason(&self) -> &str {
        self.reason.map_or(&self.detail, |(_, reason)| reason)
    }

    /// Marks the refusal as logged, so that it is not logged again.
    pub(crate) fn logged(self) -> Self {
        Self { is_logged: true, ..self }
    }

    /// Whether a line in the log reports the refusal already.
    pub(crate) fn is_logged(&self) -> bool {
        self.is_logged
    }

    /// The kind of the refusal.
    pub fn kind(&self) -> RejectionKind {
        self.kind
    }

    /// The text that the sender gets.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// Whether the text is the kind's own.
    pub(crate) fn is_plain(&self) -> bool {
        self.detail == self.kind.row().detail
    }

    /// The refusal as a response: status, headers, an empty body and the `Rejection` itself in the extensions.
    ///
    /// Each refusal is logged here at DEBUG, with the target `tower_webhook::rejection`; [`Observe`](crate::layers::Observe) logs
    /// at INFO, limited in rate, with the webhook and the peer.
    pub fn into_response<B: Default>(self) -> Response<B> {
        tracing::debug!(target: "tower_webhook::rejection", kind = self.kind.label(), reason = self.reason(), "refused");
        let mut response = Response::new(B::default());
        *response.status_mut() = self.kind.status();
        if let Some((name, value)) = self.kind.header() {
            response.headers_mut().insert(name, value);
        }
        if let Some(value) = &self.value {
            let name =
                if self.kind == RejectionKind::MethodNotAllowed { header::ALLOW } else { header::WWW_AUTHENTICATE };
            response.headers_mut().insert(name, value.clone());
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<RejectionKind> for Rejection {
    fn from(kind: RejectionKind) -> Self {
        Self::new(kind)
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Rejection {}

/// The kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RejectionKind {
    /// The path has neither the form `/{id}` nor `/{namespace}/{id}`.
    NoRoute,
    /// The namespace or the id breaks the rules for names.
    InvalidName,
    /// There is no such webhook.
    UnknownWebhook,
    /// A webhook is received by POST.
    MethodNotAllowed,
    /// No configuration has been loaded yet.
    NotReady,
    /// The webhook exists, but has never had a valid configuration.
    Misconfigured,
    /// No credential, or a wrong one.
    Unauthenticated,
    /// The sender is known, and may not send here.
    Forbidden,
    /// The credential cannot be verified now; the sender should try again.
    AuthUnavailable,
    /// The body is, or announces to be, over the limit.
    BodyTooLarge,
    /// The body did not arrive in time.
    BodyTimeout,
    /// The connection ended before the body did.
    BodyIncomplete,
    /// There is no memory for the body now; the sender should try again.
    MemoryFull,
    /// The body is encoded (compressed), which is not supported.
    UnsupportedEncoding,
    /// The body's `Content-Type` is not one that the webhook accepts.
    UnexpectedContentType,
    /// The body does not match the webhook's `data_type`.
    MalformedPayload,
    /// The webhook has a `dedup` rule, and the event has no usable id.
    MissingEventId,
    /// A challenge of the webhook's handshake that cannot be answered.
    MalformedChallenge,
    /// The same event is being processed; the sender should try again.
    InProgress,
    /// The module could not deliver; the sender should try again.
    DeliveryFailed,
    /// The module cannot take events now; the sender should try again.
    DeliveryUnavailable,
    /// The module did not answer in time; the sender should try again.
    DeliveryTimeout,
    /// The event has passed too many webhooks.
    LoopDetected,
    /// Too many events of the webhook or its namespace are under way; the sender should try again.
    Crowded,
    /// There is no room for the event; the sender should try again.
    QueueFull,
    /// The event cannot be written to disk; the sender should try again.
    QueueFailed,
    /// A layer is missing from the stack. The server's own fault.
    // The last one: see `COUNT`.
    Misassembled,
}

/// A row of the table.
struct Row {
    status: StatusCode,
    label: &'static str,
    detail: &'static str,
}

impl RejectionKind {
    /// The number of kinds.
    pub(crate) const COUNT: usize = Self::Misassembled as usize + 1;

    /// Each of them.
    #[cfg(test)]
    pub(crate) const ALL: [Self; Self::COUNT] = [
        Self::NoRoute,
        Self::InvalidName,
        Self::UnknownWebhook,
        Self::MethodNotAllowed,
        Self::NotReady,
        Self::Misconfigured,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::AuthUnavailable,
        Self::BodyTooLarge,
        Self::BodyTimeout,
        Self::BodyIncomplete,
        Self::MemoryFull,
        Self::UnsupportedEncoding,
        Self::UnexpectedContentType,
        Self::MalformedPayload,
        Self::MissingEventId,
        Self::MalformedChallenge,
        Self::InProgress,
        Self::DeliveryFailed,
        Self::DeliveryUnavailable,
        Self::DeliveryTimeout,
        Self::LoopDetected,
        Self::Crowded,
        Self::QueueFull,
        Self::QueueFailed,
        Self::Misassembled,
    ];

    /// The table.
    fn row(self) -> Row {
        use StatusCode as S;
        let (status, label, detail) = match self {
            Self::NoRoute => (S::NOT_FOUND, "no_route", "Not Found"),
            Self::InvalidName => (S::BAD_REQUEST, "invalid_name", "Invalid namespace or webhook ID"),
            Self::UnknownWebhook => (S::NOT_FOUND, "unknown_webhook", "Webhook ID not found"),
            Self::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "method_not_allowed", "Method Not Allowed"),
            Self::NotReady => (S::SERVICE_UNAVAILABLE, "not_ready", "No configuration has been loaded yet"),
            Self::Misconfigured => (S::SERVICE_UNAVAILABLE, "misconfigured", "This webhook's configuration is invalid"),
            Self::Unauthenticated => (S::UNAUTHORIZED, "unauthenticated", "Unauthorized"),
            Self::Forbidden => (S::FORBIDDEN, "forbidden", "Forbidden"),
            Self::AuthUnavailable => {
                (S::SERVICE_UNAVAILABLE, "auth_unavailable", "The credential cannot be verified now")
            }
            Self::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, "body_too_large", "Payload too large"),
            Self::BodyTimeout => (S::REQUEST_TIMEOUT, "body_timeout", "The body did not arrive in time"),
            Self::BodyIncomplete => (S::BAD_REQUEST, "body_incomplete", "The body could not be read to its end"),
            Self::MemoryFull => (S::SERVICE_UNAVAILABLE, "memory_full", "There is no memory for the body now"),
            Self::UnsupportedEncoding => {
                (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", "Content-Encoding is not supported")
            }
            Self::UnexpectedContentType => {
                (S::UNSUPPORTED_MEDIA_TYPE, "unexpected_content_type", "Content-Type is not supported")
            }
            Self::MalformedPayload => (S::BAD_REQUEST, "malformed_payload", "Malformed payload"),
            Self::MalformedChallenge => (S::BAD_REQUEST, "malformed_challenge", "Malformed challenge"),
            Self::MissingEventId => (S::BAD_REQUEST, "missing_event_id", "The event has no id"),
            Self::InProgress => (S::CONFLICT, "in_progress", "This event is being processed"),
            Self::DeliveryFailed => (S::BAD_GATEWAY, "delivery_failed", "The event could not be delivered"),
            Self::DeliveryUnavailable => {
                (S::SERVICE_UNAVAILABLE, "delivery_unavailable", "The event cannot be taken now")
            }
            Self::DeliveryTimeout => (S::GATEWAY_TIMEOUT, "delivery_timeout", "The event was not delivered in time"),
            Self::LoopDetected => (S::LOOP_DETECTED, "loop_detected", "The event has passed too many webhooks"),
            Self::Crowded => (S::SERVICE_UNAVAILABLE, "crowded", "Too many events are being delivered now"),
            Self::QueueFull => (S::SERVICE_UNAVAILABLE, "queue_full", "There is no room for the event now"),
            Self::QueueFailed => (S::SERVICE_UNAVAILABLE, "queue_failed", "The event cannot be stored now"),
            Self::Misassembled => (S::INTERNAL_SERVER_ERROR, "misassembled", "Internal Server Error"),
        };
        Row { status, label, detail }
    }

    /// The response's status.
    pub fn status(self) -> StatusCode {
        self.row().status
    }

    /// A short, stable word for logs and metric labels.
    pub fn label(self) -> &'static str {
        self.row().label
    }

    /// The header that goes with the status: `Allow` for 405 (RFC 9110 §15.5.6), `Retry-After` in seconds for 409 and 503.
    fn header(self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::MethodNotAllowed => Some((header::ALLOW, HeaderValue::from_static("POST"))),
            Self::AuthUnavailable | Self::Crowded | Self::MemoryFull => {
                Some((header::RETRY_AFTER, HeaderValue::from_static("5")))
            }
            Self::QueueFull => Some((header::RETRY_AFTER, HeaderValue::from_static("10"))),
            Self::NotReady | Self::DeliveryUnavailable | Self::QueueFailed => {
                Some((header::RETRY_AFTER, HeaderValue::from_static("1")))
            }
            Self::InProgress => Some((header::RETRY_AFTER, HeaderValue::from_static("5"))),
            Self::Misconfigured => Some((header::RETRY_AFTER, HeaderValue::from_static("60"))),
            _ => None,
        }
    }
}
