//! A configured connection, compiled, whatever its kind.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use super::key::WebhookKey;
use super::placeholder::Variables;
use super::{CompileError, Name, Node};

/// The client of a connection, which is made by a delivery and shared by all webhooks that name the connection.
pub(crate) trait SharedClient: Send + Sync {
    /// A webhook that is served names the connection: from now on the client is kept.
    fn open(&self);

    /// No webhook names it any more: the client is given up.
    fn close(&self);
}

/// A connection that its kind has built, twice: for a module that knows the kind, and for code that works with every kind.
pub(crate) struct BuiltConnection {
    pub(crate) handle: Arc<dyn Any + Send + Sync>,
    pub(crate) client: Arc<dyn SharedClient>,
}

/// A connection that webhooks may name.
pub(crate) struct Connection {
    name: Box<str>,
    kind: &'static str,
    built: BuiltConnection,
    /// The namespaces whose webhooks may name it; all of them if there is no list.
    allowed_namespaces: Option<Box<[String]>>,
    /// The variables that its placeholders name.
    variables: Variables,
}

impl Connection {
    pub(crate) fn new(
        name: &str,
        kind: &'static str,
        built: BuiltConnection,
        allowed_namespaces: Option<Vec<String>>,
        variables: Variables,
    ) -> Self {
        let allowed_namespaces = allowed_namespaces.map(Vec::into_boxed_slice);
        Self { name: name.into(), kind, built, allowed_namespaces, variables }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its `type`.
    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    pub(crate) fn handle(&self) -> &Arc<dyn Any + Send + Sync> {
        &self.built.handle
    }

    pub(crate) fn client(&self) -> &dyn SharedClient {
        &*self.built.client
    }

    pub(crate) fn variables(&self) -> &Variables {
        &self.variables
    }

    pub(crate) fn allows(&self, namespace: &str) -> bool {
        self.allowed_namespaces.as_ref().is_none_or(|allowed| allowed.iter().any(|name| name == namespace))
    }
}

/// Not what it was built from: an address or a credential.
impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// The keys of a connection that are the same for every kind.
pub(crate) struct ConnectionSpec {
    pub(crate) kind: Name,
    pub(crate) allowed_namespaces: Option<Vec<String>>,
    /// All other keys: they are the kind's.
    pub(crate) config: Node,
}

impl ConnectionSpec {
    pub(crate) fn read(mut fields: Vec<(String, Node)>) -> Result<Self, CompileError> {
        let mut take = |key: &str| {
            let at = fields.iter().position(|(known, _)| known == key)?;
            Some(fields.remove(at).1)
        };
        let kind = take("type").ok_or_else(|| super::error::missing_key("type"))?.read_at("type")?;
        let allowed_namespaces =
            take("allowed_namespaces").map(|names| read_namespaces(names).map_err(|e| e.inside("allowed_namespaces")));
        let allowed_namespaces = allowed_namespaces.transpose()?;
        Ok(Self { kind, allowed_namespaces, config: Node::Object(fields) })
    }
}

fn read_namespaces(names: Node) -> Result<Vec<String>, CompileError> {
    let names: Vec<String> = names.read()?;
    // A name that no namespace can have would allow nothing, and nobody would see it.
    let invalid = names.iter().position(|name| WebhookKey::new(name, "a").is_err());
    match invalid {
        Some(at) => Err(CompileError::new("no namespace can have this name").inside(&at.to_string())),
        None => Ok(names),
    }
}
