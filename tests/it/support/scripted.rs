//! Modules that follow a script in the configuration, and a journal of their calls.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Deserialize;
use tokio::time::sleep;
use tower_webhook::Registry;
use tower_webhook::event::{Ack, DeliverError, DeliverErrorKind, Delivery};
use tower_webhook::module::Module;

/// The calls, in order: `name` when a module started, `name!` when it failed, `name.` when it took the event.
#[derive(Clone, Default)]
pub(crate) struct Journal {
    lines: Arc<Mutex<Vec<String>>>,
    deliveries: Arc<Mutex<Vec<Delivery>>>,
}

impl Journal {
    /// The built-in registry with the module `scripted`.
    pub(crate) fn registry(&self) -> Registry {
        let journal = self.clone();
        Registry::builtin().module_fn("scripted", move |script: Script, _| {
            Ok(Scripted { script, calls: AtomicU32::new(0), journal: journal.clone() })
        })
    }

    /// The calls since the last time.
    pub(crate) fn take(&self) -> String {
        std::mem::take(&mut *self.lines.lock().unwrap()).join(" ")
    }

    /// The deliveries that modules were given, in order.
    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        self.deliveries.lock().unwrap().clone()
    }

    fn note(&self, name: &str, mark: &str) {
        self.lines.lock().unwrap().push(format!("{name}{mark}"));
    }
}

#[derive(Deserialize)]
#[serde(default)]
pub(crate) struct Script {
    name: String,
    /// How many times it fails before it takes an event.
    fails: u32,
    /// The kind of error with which it fails.
    kind: String,
    /// How long it takes either way, in milliseconds.
    takes: u64,
    /// The wait that the target asks for, in seconds.
    retry_after: Option<u64>,
}

impl Default for Script {
    fn default() -> Self {
        Self { name: "a".into(), fails: 0, kind: "connect".into(), takes: 0, retry_after: None }
    }
}

pub(crate) struct Scripted {
    script: Script,
    calls: AtomicU32,
    journal: Journal,
}

impl Module for Scripted {
    async fn deliver(&self, delivery: Delivery) -> Result<Ack, DeliverError> {
        let Script { name, fails, kind, takes, retry_after } = &self.script;
        self.journal.deliveries.lock().unwrap().push(delivery);
        self.journal.note(name, "");
        sleep(Duration::from_millis(*takes)).await;
        if self.calls.fetch_add(1, Ordering::Relaxed) >= *fails {
            self.journal.note(name, ".");
            return Ok(Ack::Delivered);
        }
        self.journal.note(name, "!");
        let kind = DeliverErrorKind::ALL.into_iter().find(|known| known.label() == kind).unwrap();
        let error = DeliverError::new(kind, "as the script says");
        Err(retry_after.map_or(error.clone(), |seconds| error.retry_after(Duration::from_secs(seconds))))
    }
}
