//! The modules, schemes and kinds of connections that a configuration may use.

#[cfg(feature = "_egress")]
mod egress;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use tower_service::Service;

use super::any_of::{self, Schemes};
use crate::auth::{ANY_OF, Authorization, ConfigScheme, Guard, HeaderAuth, IpAllow, QueryAuth, WallClock};
use crate::config::{
    BuildContext, BuildError, BuiltConnection, CompileError, Connection, ConnectionSpec, InvalidPublicUrl, Name, Node,
    PublicUrl, SecretFiles, Variables, did_you_mean, legacy, quote,
};
use crate::event::Delivery;
use crate::module::connection::{ConnectionContext, ConnectionKind, erase};
use crate::module::{ConfigModule, Discard, ErasedModule, Lines, Log, LogConfig, Module, ServiceModule};

/// The modules, schemes and kinds of connections that a configuration may use, by name.
///
/// A registry is a value, not a global: two stores can have two.
#[derive(Clone)]
pub struct Registry {
    modules: BTreeMap<&'static str, ModuleEntry>,
    schemes: BTreeMap<&'static str, BuildScheme>,
    connections: BTreeMap<&'static str, BuildConnection>,
    lookup: Arc<dyn Fn(&str) -> Option<String> + Send + Sync>,
    clock: WallClock,
    /// Decides which variables webhooks may name; without it, all that `lookup` returns.
    allows: Option<Arc<dyn Fn(&str) -> bool + Send + Sync>>,
    files: Option<Arc<SecretFiles>>,
    public_url: Option<PublicUrl>,
    capabilities: Capabilities,
}

/// The optional abilities of a stack of layers. A webhook may only ask for an ability that its stack has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    pub(crate) accepts: bool,
    pub(crate) deduplicates: bool,
}

impl Capabilities {
    /// No optional ability.
    pub fn none() -> Self {
        Self::default()
    }

    /// Whether webhooks may have `"ack": "accepted"`: the stack's `Dispatch` has a queue, and a worker delivers the
    /// events.
    #[must_use]
    pub fn accepting(self, accepts: bool) -> Self {
        Self { accepts, ..self }
    }

    /// Whether webhooks may have the key `dedup`: the stack has a `DedupLayer`.
    #[must_use]
    pub fn deduplicating(self, deduplicates: bool) -> Self {
        Self { deduplicates, ..self }
    }
}

#[derive(Clone)]
struct ModuleEntry {
    /// Shared by all webhooks that use the module.
    name: Arc<str>,
    build: BuildModule,
}

type BuildModule = Arc<dyn Fn(Node, &BuildContext<'_>) -> Result<Box<dyn ErasedModule>, CompileError> + Send + Sync>;
type BuildConnection = Arc<dyn Fn(Node, &ConnectionContext<'_>) -> Result<BuiltConnection, CompileError> + Send + Sync>;
type BuildScheme = Arc<dyn Fn(Node, &BuildContext<'_>) -> Result<Guard, CompileError> + Send + Sync>;

impl Registry {
    /// Everything in this crate: **the** list of its schemes, modules and kinds of connections.
    ///
    /// `save_to_disk` keeps its files below `./data`; register it again with [`module_fn`](Self::module_fn) for another
    /// directory. Modules and connections lead to public addresses only; `Registry::egress` allows others.
    pub fn builtin() -> Self {
        let stdout = Lines::stdout();
        let registry = Self::empty()
            .scheme::<Authorization>()
            .scheme::<HeaderAuth>()
            .scheme::<IpAllow>()
            .scheme::<QueryAuth>()
            .module::<Discard>()
            .module_fn(Log::NAME, move |config: LogConfig, _| Ok(Log::new(config, stdout.clone())));
        #[cfg(feature = "basic-auth")]
        let registry = registry.scheme::<crate::auth::BasicAuth>();
        #[cfg(feature = "signature")]
        let registry = registry.scheme::<crate::auth::HmacAuth>();
        #[cfg(feature = "signature")]
        let registry = registry.scheme::<crate::auth::Signature>();
        #[cfg(feature = "save-to-disk")]
        let registry = registry.module::<crate::module::SaveToDisk>();
        #[cfg(feature = "_egress")]
        let registry = registry.egress(&crate::module::Egress::default());
        registry
    }

    /// An empty registry. Placeholders are looked up in the process's environment.
    pub fn empty() -> Self {
        Self {
            modules: BTreeMap::new(),
            schemes: BTreeMap::new(),
            connections: BTreeMap::new(),
            lookup: Arc::new(|name| std::env::var(name).ok()),
            clock: WallClock::system(),
            allows: None,
            files: None,
            public_url: None,
            capabilities: Capabilities::default(),
        }
    }

    /// Adds the module `M`, or replaces the module of the same name.
    #[must_use]
    pub fn module<M: ConfigModule>(self) -> Self {
        self.module_fn(M::NAME, M::build)
    }

    /// Adds a module under `name`, or replaces the module of that name. `build` makes it: use this for a module that
    /// needs something that exists already, such as a client.
    #[must_use]
    pub fn module_fn<M, C, F>(mut self, name: &'static str, build: F) -> Self
    where
        M: Module,
        C: DeserializeOwned,
        F: Fn(C, &BuildContext<'_>) -> Result<M, BuildError> + Send + Sync + 'static,
    {
        let build: BuildModule = Arc::new(move |node, cx| {
            let config = node.read_at("module-config")?;
            build(config, cx).map(|module| Box::new(module) as _).map_err(|error| placed(error, "module-config"))
        });
        self.modules.insert(name, ModuleEntry { name: name.into(), build });
        self
    }

    /// Adds a module that is a tower service: it takes a [`Delivery`] and answers `()` once the event has been
    /// delivered. The service is cloned for each attempt, and called when it is ready.
    ///
    /// An error that is a [`DeliverError`](crate::event::DeliverError) is used as it is. Any other error counts as
    /// [`Io`](crate::event::DeliverErrorKind::Io).
    #[must_use]
    pub fn service<S, C, F>(mut self, name: &'static str, build: F) -> Self
    where
        S: Service<Delivery, Response = ()> + Clone + Send + Sync + 'static,
        S::Error: Into<Box<dyn Error + Send + Sync>>,
        S::Future: Send,
        C: DeserializeOwned,
        F: Fn(C, &BuildContext<'_>) -> Result<S, BuildError> + Send + Sync + 'static,
    {
        let build: BuildModule = Arc::new(move |node, cx| {
            let config = node.read_at("module-config")?;
            let service = build(config, cx).map_err(|error| placed(error, "module-config"))?;
            Ok(Box::new(ServiceModule::new(service)))
        });
        self.modules.insert(name, ModuleEntry { name: name.into(), build });
        self
    }

    /// Adds the scheme `S`, or replaces the scheme of the same key.
    #[must_use]
    pub fn scheme<S: ConfigScheme>(mut self) -> Self {
        let build: BuildScheme = Arc::new(|node, cx| match S::build(node.read()?, cx) {
            Ok(scheme) => Ok(Guard::new(S::KEY, Arc::new(scheme))),
            Err(error) => Err(compile_error(error)),
        });
        self.schemes.insert(S::KEY, build);
        self
    }

    /// Adds the kind of connections `K`, or replaces the kind of the same type.
    #[must_use]
    pub fn connection<K: ConnectionKind>(self) -> Self {
        self.connection_fn(K::build)
    }

    /// Adds a kind of connections, or replaces the kind of the same type. `build` makes a connection: use this for a
    /// kind that needs something that exists already.
    #[must_use]
    pub fn connection_fn<K, F>(mut self, build: F) -> Self
    where
        K: ConnectionKind,
        F: Fn(K::Config, &ConnectionContext<'_>) -> Result<K, BuildError> + Send + Sync + 'static,
    {
        let build: BuildConnection = Arc::new(move |node, cx| match build(node.read()?, cx) {
            Ok(kind) => Ok(erase(cx.name(), kind)),
            Err(error) => Err(CompileError::new(error.to_string())),
        });
        self.connections.insert(K::TYPE, build);
        self
    }

    /// Looks placeholders up with `lookup` instead of in the process's environment.
    ///
    /// Everyone who may write a webhook can read every variable that `lookup` returns: let it withhold the server's own
    /// secrets.
    #[must_use]
    pub fn variables(mut self, lookup: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        self.lookup = Arc::new(lookup);
        self
    }

    /// Uses another clock than the system's for the dates of secrets and signatures.
    #[must_use]
    pub fn clock(mut self, clock: WallClock) -> Self {
        self.clock = clock;
        self
    }

    /// Restricts webhooks to the variables that `allows` accepts, whether they are set or not. Connections are not
    /// restricted.
    #[must_use]
    pub fn variables_of_webhooks(mut self, allows: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        self.allows = Some(Arc::new(allows));
        self
    }

    /// Reads secrets from the files in `directory`. In a webhook, the placeholder `{$file:name}` is replaced by the
    /// content of the file `{namespace}/name`, or of `shared/name` if the namespace has no such file; in a connection,
    /// by that of `global/name` or `shared/name`. Without this call such a placeholder is refused.
    ///
    /// The [`Reflector`](crate::Reflector) checks the used files four times a second, and compiles the webhooks and
    /// connections that name a changed file. So it needs a tokio runtime with timers, and does not end with its source.
    /// The directory may be a mounted Kubernetes Secret.
    #[must_use]
    pub fn secrets_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.files = Some(Arc::new(SecretFiles::new(directory.into())));
        self
    }

    /// Sets the public URL of the path `/`, for senders that sign URLs: the path of a request is appended to it. The
    /// `public_url` of a webhook takes precedence.
    ///
    /// # Errors
    ///
    /// When the text is not an `http` or `https` URL, or has a query.
    pub fn public_url(mut self, url: &str) -> Result<Self, InvalidPublicUrl> {
        self.public_url = Some(PublicUrl::base(url)?);
        Ok(self)
    }

    /// Declares the abilities of the stack that serves these webhooks. [`Receiver::builder`](crate::Receiver::builder)
    /// does this itself; call this for a stack of layers that you have built by hand. A webhook that asks for an
    /// undeclared ability is refused.
    #[must_use]
    pub fn capable_of(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    pub(crate) fn base_url(&self) -> Option<&PublicUrl> {
        self.public_url.as_ref()
    }

    pub(crate) fn wall_clock(&self) -> &WallClock {
        &self.clock
    }

    pub(crate) fn lookup(&self) -> &dyn Fn(&str) -> Option<String> {
        &*self.lookup
    }

    /// Whether webhooks may name this variable.
    pub(crate) fn allows_webhooks(&self, variable: &str) -> bool {
        self.allows.as_ref().is_none_or(|allows| allows(variable))
    }

    pub(crate) fn files(&self) -> Option<&Arc<SecretFiles>> {
        self.files.as_ref()
    }

    /// The keys of guards: of schemes, and of alternatives.
    pub(crate) fn guard_keys(&self) -> impl Iterator<Item = &'static str> {
        self.schemes.keys().copied().chain([ANY_OF])
    }

    pub(crate) fn has_module(&self, name: &str) -> bool {
        self.modules.contains_key(name)
    }

    pub(crate) fn build_module(
        &self,
        name: &Name,
        config: Node,
        cx: &BuildContext<'_>,
    ) -> Result<(Arc<str>, Box<dyn ErasedModule>), CompileError> {
        let entry = self.modules.get(name.as_str()).ok_or_else(|| self.no_module(name).inside("module"))?;
        Ok((Arc::clone(&entry.name), (entry.build)(config, cx)?))
    }

    fn no_module(&self, name: &Name) -> CompileError {
        CompileError::new(format!("there is no module {name}{}", hint(name, self.modules.keys().copied())))
    }

    pub(crate) fn build_connection(
        &self,
        name: &str,
        spec: ConnectionSpec,
        variables: Variables,
    ) -> Result<Connection, CompileError> {
        let entry = self.connections.get_key_value(legacy::connection_type(spec.kind.as_str()));
        let (kind, build) = entry.ok_or_else(|| self.no_connection_type(&spec.kind).inside("type"))?;
        let built = build(spec.config, &ConnectionContext::new(name))?;
        Ok(Connection::new(name, kind, built, spec.allowed_namespaces, variables))
    }

    fn no_connection_type(&self, kind: &Name) -> CompileError {
        let hint = hint(kind, self.connections.keys().copied());
        CompileError::new(match legacy::is_connection_type(kind.as_str()) {
            true => format!("the connection type {kind} is not supported yet{hint}"),
            false => format!("there is no connection type {kind}{hint}"),
        })
    }

    pub(crate) fn build_guard(&self, key: &str, config: Node, cx: &BuildContext<'_>) -> Result<Guard, CompileError> {
        any_of::build_guard(self, key, config, cx)
    }
}

impl Schemes for Registry {
    fn keys(&self) -> impl Iterator<Item = &'static str> {
        self.schemes.keys().copied()
    }

    fn build(&self, key: &str, config: Node, cx: &BuildContext<'_>) -> Result<Guard, CompileError> {
        let build = self.schemes.get(legacy::guard_key(key)).ok_or_else(|| CompileError::new("unknown scheme"))?;
        build(config, cx).map_err(|error| error.inside(key))
    }
}

/// A hint at the nearest of the known names; if none is near, the list of all of them.
fn hint(name: &Name, known: impl Iterator<Item = &'static str> + Clone) -> String {
    let nearest = did_you_mean(name.as_str(), known.clone());
    let known: Vec<_> = known.collect();
    match nearest.is_empty() && !known.is_empty() {
        true => format!("; the known ones are {}", quote(&known)),
        false => nearest,
    }
}

/// The error of a module: placed by the module itself, or at `place`.
fn placed(error: BuildError, place: &str) -> CompileError {
    match error.is::<CompileError>() {
        true => compile_error(error),
        false => compile_error(error).inside(place),
    }
}

/// An error that may know where it belongs.
fn compile_error(error: BuildError) -> CompileError {
    match error.downcast::<CompileError>() {
        Ok(error) => *error,
        Err(error) => CompileError::new(error.to_string()),
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("modules", &self.modules.keys())
            .field("schemes", &self.schemes.keys())
            .field("connections", &self.connections.keys())
            .finish_non_exhaustive()
    }
}
