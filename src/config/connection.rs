//! A compiled connection, whatever its kind.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use super::key::WebhookKey;
use super::variables::Variables;
use super::{CompileError, Name, Node};

/// The client of a connection. The first delivery makes it, and all webhooks that name the connection share it.
pub(crate) trait SharedClient: Send + Sync {
    /// A served webhook names the connection: the client is kept from now on.
    fn open(&self);

    /// No webhook names the connection any more: the client is closed.
    fn close(&self);
}

/// A connection as its kind has built it, in two views: with its concrete type, for modules that know the kind, and as
/// a [`SharedClient`], for code that works with every kind.
pub(crate) struct BuiltConnection {
    pub(crate) handle: Arc<dyn Any + Send + Sync>,
    pub(crate) client: Arc<dyn SharedClient>,
}

/// A connection that webhooks may name.
pub(crate) struct Connection {
    name: Box<str>,
    kind: &'static str,
    built: BuiltConnection,
    /// The namespaces whose webhooks may name the connection; `None` means all.
    allowed_namespaces: Option<Box<[String]>>,
    /// The variables named in its placeholders.
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

    /// The value of the key `type`.
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

/// Omits the configuration, which holds addresses and credentials.
impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// The keys of a connection that are the same for every kind.
pub(crate) struct ConnectionSpec {
    pub(crate) kind: Name,
    pub(crate) allowed_namespaces: Option<Vec<String>>,
    /// All other keys, which the kind reads.
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
    // A name that no namespace can have would silently allow nothing.
    let invalid = names.iter().position(|name| WebhookKey::new(name, "a").is_err());
    match invalid {
        Some(at) => Err(CompileError::new(
            "expected the name of a namespace (1 to 64 ASCII letters, digits, `_` and `-`), found another text",
        )
        .inside(&at.to_string())),
        None => Ok(names),
    }
}
