//! The inputs and the commands of the machine.

use std::time::Duration;

use bytes::Bytes;

use super::known::{Known, Meta, Revision};
use crate::store::{ErrorKind, ListReason};

/// The monotonic time since the driver started.
pub(in crate::source::etcd) type Time = Duration;

/// An input: something that happened.
#[derive(Debug)]
pub(in crate::source::etcd) enum Input {
    /// The driver has started.
    Start,
    /// The wait is over.
    Woke,
    /// A connection was made, and the linearizable read succeeded, with etcd's answer about the past.
    Connected(Header, Past),
    /// A page of the list.
    Page(Page),
    /// The watch has been created, at this revision of etcd.
    Opened { revision: Revision },
    /// A message from the watch.
    Message(Message),
    /// The answer to a proof.
    Proof(Proof),
    /// The answer to a look.
    Looked(Look),
    /// A page of the audit.
    Audited(AuditPage),
    /// A reader waits for a proof.
    Wanted,
    /// Time has passed.
    Tick,
    /// An operation has failed.
    Fault(Fault),
}

/// The header of an answer to a linearizable read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::source::etcd) struct Header {
    pub(in crate::source::etcd) cluster: u64,
    pub(in crate::source::etcd) term: u64,
    pub(in crate::source::etcd) revision: Revision,
}

/// etcd's present view of a past revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::source::etcd) enum Past {
    /// The revision was not asked for, or has been compacted.
    Unknown,
    /// etcd has not reached the revision yet.
    Future,
    /// The number of keys at the revision, and one key that had changed at or after the revision `newest` of the
    /// question.
    Known { keys: i64, changed: Option<(Vec<u8>, Meta)> },
}

/// A question about the past: the keys at the revision `at`, and one of them that had changed at or after `newest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::source::etcd) struct Memory {
    pub(in crate::source::etcd) at: Revision,
    pub(in crate::source::etcd) newest: Revision,
    /// The number of known keys: etcd looks at all of them, which takes time.
    pub(in crate::source::etcd) keys: i64,
}

#[derive(Debug)]
pub(in crate::source::etcd) struct Page {
    pub(in crate::source::etcd) header: Header,
    pub(in crate::source::etcd) entries: Vec<Entry>,
    pub(in crate::source::etcd) more: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::source::etcd) struct Entry {
    pub(in crate::source::etcd) key: Vec<u8>,
    pub(in crate::source::etcd) value: Bytes,
    pub(in crate::source::etcd) meta: Meta,
}

#[derive(Debug, Default)]
pub(in crate::source::etcd) struct Message {
    /// etcd has ended the watch: checked before everything else.
    pub(in crate::source::etcd) canceled: Option<Fault>,
    pub(in crate::source::etcd) events: Vec<Event>,
    /// The last revision is incomplete: more of it follows.
    pub(in crate::source::etcd) fragment: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::source::etcd) struct Event {
    pub(in crate::source::etcd) key: Vec<u8>,
    pub(in crate::source::etcd) revision: Revision,
    /// `None` when the key was deleted.
    pub(in crate::source::etcd) put: Option<Put>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::source::etcd) struct Put {
    pub(in crate::source::etcd) value: Bytes,
    pub(in crate::source::etcd) version: i64,
    pub(in crate::source::etcd) created: Revision,
}

impl Event {
    /// The metadata of the key after this event; `None` if it was deleted.
    pub(in crate::source::etcd) fn meta(&self) -> Option<Meta> {
        let put = self.put.as_ref()?;
        Some(Meta { version: put.version, created: put.created, modified: self.revision })
    }
}

/// etcd's current revision and number of keys.
#[derive(Debug)]
pub(in crate::source::etcd) struct Look {
    pub(in crate::source::etcd) header: Header,
    /// The number of keys under the prefix.
    pub(in crate::source::etcd) total: i64,
    /// The revision that was applied when the question was asked.
    pub(in crate::source::etcd) after: Revision,
}

#[derive(Debug)]
pub(in crate::source::etcd) struct Proof {
    pub(in crate::source::etcd) header: Header,
    /// Keys that changed after `since`.
    pub(in crate::source::etcd) changed: Vec<(Vec<u8>, Meta)>,
    /// Whether there are more of such keys.
    pub(in crate::source::etcd) more: bool,
    /// The number of keys under the prefix.
    pub(in crate::source::etcd) total: i64,
    /// The revision that was asked about.
    pub(in crate::source::etcd) since: Revision,
    /// The revision that was applied when the question was asked.
    pub(in crate::source::etcd) after: Revision,
}

impl Proof {
    /// Whether any key changed after the applied revision, or the answer leaves that open.
    pub(in crate::source::etcd) fn has_news(&self) -> bool {
        self.more || self.changed.iter().any(|(_, meta)| meta.modified > self.after)
    }

    /// Whether the answer names no newer change only because too many older changes filled it.
    pub(in crate::source::etcd) fn is_cut_short(&self) -> bool {
        self.more && self.since < self.after
    }
}

/// Keys with the digests of their values, at the requested revision.
#[derive(Debug)]
pub(in crate::source::etcd) enum AuditPage {
    Keys {
        keys: Vec<(Vec<u8>, Known)>,
        /// The total length of the keys and values.
        bytes: usize,
        more: bool,
    },
    /// The revision has been compacted meanwhile.
    Compacted,
    /// The page is too large, or takes too long.
    Unwieldy(Fault),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::source::etcd) struct Fault {
    pub(in crate::source::etcd) kind: ErrorKind,
    pub(in crate::source::etcd) reason: String,
}

/// Commands for the driver. They are executed in order. At most one command of a step leads to a later input of its own
/// (`Connect`, `List`, `Watch`, `Look`, `Prove`, `Audit`, `Wait`).
#[derive(Debug, PartialEq, Eq)]
pub(in crate::source::etcd) enum Command {
    /// Close every connection.
    Close,
    /// Wake the machine after this time.
    Wait(Duration),
    /// Connect to this endpoint, authenticate, and do a linearizable read, which includes `memory` if there is one.
    Connect { endpoint: usize, memory: Option<Memory> },
    /// Read a page, at a revision or the newest one, after a key or from the start.
    List { at: Option<Revision>, after: Option<Vec<u8>>, limit: i64 },
    /// Open a watch.
    Watch { from: Revision },
    /// Ask the watch for its progress.
    AskProgress,
    /// Ask for etcd's revision and its number of keys, without reading any. `after` is the applied revision.
    Look { after: Revision },
    /// Ask which keys changed after the revision `since`, and how many keys there are. etcd looks at every key. `after`
    /// is the applied revision.
    Prove { since: Revision, after: Revision },
    /// Read a page of keys and values at a revision, after a key or from the start.
    Audit { at: Revision, after: Option<Vec<u8>>, limit: i64 },

    /// Start a list.
    Begin(ListReason),
    /// Add these entries to the list.
    Bring(Vec<Entry>),
    /// Publish the complete list.
    Commit(Header),
    /// The next list belongs to another history than the published configuration.
    NewEpoch,
    /// Publish these changes at once.
    Apply { revision: Revision, events: Vec<Event> },
    /// Nothing else has changed up to this revision.
    Advance(Revision),
    /// The published configuration was current at this time, when the proof was requested.
    Proven { asked: Time },
    /// The audit has compared every key and value, and found no difference.
    AuditHeld,
    /// The audit has found a difference.
    AuditDiffers,
    /// Every change is followed.
    Live,
    /// The watch is silent.
    Stale,
    /// Changes are currently not seen.
    Disconnected(Fault),
}
