//! What hangs on what: connections, and the webhooks that name them.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::config::{CompileError, WebhookKey};
use crate::webhook::{Compiler, Connections, Webhook};

/// The connections, and the webhooks that must be built again when one of them changes.
#[derive(Default)]
pub(super) struct Links {
    pub(super) connections: Connections,
    /// Of the newest bytes of each connection, good or not.
    pub(super) digests: HashMap<Box<str>, Digest>,
    pub(super) dependents: HashMap<WebhookKey, Dependent>,
}

/// A webhook that names connections. Only of these the bytes are kept.
#[derive(Clone)]
pub(super) struct Dependent {
    pub(super) connections: BTreeSet<Box<str>>,
    pub(super) bytes: Bytes,
}

/// What came of a webhook's bytes.
pub(super) struct Compiled {
    pub(super) outcome: Result<Arc<Webhook>, CompileError>,
    /// If it names connections, whether they were there or not.
    pub(super) dependent: Option<Dependent>,
}

impl Links {
    /// Compiles a webhook with the connections as they are.
    pub(super) fn compile(&self, compiler: &Compiler, key: &WebhookKey, bytes: &Bytes) -> Compiled {
        let spec = match guarded(|| compiler.read_webhook(bytes)) {
            Ok(spec) => spec,
            Err(error) => return Compiled { outcome: Err(error), dependent: None },
        };
        let connections: BTreeSet<Box<str>> = spec.connections().map(Box::from).collect();
        let dependent = (!connections.is_empty()).then(|| Dependent { connections, bytes: bytes.clone() });
        Compiled { outcome: guarded(|| compiler.build_webhook(key, spec, &self.connections).map(Arc::new)), dependent }
    }

    /// Remembers what a webhook hangs on, or that it hangs on nothing.
    pub(super) fn relink(&mut self, key: &WebhookKey, dependent: Option<Dependent>) {
        match dependent {
            Some(dependent) => drop(self.dependents.insert(key.clone(), dependent)),
            None => drop(self.dependents.remove(key)),
        }
    }

    /// Whether what this webhook hangs on is here what it was before.
    pub(super) fn are_as_before(&self, before: &Links, key: &WebhookKey) -> bool {
        before.dependents.get(key).is_some_and(|dependent| {
            dependent.connections.iter().all(|name| {
                let (then, now) = (before.connections.get(name), self.connections.get(name));
                then.map(Arc::as_ptr) == now.map(Arc::as_ptr)
            })
        })
    }
}

/// A module from elsewhere that panics while it is built takes down its own webhook, not the cache.
pub(super) fn guarded<T>(build: impl FnOnce() -> Result<T, CompileError>) -> Result<T, CompileError> {
    catch_unwind(AssertUnwindSafe(build)).unwrap_or_else(|_| Err(CompileError::new("building it panicked")))
}

/// Enough of SHA-256 to tell values apart.
pub(super) type Digest = [u8; 16];

pub(super) fn digest(bytes: &[u8]) -> Digest {
    let mut digest = Digest::default();
    digest.copy_from_slice(&Sha256::digest(bytes)[..16]);
    digest
}
