//! Tracks which webhooks depend on which connections and variables.

use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::served::Served;
use super::settle::OnInvalid;
use crate::config::{CompileError, Connection, Variables, WebhookKey, is_file, variables_of_text};
use crate::webhook::{Compiler, Connections, Parsed, Read, Webhook};

/// The connections, and the webhooks that must be built again when one of them changes.
#[derive(Default)]
pub(super) struct Links {
    pub(super) connections: Connections,
    /// The digest of the newest bytes of each connection, valid or not.
    pub(super) digests: HashMap<Box<str>, Digest>,
    /// The digest of the bytes that each connection in use was built from.
    built: HashMap<Box<str>, Digest>,
    /// The variables that the newest bytes of each connection name.
    variables: HashMap<Box<str>, Variables>,
    /// The newest bytes of each connection that names a secret file.
    sources: HashMap<Box<str>, Bytes>,
    /// The variables that the newest or the last good value of any connection names. No webhook may use them.
    reserved: Variables,
    pub(super) dependents: HashMap<WebhookKey, Dependent>,
    pub(super) served: Served,
}

/// The newest bytes of a webhook, and the connections and variables that it depends on, including the dependencies of a
/// last good value that is served in their place. Webhooks without dependencies are not stored.
#[derive(Clone)]
pub(super) struct Dependent {
    connections: BTreeSet<Box<str>>,
    variables: Variables,
    pub(super) bytes: Bytes,
}

impl Dependent {
    pub(super) fn is_linked(&self) -> bool {
        !self.connections.is_empty() || !self.variables.is_empty()
    }

    /// Adds the connections and variables that `webhook` was built with.
    pub(super) fn include(&mut self, webhook: &Webhook) {
        self.connections.extend(webhook.connections().iter().map(|connection| connection.name().into()));
        self.variables.extend(webhook.variables().iter().cloned());
    }
}

/// The outcome of compiling a webhook's bytes.
pub(super) struct Compiled {
    pub(super) outcome: Result<Arc<Webhook>, CompileError>,
    /// Names every connection in the bytes, whether it exists or not.
    pub(super) dependent: Dependent,
}

/// The outcome of compiling a connection's bytes.
pub(super) enum Set {
    /// The bytes are the same as before.
    Unchanged,
    Good {
        /// Whether webhooks that name it must be built again.
        is_another: bool,
    },
    Refused {
        error: CompileError,
        /// Whether a connection that was in use has been withdrawn.
        is_gone: bool,
    },
}

impl Links {
    /// Carries the state of an unchanged connection over.
    pub(super) fn carry_over(&mut self, old: &Self, name: &str) {
        fn carry<T: Clone>(to: &mut HashMap<Box<str>, T>, from: &HashMap<Box<str>, T>, name: &str) {
            to.extend(from.get(name).map(|known| (name.into(), known.clone())));
        }
        carry(&mut self.connections, &old.connections, name);
        carry(&mut self.digests, &old.digests, name);
        carry(&mut self.built, &old.built, name);
        carry(&mut self.variables, &old.variables, name);
        carry(&mut self.sources, &old.sources, name);
    }

    /// Compiles the new bytes of a connection.
    pub(super) fn set_connection(
        &mut self,
        compiler: &Compiler,
        on_invalid: OnInvalid,
        name: &str,
        bytes: &Bytes,
    ) -> Set {
        let digest = digest(bytes);
        if self.digests.insert(name.into(), digest) == Some(digest) {
            return Set::Unchanged;
        }
        // The last good bytes have come back after a refused value: the connection in use was built from them, unless a
        // secret file has changed since.
        let is_built = self.built.get(name) == Some(&digest);
        let in_use =
            self.connections.get(name).filter(|connection| !connection.variables().iter().any(|it| is_file(it)));
        if let (Some(connection), true) = (in_use, is_built) {
            let variables = connection.variables().clone();
            self.keep(name, bytes, variables);
            return Set::Good { is_another: false };
        }
        self.build_connection(compiler, on_invalid, name, bytes, digest)
    }

    /// Builds a connection again because its secret files have changed.
    pub(super) fn rebuild_connection(&mut self, compiler: &Compiler, on_invalid: OnInvalid, name: &str) -> Set {
        match self.sources.get(name).cloned() {
            Some(bytes) => self.build_connection(compiler, on_invalid, name, &bytes, digest(&bytes)),
            None => Set::Unchanged,
        }
    }

    fn build_connection(
        &mut self,
        compiler: &Compiler,
        on_invalid: OnInvalid,
        name: &str,
        bytes: &Bytes,
        digest: Digest,
    ) -> Set {
        let read = guarded(|| Ok(compiler.connection(name, bytes)));
        let Read { variables, outcome } =
            read.unwrap_or_else(|error| Read { variables: variables_of_text(bytes), outcome: Err(error) });
        self.keep(name, bytes, variables);
        match outcome {
            Ok(connection) => {
                self.connections.insert(name.into(), Arc::new(connection));
                self.built.insert(name.into(), digest);
                Set::Good { is_another: true }
            }
            Err(error) => {
                let is_gone = on_invalid == OnInvalid::Fence && self.connections.remove(name).is_some();
                Set::Refused { error, is_gone }
            }
        }
    }

    /// Stores the names in a connection's newest bytes.
    fn keep(&mut self, name: &str, bytes: &Bytes, variables: Variables) {
        match variables.iter().any(|variable| is_file(variable)) {
            true => drop(self.sources.insert(name.into(), bytes.clone())),
            false => drop(self.sources.remove(name)),
        }
        self.variables.insert(name.into(), variables);
    }

    /// The connections whose newest bytes name one of these files.
    pub(super) fn connections_with(&self, files: &Variables) -> BTreeSet<Box<str>> {
        let names_one = |name: &str| self.variables.get(name).is_some_and(|variables| !variables.is_disjoint(files));
        self.sources.keys().filter(|name| names_one(name)).cloned().collect()
    }

    /// Returns whether a connection in use was removed.
    pub(super) fn remove_connection(&mut self, name: &str) -> bool {
        self.digests.remove(name);
        self.built.remove(name);
        self.variables.remove(name);
        self.sources.remove(name);
        self.connections.remove(name).is_some()
    }

    /// Compiles a webhook with the current connections.
    pub(super) fn compile(&self, compiler: &Compiler, key: &WebhookKey, bytes: &Bytes) -> Compiled {
        let Read { variables, outcome } = read(compiler, key, bytes, &self.reserved);
        let named = outcome.as_ref().ok().into_iter().flat_map(Parsed::connections);
        let connections: BTreeSet<Box<str>> = named.map(Box::from).collect();
        let dependent = Dependent { connections, variables, bytes: bytes.clone() };
        let build = |parsed| guarded(|| compiler.build_webhook(key, parsed, &self.connections).map(Arc::new));
        Compiled { outcome: outcome.and_then(build), dependent }
    }

    /// Reserves the variables of the current connections. Returns the variables whose reservation has changed.
    pub(super) fn reserve(&mut self) -> Variables {
        let newest = self.variables.values().flatten();
        let used = self.connections.values().flat_map(|connection| connection.variables());
        let reserved: Variables = newest.chain(used).cloned().collect();
        let changed = reserved.symmetric_difference(&self.reserved).cloned().collect();
        self.reserved = reserved;
        changed
    }

    /// The webhooks that depend on one of these connections or variables, with their bytes.
    pub(super) fn dependents_on(&self, names: &BTreeSet<Box<str>>, variables: &Variables) -> Vec<(WebhookKey, Bytes)> {
        if names.is_empty() && variables.is_empty() {
            return Vec::new();
        }
        let hangs = |it: &Dependent| !it.connections.is_disjoint(names) || !it.variables.is_disjoint(variables);
        let dependents = self.dependents.iter().filter(|(_, dependent)| hangs(dependent));
        dependents.map(|(key, dependent)| (key.clone(), dependent.bytes.clone())).collect()
    }

    /// Whether a webhook may go on being served although its newest bytes are refused: each connection that it was
    /// built with is still in use, and no connection reserves one of its variables. Otherwise the change was meant to
    /// take access away, or the webhook would use a replaced address or credential.
    pub(super) fn allow(&self, webhook: &Webhook) -> bool {
        let is_in_use = |used: &Arc<Connection>| {
            self.connections.get(used.name()).is_some_and(|connection| Arc::ptr_eq(connection, used))
        };
        webhook.connections().iter().all(is_in_use)
            && !webhook.variables().iter().any(|name| self.reserved.contains(name))
    }

    /// Records the dependencies of a webhook, or that it has none.
    pub(super) fn relink(&mut self, key: &WebhookKey, dependent: Option<Dependent>) {
        match dependent.filter(Dependent::is_linked) {
            Some(dependent) => drop(self.dependents.insert(key.clone(), dependent)),
            None => drop(self.dependents.remove(key)),
        }
    }

    /// Whether the connections and variables that this webhook depends on are the same as before.
    pub(super) fn are_as_before(&self, before: &Links, key: &WebhookKey) -> bool {
        before.dependents.get(key).is_some_and(|dependent| {
            let is_same = |name: &str| {
                let (then, now) = (before.connections.get(name), self.connections.get(name));
                then.map(Arc::as_ptr) == now.map(Arc::as_ptr)
            };
            let is_as_free = |name: &str| before.reserved.contains(name) == self.reserved.contains(name);
            dependent.connections.iter().all(|name| is_same(name))
                && dependent.variables.iter().all(|name| is_as_free(name))
        })
    }
}

/// Parses a webhook.
pub(super) fn read(compiler: &Compiler, key: &WebhookKey, bytes: &Bytes, reserved: &Variables) -> Read<Parsed> {
    guarded(|| Ok(compiler.read_webhook(key.namespace(), bytes, reserved)))
        .unwrap_or_else(|error| Read { variables: Variables::new(), outcome: Err(error) })
}

/// A module of the application that panics while it is built makes its own webhook fail, not the reflector.
pub(super) fn guarded<T>(build: impl FnOnce() -> Result<T, CompileError>) -> Result<T, CompileError> {
    catch_unwind(AssertUnwindSafe(build)).unwrap_or_else(|_| Err(CompileError::new("it panicked while it was built")))
}

/// A prefix of SHA-256 that is long enough to detect a difference.
pub(super) type Digest = [u8; 16];

pub(super) fn digest(bytes: &[u8]) -> Digest {
    let mut digest = Digest::default();
    digest.copy_from_slice(&Sha256::digest(bytes)[..16]);
    digest
}
