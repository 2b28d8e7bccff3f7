//! What the layers, the worker and operators report.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use crate::config::{DataType, WebhookKey};
use crate::event::{Answer, DeliverErrorKind, EventId};

/// Something that happened to an event.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A request reached a webhook, and was answered.
    Received(Box<Received>),
    /// A module was tried.
    Attempt(Box<Attempt>),
    /// An operator did something with the event.
    Action(Box<Action>),
}

/// What became of an event so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// Every module has taken it.
    Delivered,
    /// It was accepted, and is yet to be delivered.
    Waiting,
    /// No module will be tried again: its sender got an error, or it is a dead letter.
    Failed,
    /// It was refused before any module was tried.
    Refused,
    /// There was nothing to deliver: a duplicate, or a challenge.
    Skipped,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 5] = [Self::Delivered, Self::Waiting, Self::Failed, Self::Refused, Self::Skipped];

    /// The name of the outcome.
    pub fn label(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Skipped => "skipped",
        }
    }
}

/// How much of an event is kept: the key `history` of its webhook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kept {
    /// Everything, without secrets: also the head and the beginning of the body.
    #[default]
    Full,
    /// Everything but the head and the body.
    Metadata,
    /// Nothing.
    None,
}

/// A request that reached a webhook, once it was answered.
///
/// The head and the body are as received: the [`Backend`](super::Backend) removes what must not be kept.
#[derive(Clone, Debug)]
pub struct Received {
    /// The event's id. A refused request has one of its own.
    pub id: EventId,
    /// When the request's head had been received.
    pub at: SystemTime,
    /// The webhook.
    pub webhook: WebhookKey,
    /// The webhook's module; the first one of a chain.
    pub module: Arc<str>,
    /// The type of the webhook's bodies.
    pub data_type: DataType,
    /// The revision of the configuration that the request was answered by.
    pub revision: u64,
    /// Whether the webhook answers once the event is in the queue.
    pub is_accepted: bool,
    /// The client's address.
    pub peer: Option<IpAddr>,
    /// The request's method.
    pub method: Method,
    /// The request's path, without its query.
    pub path: Box<str>,
    /// The request's header fields; empty if the webhook keeps metadata only. The value of a field that a guard reads a
    /// credential or a signature from must be [`REDACTED`](crate::request::REDACTED), unless the field's name says that it
    /// is secret, as `Authorization` and `X-Api-Key` do.
    pub headers: HeaderMap,
    /// The body.
    pub body: Body,
    /// The outcome so far.
    pub outcome: Outcome,
    /// The answer's status.
    pub status: StatusCode,
    /// The time from the head of the request to the answer.
    pub duration: Duration,
    /// The label of a refusal or of an error, such as `unauthenticated`, `duplicate`, or `connect`.
    pub kind: Option<&'static str>,
    /// The reason of a refusal or an error, for an operator.
    pub reason: Option<Box<str>>,
    /// The result of `dedup`, if the webhook has it and the request reached it.
    pub dedup: Option<Dedup>,
    /// The guards that have several secrets, and the position of the one that fits, counted from 1.
    pub secrets: Vec<(&'static str, u8)>,
    /// The parts of the request's way, in order.
    pub steps: Vec<Step>,
}

/// The body of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// It was not read, or is not to be kept: the length that the request announced, or that was read, in bytes.
    Left(u64),
    /// It was read as a whole.
    Whole(Bytes),
    /// The beginning of a body of this many bytes.
    Beginning(Bytes, u64),
}

impl Body {
    /// The length of the whole body, in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::Left(size) | Self::Beginning(_, size) => *size,
            Self::Whole(bytes) => bytes.len() as u64,
        }
    }
}

/// The result of `dedup`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dedup {
    /// The event had not come before.
    First,
    /// The event had been taken before.
    Duplicate,
}

/// A part of a request's way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The name, such as `lookup`, `guards`, `body`, `signature`, `dedup`, `queue` or `module`.
    pub name: &'static str,
    /// The time from the head of the request to the step's beginning.
    pub at: Duration,
    /// How long it took.
    pub duration: Duration,
}

/// One attempt of a module.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The event.
    pub event: EventId,
    /// The webhook.
    pub webhook: WebhookKey,
    /// The number of the attempt, counted from 1.
    pub number: u32,
    /// When it began.
    pub at: SystemTime,
    /// How long it took.
    pub duration: Duration,
    /// The module.
    pub module: Arc<str>,
    /// The position in a chain, counted from 0.
    pub item: Option<u32>,
    /// The error.
    pub error: Option<(DeliverErrorKind, Box<str>)>,
    /// What the target answered, if it is a target that answers.
    pub answer: Option<Answer>,
    /// The outcome of the event after the attempt.
    pub outcome: Outcome,
    /// When the next attempt is due.
    pub next: Option<SystemTime>,
}

/// Something that an operator did with an event.
#[derive(Clone, Debug)]
pub struct Action {
    /// The event.
    pub event: EventId,
    /// When.
    pub at: SystemTime,
    /// What, such as `replay`, `retry` or `drop`.
    pub what: &'static str,
    /// The name of the operator's token.
    pub by: Box<str>,
    /// The outcome of the event afterwards; `None` if it is as before.
    pub outcome: Option<Outcome>,
}
