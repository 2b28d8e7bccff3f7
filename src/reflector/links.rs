//! What hangs on what: connections, and the webhooks that name them.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::config::{CompileError, Compiler, Connections, Webhook};
use crate::key::WebhookKey;

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

impl Links {
    /// Compiles a webhook and remembers its bytes if it names connections.
    pub(super) fn compile(
        &mut self,
        compiler: &Compiler,
        key: &WebhookKey,
        bytes: &Bytes,
    ) -> Result<Webhook, CompileError> {
        self.dependents.remove(key);
        let spec = guarded(|| compiler.read_webhook(bytes))?;
        let connections: BTreeSet<Box<str>> = spec.connections().map(Box::from).collect();
        if !connections.is_empty() {
            self.dependents.insert(key.clone(), Dependent { connections, bytes: bytes.clone() });
        }
        guarded(|| compiler.build_webhook(key, spec, &self.connections))
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
