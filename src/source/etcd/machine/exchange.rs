//! What goes into the machine and what comes out.

use std::time::Duration;

use bytes::Bytes;

use super::known::{Known, Meta, Revision};
use crate::store::{ErrorKind, ListReason};

/// Time since the driver began. Monotonic.
pub(in crate::source::etcd) type Time = Duration;

/// What happened.
#[derive(Debug)]
pub(in crate::source::etcd) enum Input {
    /// Begin.
    Start,
    /// The wait is over.
    Woke,
    /// A connection stands and a linearizable read came back, with what was asked about the past.
    Connected(Header, Past),
    /// One page of the list.
    Page(Page),
    /// The watch has been created, at this revision of etcd.
    Opened { revision: Revision },
    /// The watch says something.
    Message(Message),
    /// The proof came back.
    Proof(Proof),
    /// The look at where etcd is came back.
    Looked(Look),
    /// One page of the audit came back.
    Audited(AuditPage),
    /// Somebody waits for a proof.
    Wanted,
    /// A moment went by.
    Tick,
    /// Something broke.
    Fault(Fault),
}

/// The header of an answer to a linearizable read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::source::etcd) struct Header {
    pub(in crate::source::etcd) cluster: u64,
    pub(in crate::source::etcd) term: u64,
    pub(in crate::source::etcd) revision: Revision,
}

/// What a revision of the past looks like to etcd now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::source::etcd) enum Past {
    /// It was not asked for, or it has been compacted.
    Unknown,
    /// etcd has not come that far.
    Future,
    /// How many keys there were, and one that had changed at or after the revision that was asked about.
    Known { keys: i64, changed: Option<(Vec<u8>, Meta)> },
}

/// A place in the past to ask about: what there was at `at`, and what of it had changed at or after `newest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::source::etcd) struct Memory {
    pub(in crate::source::etcd) at: Revision,
    pub(in crate::source::etcd) newest: Revision,
    /// How many keys are known: to look at all of them takes etcd its time.
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
    /// etcd has ended the watch: looked at before all else.
    pub(in crate::source::etcd) canceled: Option<Fault>,
    pub(in crate::source::etcd) events: Vec<Event>,
    /// The last revision is not complete: more of it is to come.
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
    /// What is known of the key after this event, unless it is gone.
    pub(in crate::source::etcd) fn meta(&self) -> Option<Meta> {
        let put = self.put.as_ref()?;
        Some(Meta { version: put.version, created: put.created, modified: self.revision })
    }
}

/// Where etcd is.
#[derive(Debug)]
pub(in crate::source::etcd) struct Look {
    pub(in crate::source::etcd) header: Header,
    /// All keys under the prefix.
    pub(in crate::source::etcd) total: i64,
    /// Where we were when it was asked for.
    pub(in crate::source::etcd) after: Revision,
}

#[derive(Debug)]
pub(in crate::source::etcd) struct Proof {
    pub(in crate::source::etcd) header: Header,
    /// Keys that changed after `since`.
    pub(in crate::source::etcd) changed: Vec<(Vec<u8>, Meta)>,
    /// Whether there are more of them.
    pub(in crate::source::etcd) more: bool,
    /// All keys under the prefix.
    pub(in crate::source::etcd) total: i64,
    /// The revision that was asked about.
    pub(in crate::source::etcd) since: Revision,
    /// Where we were when it was asked for.
    pub(in crate::source::etcd) after: Revision,
}

impl Proof {
    /// Whether any key changed after where we were; also if that is not known.
    pub(in crate::source::etcd) fn has_news(&self) -> bool {
        self.more || self.changed.iter().any(|(_, meta)| meta.modified > self.after)
    }

    /// Whether it says nothing of news because there were too many keys that had changed before.
    pub(in crate::source::etcd) fn is_cut_short(&self) -> bool {
        self.more && self.since < self.after
    }
}

/// Keys with their values' digests, at the revision that was asked for.
#[derive(Debug)]
pub(in crate::source::etcd) enum AuditPage {
    Keys {
        keys: Vec<(Vec<u8>, Known)>,
        /// How much the keys and values take.
        bytes: usize,
        more: bool,
    },
    /// The revision has been compacted meanwhile.
    Compacted,
    /// It is too large, or takes too long.
    Unwieldy(Fault),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::source::etcd) struct Fault {
    pub(in crate::source::etcd) kind: ErrorKind,
    pub(in crate::source::etcd) reason: String,
}

/// What to do. Commands are done in order; at most one of a step's commands leads to a later input of its own
/// (`Connect`, `List`, `Watch`, `Look`, `Prove`, `Audit`, `Wait`).
#[derive(Debug, PartialEq, Eq)]
pub(in crate::source::etcd) enum Command {
    /// Give up every connection.
    Close,
    /// Wake up after this time.
    Wait(Duration),
    /// Connect to this endpoint, authenticate, and do a linearizable read, of the past if there is one.
    Connect { endpoint: usize, memory: Option<Memory> },
    /// Read a page: at a revision, or at the newest; after a key, or from the first.
    List { at: Option<Revision>, after: Option<Vec<u8>>, limit: i64 },
    /// Open a watch.
    Watch { from: Revision },
    /// Ask the watch for its progress.
    AskProgress,
    /// Ask where etcd is and how many keys there are: none is read. `after` is where we are.
    Look { after: Revision },
    /// Ask which keys changed after the revision `since`, and how many keys there are. etcd looks at every key. `after` is
    /// where we are.
    Prove { since: Revision, after: Revision },
    /// Ask for a page of keys and values at a revision, after a key or from the first.
    Audit { at: Revision, after: Option<Vec<u8>>, limit: i64 },

    /// A list begins.
    Begin(ListReason),
    /// These belong to the list.
    Bring(Vec<Entry>),
    /// The list is complete: publish it.
    Commit(Header),
    /// What was published before is of another history than what is published next.
    NewEpoch,
    /// Publish these changes at once.
    Apply { revision: Revision, events: Vec<Event> },
    /// Nothing else has changed up to here.
    Advance(Revision),
    /// What is published was current at this time: when the proof was asked for.
    Proven { asked: Time },
    /// Every key and value was compared and found as known.
    AuditHeld,
    /// A key or a value was compared and is not as known.
    AuditDiffers,
    /// Every change is followed.
    Live,
    /// The watch is silent.
    Stale,
    /// Changes are not seen at present.
    Disconnected(Fault),
}
