//! Compiles bytes into a webhook or a connection. Pure: no sockets; the registry's variables and its files of secrets are
//! looked up, and its clock is read, for warnings only.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::chain::{StepSpec, take_steps};
use super::identity::identity;
use super::registry::Registry;
use super::spec::Spec;
use super::{Promise, Webhook};
use crate::auth::{ANY_OF, Guards, WallClock};
use crate::base::network::Network;
use crate::config::{
    BuildContext, CompileError, Connection, ConnectionSpec, DataType, Lookup, Name, Named, Node, Notes, OF_CONNECTIONS,
    Place, Room, SecretFiles, Variables, WebhookInfo, WebhookKey, candidates, expand, legacy, read_networks, secrets,
    variables_of, variables_of_text,
};
use crate::dedup::DedupRule;
use crate::delivery::{Cleanup, NamespaceGates, Plan, Step, Steps};
use crate::handshake::{Handshake, HandshakeConfig, handshake_of};

/// How an operator of the gateway provides what is missing.
const SPOOL_DIR: &str = "; for the gateway, set SPOOL_DIR";

/// The directory of the secret files.
const SECRETS_DIR: &str = " (for the gateway, SECRETS_DIR)";

/// The setting that decides which variables webhooks may name.
const PLACEHOLDER_ALLOW: &str = "; use one that is (for the gateway, PLACEHOLDER_ALLOW lists them)";

/// The connections a webhook may name.
pub(crate) type Connections = HashMap<Box<str>, Arc<Connection>>;

/// Compiles webhooks and connections.
#[derive(Clone, Debug)]
pub(crate) struct Compiler {
    registry: Registry,
    gates: NamespaceGates,
}

/// The outcome of parsing a value, with the variables it depends on.
pub(crate) struct Read<T> {
    /// The variables that were looked up for the outcome; for a connection, all that its placeholders name.
    pub(crate) variables: Variables,
    pub(crate) outcome: Result<T, CompileError>,
}

/// A parsed webhook. Connections, guards and modules are resolved when it is built.
pub(crate) struct Parsed {
    spec: Spec,
    steps: Vec<StepSpec>,
    plan: Plan,
    notes: Notes,
    variables: Box<[Box<str>]>,
}

impl Parsed {
    /// The connections that the webhook names, possibly with repetitions.
    pub(crate) fn connections(&self) -> impl Iterator<Item = &str> {
        let own = self.steps.iter().filter_map(|step| step.connection.as_ref());
        own.chain(&self.spec.connection).map(Name::as_str)
    }
}

impl Compiler {
    pub(crate) fn new(registry: Registry) -> Self {
        Self { registry, gates: NamespaceGates::default() }
    }

    /// Parses a webhook of `namespace`. It may use every variable and file except the `reserved` ones, which belong to
    /// connections.
    pub(crate) fn read_webhook(&self, namespace: &str, json: &[u8], reserved: &Variables) -> Read<Parsed> {
        let used = RefCell::new(Variables::new());
        let note = |name: &str| {
            let mut used = used.borrow_mut();
            if !used.contains(name) {
                used.insert(name.into());
            }
        };
        let lookup = |named: Named<'_>| match named {
            Named::File(name) => self.file(namespace, name, |file| {
                note(file);
                match reserved.contains(file) {
                    true => Err(CompileError::new(format!(
                        "the file `{name}` of secrets belongs to a connection; use another one"
                    ))),
                    false => Ok(()),
                }
            }),
            Named::Variable(name) => {
                note(name);
                if reserved.contains(name) {
                    let text = format!("the variable `{name}` belongs to a connection; use another one");
                    return Err(CompileError::new(text));
                }
                if !self.registry.allows_webhooks(name) {
                    let text = format!("the variable `{name}` is not for webhooks{PLACEHOLDER_ALLOW}");
                    return Err(CompileError::new(text));
                }
                Ok((self.registry.lookup())(name))
            }
        };
        let outcome = Node::parse(json).and_then(|node| self.parse_webhook(node, &lookup));
        let variables = used.into_inner();
        let outcome = outcome.map(|parsed| Parsed { variables: variables.iter().cloned().collect(), ..parsed });
        Read { variables, outcome }
    }

    /// The secret in the file `name`: the namespace's own, or else the shared one. `may_use` is asked before a file is
    /// read.
    fn file(
        &self,
        namespace: &str,
        name: &str,
        may_use: impl Fn(&str) -> Result<(), CompileError>,
    ) -> Result<Option<String>, CompileError> {
        let Some(files) = self.registry.files() else {
            let text =
                format!("`{{$file:…}}` needs a directory of secrets, and this application has none{SECRETS_DIR}");
            return Err(CompileError::new(text));
        };
        for file in candidates(namespace, name) {
            may_use(&file)?;
            let wrong = |unusable| CompileError::new(format!("the file `{name}` of secrets {unusable}"));
            if let Some(secret) = files.get(&file).map_err(wrong)? {
                return Ok(Some(secret));
            }
        }
        let places = format!("`{namespace}/{name}` or `shared/{name}` in the directory of secrets{SECRETS_DIR}");
        Err(CompileError::new(format!("there is no file `{name}` of secrets; expected {places}")))
    }

    fn parse_webhook(&self, node: Node, lookup: Lookup<'_>) -> Result<Parsed, CompileError> {
        let notes = Notes::new();
        let guards: Vec<_> = self.registry.guard_keys().collect();
        let mut spec = Spec::read(self.fill_in(node, lookup)?, &guards)?;
        self.check_promise(spec.ack).map_err(|error| error.inside("ack"))?;
        if let Some(dedup) = &spec.dedup {
            self.check_dedup(dedup, spec.data_type).map_err(|error| error.inside("dedup"))?;
        }
        if let (Some(module), Some(_)) = (&spec.module, &spec.raw.chain) {
            let known = match self.registry.has_module(module.as_str()) {
                true => String::new(),
                false => format!("; also, there is no module {module}"),
            };
            notes.warn(CompileError::new(format!("has no effect together with `chain`{known}")).inside("module"));
        }
        let (steps, plan) = take_steps(&mut spec, &notes)?;
        Ok(Parsed { spec, steps, plan, notes, variables: Box::default() })
    }

    pub(crate) fn build_webhook(
        &self,
        key: &WebhookKey,
        Parsed { spec, steps, plan, notes, variables }: Parsed,
        connections: &Connections,
    ) -> Result<Webhook, CompileError> {
        let connection = find(spec.connection.as_ref(), key, connections)?;
        let used = used(&steps, spec.connection.as_ref(), connections);
        let trusted_proxies = trusted_proxies(&spec, &notes)?;
        let cx = BuildContext {
            webhook: key,
            data_type: spec.data_type,
            connection,
            public_url: spec.public_url.as_ref().or(self.registry.base_url()),
            dedup: spec.dedup.as_ref().map(DedupRule::summary),
            clock: self.registry.wall_clock(),
            trusted_proxies: &trusted_proxies,
            notes: &notes,
            is_in_chain: false,
        };
        let mut has_asked = false;
        let handshake = handshake(spec.handshake, &spec.raw.guards, cx.clock);
        let handshake = handshake.map_err(|error| error.inside("handshake"))?;
        let guards = spec.raw.guards.into_iter().map(|(key, config)| {
            let of_guard = Notes::new();
            let guard = self.registry.build_guard(&key, config, &BuildContext { notes: &of_guard, ..cx });
            has_asked |= of_guard.has_asked();
            notes.take(&of_guard, &[&key]);
            guard
        });
        let guards = guards.collect::<Result<Vec<_>, _>>()?;
        let identity = identity(&steps, spec.connection.as_ref());
        let steps = steps.into_iter().map(|step| {
            let item = step.item.map(|at| at.to_string());
            let place: Vec<&str> = item.iter().flat_map(|at| ["chain", at]).collect();
            let of_step = Notes::new();
            let is_own = step.connection.is_some();
            let cx = BuildContext { notes: &of_step, is_in_chain: step.item.is_some(), ..cx };
            let built = self.build_step(step, cx, connections);
            match is_own {
                true if !of_step.has_asked() => of_step.warn(no_effect("its module uses no connection")),
                true => {}
                false => has_asked |= of_step.has_asked(),
            }
            notes.take(&of_step, &place);
            built.map_err(|error| place.iter().rev().fold(error, |error, key| error.inside(key)))
        });
        let steps = steps.collect::<Result<_, _>>()?;
        if connection.is_some() && !has_asked {
            notes.warn(no_effect("no module of this webhook uses it"));
        }
        let info = WebhookInfo::new(key.clone(), spec.data_type);
        let info = match spec.raw.metadata {
            Some(metadata) => info.with_metadata(metadata.into_value()),
            None => info,
        };
        Ok(Webhook {
            info: Arc::new(info),
            promise: spec.ack,
            guards: Guards::new(guards),
            dedup: spec.dedup,
            history: spec.history,
            handshake,
            gates: self.gates.for_webhook(key.namespace()),
            steps: Steps::new(steps, plan, spec.credential_cleanup.filter(Cleanup::is_enabled), identity),
            connections: used,
            variables,
            warnings: notes.into_warnings(),
        })
    }

    fn build_step(
        &self,
        spec: StepSpec,
        cx: BuildContext<'_>,
        connections: &Connections,
    ) -> Result<Step, CompileError> {
        let connection = match &spec.connection {
            None => cx.connection,
            own => find(own.as_ref(), cx.webhook, connections)?,
        };
        let cx = BuildContext { connection, ..cx };
        let (name, module) = self.registry.build_module(&spec.module, spec.config, &cx)?;
        Ok(Step::new(name, module, spec.retry))
    }

    /// The secret files that values may name, if there are any.
    pub(crate) fn files(&self) -> Option<&Arc<SecretFiles>> {
        self.registry.files()
    }

    pub(crate) fn connection(&self, name: &str, json: &[u8]) -> Read<Connection> {
        let node = match Node::parse(json) {
            Ok(node) => node,
            Err(error) => {
                // A variable that a connection names in broken JSON stays reserved: it would be a secret if the JSON
                // were mended.
                return Read { variables: variables_of_text(json), outcome: Err(error) };
            }
        };
        let variables = variables_of(&node);
        let lookup = |named: Named<'_>| match named {
            Named::File(name) => self.file(OF_CONNECTIONS, name, |_| Ok(())),
            Named::Variable(name) => Ok((self.registry.lookup())(name)),
        };
        let outcome = self.fill_in(node, &lookup).and_then(ConnectionSpec::read);
        let outcome = outcome.and_then(|spec| self.registry.build_connection(name, spec, variables.clone()));
        Read { variables, outcome }
    }

    fn check_promise(&self, promise: Promise) -> Result<(), CompileError> {
        match promise {
            Promise::Accepted if !self.registry.capabilities().accepts => {
                let text = format!("`accepted` needs a queue, and this application has none{SPOOL_DIR}");
                Err(CompileError::new(text))
            }
            Promise::Accepted | Promise::Delivered => Ok(()),
        }
    }

    fn check_dedup(&self, rule: &DedupRule, data_type: DataType) -> Result<(), CompileError> {
        if !self.registry.capabilities().deduplicates {
            // Without the table of earlier events, a duplicate would be delivered twice.
            return Err(CompileError::new(format!(
                "deduplication needs a store of earlier events, and this application has none{SPOOL_DIR}"
            )));
        }
        match rule.needs() {
            Some((key, needed)) if needed != data_type => {
                Err(CompileError::new(format!("a `{key}` needs the `data_type` {needed}, found {data_type}")))
            }
            _ => Ok(()),
        }
    }

    /// The fields of a value, with placeholders filled in.
    fn fill_in(&self, node: Node, lookup: Lookup<'_>) -> Result<Vec<(String, Node)>, CompileError> {
        let fields = match node {
            Node::Object(fields) => fields,
            other => return Err(other.is_not("a JSON object")),
        };
        let mut room = Room::new();
        let is_guard = |key: &str| self.registry.guard_keys().any(|guard| guard == legacy::guard_key(key));
        let fields = fields.into_iter().map(|(key, value)| {
            let place = Place::of(&key, is_guard(&key));
            let value = expand(value, lookup, &place, &mut room)
                .and_then(|value| secrets::check(&value, &place).map(|()| value))
                .map_err(|error| error.inside(&key))?;
            Ok((key, value))
        });
        fields.collect()
    }
}

/// The connection of that name, if the webhook may use it.
fn find<'a>(
    name: Option<&Name>,
    webhook: &WebhookKey,
    connections: &'a Connections,
) -> Result<Option<&'a Arc<Connection>>, CompileError> {
    let Some(name) = name else { return Ok(None) };
    let refused = |text: String| CompileError::new(text).inside("connection");
    let missing = || refused(format!("there is no valid connection {name}; add it, or correct its value"));
    let connection = connections.get(name.as_str()).ok_or_else(missing)?;
    match connection.allows(webhook.namespace()) {
        true => Ok(Some(connection)),
        false => Err(refused(format!("`allowed_namespaces` of the connection {name} does not list this namespace"))),
    }
}

/// The proxies in the key `trusted_proxies`.
fn trusted_proxies(spec: &Spec, notes: &Notes) -> Result<Vec<Network>, CompileError> {
    const KEY: &str = "trusted_proxies";
    let Some(items) = &spec.trusted_proxies else { return Ok(Vec::new()) };
    let has_effect = |key: &str| matches!(legacy::guard_key(key), "ip_allow" | ANY_OF);
    if !spec.raw.guards.iter().any(|(key, _)| has_effect(key)) {
        notes.warn(CompileError::new("has no effect: there is no `ip_allow`").inside(KEY));
    }
    read_networks(items).map_err(|error| error.inside(KEY))
}

/// The handshake that a webhook's key names, or the one that belongs to the preset of its signature. It uses the secrets of
/// the signature if it has none of its own.
fn handshake(
    config: Option<HandshakeConfig>,
    guards: &[(String, Node)],
    clock: &WallClock,
) -> Result<Option<Handshake>, CompileError> {
    let signature = guards.iter().find(|(key, _)| key == "signature").map(|(_, config)| config);
    let of_preset = || {
        let preset = signature.and_then(|config| config.field("preset")).and_then(Node::text);
        preset.and_then(handshake_of).map(HandshakeConfig::named)
    };
    let Some(config) = config.or_else(of_preset) else { return Ok(None) };
    // Faults of the secrets are the signature's.
    let secrets = signature.and_then(|config| config.field("secrets")).and_then(|secrets| secrets.clone().read().ok());
    Handshake::configured(config, clock, secrets)
}

/// The connections that a webhook names, without repetitions.
fn used(steps: &[StepSpec], connection: Option<&Name>, connections: &Connections) -> Box<[Arc<Connection>]> {
    let names = steps.iter().filter_map(|step| step.connection.as_ref()).chain(connection).map(Name::as_str);
    let names: BTreeSet<&str> = names.collect();
    names.into_iter().filter_map(|name| connections.get(name)).map(Arc::clone).collect()
}

fn no_effect(why: &str) -> CompileError {
    CompileError::new(format!("has no effect: {why}")).inside("connection")
}

/// No value makes the compiler panic, and no error quotes much of it.
#[cfg(fuzzing)]
pub(crate) fn fuzz(json: &[u8]) {
    let compiler = Compiler::new(Registry::builtin());
    let Ok(key) = WebhookKey::new("default", "fuzzed") else { return };
    let read = compiler.read_webhook("default", json, &Variables::new()).outcome;
    let built = read.and_then(|spec| compiler.build_webhook(&key, spec, &Connections::new()));
    match built {
        Ok(webhook) => drop(format!("{webhook:?}")),
        Err(error) => assert!(error.to_string().len() < 2000),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;
    use crate::config::{BuildError, LONGEST};
    use crate::event::DeliverError;
    use crate::module::LogConfig;
    use crate::module::connection::tests::Plain;
    use crate::module::connection::{ConnectionContext, ConnectionKind};
    use crate::webhook::registry::Capabilities;

    fn compile(json: &str) -> Result<Webhook, String> {
        let registry = Registry::builtin().variables(|name| match name {
            "TOKEN" => Some("from-env".into()),
            "PRETTY" => Some("true".into()),
            "BLANK" => Some(" ".into()),
            "UNFILLED" => Some("${TOKEN}".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        });
        let compiler = Compiler::new(registry);
        let key = WebhookKey::new("default", "a").unwrap();
        compiler
            .read_webhook("default", json.as_bytes(), &Variables::new())
            .outcome
            .and_then(|spec| compiler.build_webhook(&key, spec, &Connections::new()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_seeds_values_compile() {
        let webhook = compile(
            r#"{"data_type":"json","module":"log","authorization":"Bearer test_token_123","module-config":{"pretty_print":true}}"#,
        )
        .unwrap();
        assert_eq!(webhook.module_name(), "log");
        assert_eq!(webhook.data_type(), DataType::Json);
        assert!(!webhook.is_open());
    }

    /// The page has configurations that need these features.
    #[cfg(all(feature = "basic-auth", feature = "signature"))]
    #[test]
    fn each_configuration_of_the_page_on_guards_compiles() {
        let page = include_str!("../docs/guards.md");
        let blocks: Vec<_> = page.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        assert!(blocks.len() >= 10, "{}", blocks.len());
        for json in &blocks {
            let webhook = compile(json).unwrap_or_else(|error| panic!("{json} {error}"));
            assert!(!webhook.is_open() && webhook.warnings().next().is_none(), "{json} {webhook:?}");
        }
        for key in Registry::builtin().guard_keys() {
            assert!(page.contains(&format!("\n# {key}\n")), "{key} has no section");
            assert!(page.contains(&format!("\n| [`{key}`](#{key}) |")), "{key} is not in the table");
            let is_used = |json: &&&str| json.contains(&format!("\"{key}\":"));
            assert!(blocks.iter().any(|json| is_used(&json)), "{key} has no configuration to copy");
        }
    }

    #[test]
    fn placeholders_are_typed_by_the_field() {
        assert!(compile(r#"{"module":"log","module-config":{"pretty_print":"{$PRETTY}"}}"#).is_ok());
        assert!(compile(r#"{"module":"log","module-config":{"pretty_print":"{$NO:false}"}}"#).is_ok());
        assert!(compile(r#"{"module":"log","module-config":{"pretty_print":"true"}}"#).is_err());
        assert!(compile(r#"{"module":"discard","authorization":"Bearer {$TOKEN}"}"#).is_ok());
    }

    #[test]
    fn a_guard_that_would_guard_nothing_does_not_compile() {
        for value in [
            r#""""#,
            r#"" ""#,
            "null",
            "0",
            "false",
            "[]",
            "{}",
            r#""Bearer ""#,
            r#""{$NO}""#,
            r#""{$NO:}""#,
            r#""{$BLANK}""#,
            r#""Token {$EMPTY}""#,
            r#""Token {$NO:}""#,
            r#""Token {$BLANK}""#,
            r#""Token {$NO: }""#,
            r#""Basic ""#,
            r#""Token""#,
            r#""Bearer ${TOKEN}""#,
            r#""$TOKEN""#,
            r#""Bearer {{TOKEN}}""#,
            r#""{$UNFILLED}""#,
            r#""Token {$UNFILLED}""#,
        ] {
            let error = compile(&format!(r#"{{"module":"discard","authorization":{value}}}"#)).unwrap_err();
            assert!(error.starts_with("authorization: "), "{value} -> {error}");
        }
    }

    #[test]
    fn a_blank_secret_is_refused_at_every_place() {
        let module = |rest: &str| {
            compile(&format!(r#"{{"module":"http_webhook","module-config":{{"url":"https://example.com/",{rest}}}}}"#))
        };
        let item = |rest: &str| compile(&format!(r#"{{"chain":[{{"module":"log","module-config":{{{rest}}}}}]}}"#));
        let connection = |rest: &str| {
            let variables = |name: &str| (name == "BLANK").then(|| "\t ".to_owned());
            let compiler = Compiler::new(Registry::builtin().connection::<Anything>().variables(variables));
            let connection = compiler.connection("a", format!(r#"{{"type":"anything",{rest}}}"#).as_bytes());
            connection.outcome.map_err(|error| error.to_string())
        };
        for value in [r#""""#, r#"" \n""#, r#""{$BLANK}""#, r#""{$NO:}""#, r#""Token {$BLANK}""#, r#""{$NO:}{$NO: }""#]
        {
            let is_refused = |place: &str, error: String| {
                let rest = error.strip_prefix(place).unwrap_or_else(|| panic!("{place} {value}: {error}"));
                assert!(rest.starts_with(": the ") && rest.ends_with(" is empty"), "{place} {value}: {error}");
            };
            for (rest, place) in [
                (format!(r#""signing_secret":{value}"#), "signing_secret"),
                (format!(r#""headers":{{"X-Api-Key":{value}}}"#), "headers.X-Api-Key"),
                (format!(r#""headers":{{"authorization":{value}}}"#), "headers.authorization"),
            ] {
                is_refused(&format!("module-config.{place}"), module(&rest).unwrap_err());
                is_refused(&format!("chain.0.module-config.{place}"), item(&rest).unwrap_err());
            }
            for (rest, place) in [
                (format!(r#""password":{value}"#), "password"),
                (format!(r#""api_keys":["a",{value}]"#), "api_keys.1"),
                (format!(r#""client_secret":[{{"value":{value}}}]"#), "client_secret.0.value"),
                (format!(r#""tls":{{"passphrase":{value}}}"#), "tls.passphrase"),
                (format!(r#""dsn":{value}"#), "dsn"),
            ] {
                is_refused(place, connection(&rest).err().unwrap());
            }
            // Values that are not secret may be blank.
            let rest = format!(r#""headers":{{"X-Colour":{value}}},"prefix":{value},"secret":{{"prefix":{value}}}"#);
            assert!(connection(&rest).is_ok(), "{value}");
            let metadata = format!(r#"{{"module":"discard","metadata":{{"password":{value}}}}}"#);
            assert!(compile(&metadata).is_ok(), "{value}");
        }
        assert!(connection(r#""password":null"#).is_ok());
        let error = connection(r#""url":"https://user:{$BLANK}@example.com/""#).err().unwrap();
        assert_eq!(error, "url: the variable `BLANK` is empty");
    }

    #[test]
    fn an_unfilled_placeholder_is_refused_as_a_secret_at_every_place() {
        let registry = Registry::builtin()
            .connection::<Anything>()
            .variables(|name| (name == "UNFILLED").then(|| "$OTHER".into()));
        let compiler = Compiler::new(registry);
        let refused = |json: &str| match compiler.connection("a", json.as_bytes()).outcome {
            Ok(_) => None,
            Err(error) => {
                assert!(error.to_string().contains("`{$TOKEN}`"), "{error}");
                assert!(!error.to_string().contains("s3cret"), "{error}");
                Some(error.to_string().split(": ").next().unwrap().to_owned())
            }
        };
        for (rest, place) in [
            (r#""password": "${s3cret}""#, Some("password")),
            (r#""password": "{$UNFILLED}""#, Some("password")),
            (r#""api_key": ["a", "{{ s3cret }}"]"#, Some("api_key.1")),
            (r#""tls": {"client_secret": {"value": "$S3CRET"}}"#, Some("tls.client_secret.value")),
            (r#""headers": {"X-Api-Key": "%S3CRET%"}"#, Some("headers.X-Api-Key")),
            (r#""url": "amqp://user:${s3cret}@host""#, Some("url")),
            (r#""password": "$2y$10$abc""#, None),
            (r#""topic": "$TOPIC""#, None),
            (r#""template": "{{ name }}""#, None),
        ] {
            assert_eq!(refused(&format!(r#"{{"type": "anything", {rest}}}"#)).as_deref(), place, "{rest}");
        }
        assert!(compile(r#"{"module": "discard", "metadata": {"password": "$PASSWORD"}}"#).is_ok());
        let error = compile(r#"{"module": "log", "module-config": {"token": "${TOKEN}"}}"#).unwrap_err();
        assert!(error.starts_with("module-config.token: the secret is a placeholder"), "{error}");
    }

    #[test]
    fn the_size_of_a_value_is_limited() {
        let fields = |count: usize| (0..count).map(|n| format!("\"f{n}\":0")).collect::<Vec<_>>().join(",");
        let metadata = |inner: &str| compile(&format!(r#"{{"module":"discard","metadata":{inner}}}"#)).map(drop);
        let nested = |depth: usize| format!("{}0{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(metadata(&nested(63)), Ok(()));
        let error = metadata(&nested(64)).unwrap_err();
        assert!(error.starts_with("expected at most 64 levels of arrays and objects, found more at line 1"), "{error}");
        assert!(metadata(&nested(100_000)).is_err());
        assert_eq!(metadata(&format!("{{{}}}", fields(19_998))), Ok(()));
        for inner in [format!("{{{}}}", fields(19_999)), format!("[{}0]", "0,".repeat(19_999))] {
            let error = metadata(&inner).unwrap_err();
            assert!(error.starts_with("expected at most 20000 keys and items, found more at line 1"), "{error}");
        }
        assert_eq!(metadata(&format!("{:?}", "x".repeat(500 << 10))), Ok(()));
        assert_eq!(
            metadata(&format!("{:?}", "x".repeat(512 << 10))).unwrap_err(),
            "expected at most 512 KiB, found 513 KiB"
        );
        assert!(compile(&" ".repeat(513 << 10)).unwrap_err().starts_with("expected at most 512 KiB"));
    }

    #[test]
    fn copies_and_placeholders_are_limited() {
        let fields: Vec<_> = (0..1500).map(|n| format!("\"f{n}\":0")).collect();
        let json = format!(r#"{{"module-config":{{{}}},"chain":[{}]}}"#, fields.join(","), [r#""log""#; 20].join(","));
        let error = compile(&json).unwrap_err();
        assert!(error.starts_with("chain: expected at most 20000 keys and items in the `module-config` of"), "{error}");

        let registry = Registry::builtin().variables(|_| Some("x".repeat(1 << 16)));
        let filled = |count: usize| {
            let json = format!(r#"{{"module":"discard","metadata":["{}","{{$B}}"]}}"#, "{$A}".repeat(count));
            Compiler::new(registry.clone())
                .read_webhook("default", json.as_bytes(), &Variables::new())
                .outcome
                .map(drop)
                .map_err(|error| error.to_string())
        };
        assert_eq!(filled(7), Ok(()));
        assert!(filled(8).unwrap_err().starts_with("metadata.1: expected placeholders that come to at most 512 KiB"));
        assert!(filled(100_000).is_err());

        let placeholders = |count: usize| {
            let json = format!(r#"{{"module":"discard","metadata":["{}","{{$TOKEN}}"]}}"#, "{$TOKEN}".repeat(count));
            compile(&json).map(drop)
        };
        assert_eq!(placeholders(999), Ok(()));
        assert_eq!(
            placeholders(1000).unwrap_err(),
            "metadata.1: expected at most 1000 placeholders in a value, found more"
        );

        let copied = |bytes: usize, items: usize| {
            let items = vec![r#""log""#; items].join(",");
            compile(&format!(r#"{{"module-config":{{"pretty_print":"{}"}},"chain":[{items}]}}"#, "x".repeat(bytes)))
                .unwrap_err()
        };
        let most = (512 << 10) / 20 - "pretty_print".len();
        assert!(copied(most, 20).starts_with("chain.0.module-config.pretty_print: expected a boolean"));
        assert_eq!(
            copied(most + 1, 20),
            "chain: expected at most 512 KiB in all copies of `module-config`, one for each item, found 513 KiB"
        );
        assert!(copied(400 << 10, 1).starts_with("chain.0.module-config.pretty_print: expected a boolean"));
    }

    #[test]
    fn an_error_names_the_misspelt_key_and_the_nearest_known_one() {
        let error = |json| compile(json).unwrap_err();
        assert_eq!(
            error(r#"{"module":"discard","autorization":"Bearer x"}"#),
            "unknown key `autorization`, did you mean `authorization`?"
        );
        assert_eq!(error(r#"{"module":"lag"}"#), "module: there is no module `lag`, did you mean `log`?");
        assert_eq!(
            error(r#"{"module":"log","module-config":{"prety_print":true}}"#),
            "module-config: unknown key `prety_print`, did you mean `pretty_print`?"
        );
        assert_eq!(
            error(r#"{"module":"discard","data_type":"xml"}"#),
            "data_type: expected one of `json`, `form`, `blob`, found another string"
        );
        assert_eq!(
            error(r#"{"module":"discard","digest_auth":{"username":"x"}}"#),
            "the key `digest_auth` is not supported by this version"
        );
    }

    #[test]
    fn retry_may_name_classes_of_python() {
        let retry = |name: &str| {
            let retry = format!(r#"{{"enabled":true,"retryable_errors":[{name:?}]}}"#);
            compile(&format!(r#"{{"module":"discard","retry":{retry}}}"#))?;
            compile(&format!(r#"{{"chain":[{{"module":"discard","retry":{retry}}}]}}"#)).map(drop)
        };
        assert_eq!(retry("asyncio.TimeoutError"), Ok(()));
        assert!(retry("asyncio.Timeout").unwrap_err().starts_with("retry.retryable_errors: unknown kind of error"));
    }

    #[test]
    fn the_error_for_an_unknown_module_lists_the_known_ones() {
        let error = compile(r#"{"module":"my_\n_broker"}"#).unwrap_err();
        assert!(error.starts_with("module: there is no module `my_\\n_broker`; the known ones are `"), "{error}");
        assert!(error.contains("`discard`, "), "{error}");
        let error = compile(r#"{"module":"{$TOKEN}"}"#).unwrap_err();
        assert!(error.starts_with("module: there is no module (named by a variable); the known"), "{error}");
    }

    #[test]
    fn a_key_without_effect_causes_a_warning() {
        let registry = Registry::builtin().connection::<Plain>();
        let compiler = Compiler::new(registry.module_fn("asks", |_: LogConfig, cx: &BuildContext<'_>| {
            cx.connection::<Plain>()?;
            cx.warn("is slow");
            Ok(crate::module::Discard)
        }));
        let connection = |name: &str| Arc::new(compiler.connection(name, br#"{"type": "plain"}"#).outcome.unwrap());
        let connections = Connections::from(["a", "b"].map(|name| (name.into(), connection(name))));
        let key = WebhookKey::new("default", "a").unwrap();
        let warnings = |json: &str| {
            let spec = compiler.read_webhook("default", json.as_bytes(), &Variables::new()).outcome.unwrap();
            let webhook = compiler.build_webhook(&key, spec, &connections).unwrap();
            webhook.warnings().map(str::to_owned).collect::<Vec<_>>()
        };
        for json in [r#"{"module":"discard"}"#, r#"{"chain":["log"],"retry":{"enabled":true}}"#] {
            assert_eq!(warnings(json), [""; 0], "{json}");
        }
        assert_eq!(warnings(r#"{"module":"asks","connection":"a"}"#), ["is slow"]);
        assert_eq!(
            warnings(r#"{"chain":["log",{"module":"asks","connection":"b"},"asks"],"connection":"a"}"#),
            ["chain.1: is slow", "chain.2: is slow"]
        );
        assert_eq!(warnings(r#"{"module":"log","chain":["log"]}"#), ["module: has no effect together with `chain`"]);
        assert_eq!(
            warnings(r#"{"module":"lag","chain":["log"]}"#),
            ["module: has no effect together with `chain`; also, there is no module `lag`"]
        );
        assert_eq!(
            warnings(r#"{"module":"log","connection":"a"}"#),
            ["connection: has no effect: no module of this webhook uses it"]
        );
        assert_eq!(
            warnings(r#"{"chain":[{"module":"log","connection":"b"}],"connection":"a"}"#),
            [
                "chain.0.connection: has no effect: its module uses no connection",
                "connection: has no effect: no module of this webhook uses it"
            ]
        );
        let retry = r#"{"enabled":true,"max_attempts":99}"#;
        assert_eq!(
            warnings(&format!(r#"{{"chain":[{{"module":"log","retry":{retry}}}],"retry":{retry}}}"#)),
            [
                "retry.max_attempts: 99 is out of range, 20 is used",
                "chain.0.retry.max_attempts: 99 is out of range, 20 is used",
            ]
        );
        let many = [r#"{"module":"log","retry":{"enabled":true,"max_attempts":0,"initial_delay":-1}}"#; 20].join(",");
        assert_eq!(warnings(&format!(r#"{{"chain":[{many}]}}"#)).len(), 16);
    }

    #[test]
    fn dedup_does_not_compile_where_it_cannot_work() {
        let dedup = |has_dedup, rest: &str| {
            let compiler = Compiler::new(Registry::builtin().capable_of(Capabilities::none().deduplicating(has_dedup)));
            let json = format!(r#"{{"module":"discard","dedup":{rest}}}"#);
            compiler
                .read_webhook("default", json.as_bytes(), &Variables::new())
                .outcome
                .map(|parsed| assert!(parsed.spec.dedup.is_some()))
                .map_err(|e| e.to_string())
        };
        assert_eq!(dedup(true, r#"{"header":"X-GitHub-Delivery","ttl":60}"#), Ok(()));
        assert_eq!(dedup(true, r#"{"digest":true},"data_type":"blob""#), Ok(()));
        assert_eq!(dedup(true, r#"{"form":"MessageSid"},"data_type":"form""#), Ok(()));
        for (rest, error) in [
            (r#"{"hedder":"x"}"#, "dedup: unknown key `hedder`, did you mean `header`?"),
            (
                r#"{"header":"x","digest":true}"#,
                "dedup: expected exactly one of `header`, `pointer`, `form` and `digest`, or `form` with `pointer`",
            ),
            (r#"{"digest":true,"ttl":0}"#, "dedup: `ttl` must be from 1 to 2592000 seconds"),
            (r#"{"pointer":"/id"},"data_type":"blob""#, "dedup: a `pointer` needs the `data_type` json, found blob"),
            (r#"{"form":"id"}"#, "dedup: a `form` needs the `data_type` form, found json"),
            (r#"{"form":"p","pointer":"/id"}"#, "dedup: a `form` needs the `data_type` form, found json"),
            (r#"{"pointer":"/id"},"data_type":"form""#, "dedup: a `pointer` needs the `data_type` json, found form"),
            ("true", "dedup: expected an object, found a boolean"),
        ] {
            assert_eq!(dedup(true, rest).unwrap_err(), error);
        }
        let error = dedup(false, r#"{"digest":true}"#).unwrap_err();
        assert!(error.starts_with("dedup: deduplication needs a store"), "{error}");
    }

    #[test]
    fn other_bad_values_are_refused() {
        for json in [
            "",
            "{",
            "[]",
            "null",
            "\"x\"",
            "{} {}",
            "{}",
            r#"{"module":1}"#,
            r#"{"module":null}"#,
            "\u{feff}{}",
            r#"{"module":"discard","module":"log"}"#,
            r#"{"module":"discard","module-config":[]}"#,
            r#"{"module":"discard","module-config":{"x":1}}"#,
            r#"{"module":"discard","connection":"nope"}"#,
        ] {
            assert!(compile(json).is_err(), "{json}");
        }
    }

    /// Accepts any object.
    struct Anything;

    impl ConnectionKind for Anything {
        const TYPE: &'static str = "anything";
        type Config = HashMap<String, serde_json::Value>;
        type Client = ();

        fn build(_: Self::Config, _: &ConnectionContext<'_>) -> Result<Self, BuildError> {
            Ok(Self)
        }

        async fn connect(&self) -> Result<(), DeliverError> {
            Ok(())
        }
    }

    fn connection(json: &str) -> Result<Connection, String> {
        let registry =
            Registry::empty().connection::<Plain>().variables(|name| (name == "X").then(|| "hunter2".into()));
        Compiler::new(registry).connection("db", json.as_bytes()).outcome.map_err(|error| error.to_string())
    }

    #[test]
    fn a_connection_compiles_by_itself() {
        let built = connection(r#"{"type": "plain", "allowed_namespaces": ["shop"]}"#).unwrap();
        assert_eq!((built.name(), built.kind()), ("db", "plain"));
        assert!(built.allows("shop") && !built.allows("default"));
        assert!(connection(r#"{"type": "plain"}"#).unwrap().allows("default"));
        assert!(!connection(r#"{"type": "plain", "allowed_namespaces": []}"#).unwrap().allows("default"));
        for (json, error) in [
            (r#"{"port": 1}"#, "the key `type` is missing"),
            (r#"{"type": 1}"#, "type: expected a string, found a number; write it in quotes"),
            (r#"{"type": "plane"}"#, "type: there is no connection type `plane`, did you mean `plain`?"),
            (r#"{"type": "x25"}"#, "type: there is no connection type `x25`; the known ones are `plain`"),
            (
                r#"{"type": "rabbitmq"}"#,
                "type: the connection type `rabbitmq` is not supported yet; the known ones are `plain`",
            ),
            (
                r#"{"type": "{$X}"}"#,
                "type: there is no connection type (named by a variable); the known ones are `plain`",
            ),
            (r#"{"type": "plain", "port": 1}"#, "unknown key `port`"),
            (r#"{"type": "plain", "allowed_namespaces": null}"#, "allowed_namespaces: expected an array, found null"),
            (
                r#"{"type": "plain", "allowed_namespaces": "a"}"#,
                "allowed_namespaces: expected an array, found a string",
            ),
            (
                r#"{"type": "plain", "allowed_namespaces": ["a", "*"]}"#,
                "allowed_namespaces.1: expected the name of a namespace (1 to 64 ASCII letters, digits, `_` and `-`), found another text",
            ),
            (r#"{"type": "plain", "port": "{$NO}"}"#, "port: the variable `NO` is not set and has no default"),
        ] {
            assert_eq!(connection(json).unwrap_err(), error, "{json}");
        }
    }

    #[test]
    fn a_webhook_may_name_only_a_connection_that_it_may_and_can_use() {
        let registry = Registry::builtin().connection::<Plain>().connection::<Anything>();
        let compiler = Compiler::new(registry.module_fn("asks", |_: LogConfig, cx: &BuildContext<'_>| {
            cx.connection::<Plain>()?;
            Ok(crate::module::Discard)
        }));
        let connection = |(name, json): (&str, &str)| {
            (name.into(), Arc::new(compiler.connection(name, json.as_bytes()).outcome.unwrap()))
        };
        let connections = Connections::from(
            [
                ("plain", r#"{"type": "plain"}"#),
                ("other", r#"{"type": "anything"}"#),
                ("theirs", r#"{"type": "plain", "allowed_namespaces": ["other"]}"#),
            ]
            .map(connection),
        );
        let key = WebhookKey::new("default", "a").unwrap();
        let build = |json: &str| {
            let read = compiler.read_webhook("default", json.as_bytes(), &Variables::new()).outcome.unwrap();
            let built = compiler.build_webhook(&key, read, &connections).map_err(|error| error.to_string())?;
            Ok::<_, String>(
                built.connections().iter().map(|connection| connection.name().to_owned()).collect::<Vec<_>>(),
            )
        };
        assert_eq!(build(r#"{"module": "asks", "connection": "plain"}"#).unwrap(), ["plain"]);
        assert_eq!(
            build(r#"{"connection": "other", "chain": [{"module": "asks", "connection": "plain"}, "log"]}"#).unwrap(),
            ["other", "plain"]
        );
        for (json, error) in [
            (r#"{"module": "asks"}"#, "connection: this module needs a connection of the type `plain`"),
            (
                r#"{"module": "asks", "connection": "other"}"#,
                "connection: `other` is of the type `anything`, and this module needs the type `plain`",
            ),
            (
                r#"{"chain": ["log", {"module": "asks", "connection": "other"}]}"#,
                "chain.1.connection: `other` is of the type `anything`, and this module needs the type `plain`",
            ),
            (
                r#"{"module": "log", "connection": "theirs"}"#,
                "connection: `allowed_namespaces` of the connection `theirs` does not list this namespace",
            ),
            (
                r#"{"module": "log", "connection": "none"}"#,
                "connection: there is no valid connection `none`; add it, or correct its value",
            ),
        ] {
            assert_eq!(build(json).unwrap_err(), error, "{json}");
        }
    }

    #[test]
    fn a_webhook_may_not_use_a_variable_of_a_connection() {
        let compiler = Compiler::new(Registry::builtin().variables(|_| Some("hunter2".into())));
        let read = |json: &str, reserved: &[&str]| {
            let reserved = reserved.iter().copied().map(Box::from).collect();
            let Read { variables, outcome } = compiler.read_webhook("default", json.as_bytes(), &reserved);
            (
                variables.iter().map(|name| (**name).to_owned()).collect::<Vec<_>>(),
                outcome.map(drop).map_err(|e| e.to_string()),
            )
        };
        let json = r#"{"module": "log", "metadata": ["{$A}", "{$B:x}", "{$A}"]}"#;
        assert_eq!(read(json, &["C"]), (vec!["A".to_owned(), "B".to_owned()], Ok(())));
        for (at, reserved, used) in [(0, "A", vec!["A"]), (1, "B", vec!["A", "B"])] {
            let (variables, outcome) = read(json, &[reserved]);
            assert_eq!(variables, used, "what it hangs on");
            let text = format!("metadata.{at}: the variable `{reserved}` belongs to a connection; use another one");
            assert_eq!(outcome, Err(text), "also with a default");
        }
        for json in [r#"{"type": "x", "a": "{$A}"}"#, r#"{"type": "x" "a": "{$A}"}"#, r#"{"a": ["x{$A:}"]}"#] {
            let variables = compiler.connection("db", json.as_bytes()).variables;
            assert_eq!(variables, ["A".into()].into(), "also of one that is refused: {json}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_compiler_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Compiler::new(Registry::builtin()).read_webhook("default", &bytes, &Variables::new());
            let _ = Compiler::new(Registry::builtin()).connection("a", &bytes);
        }

        #[test]
        fn no_json_makes_it_panic_or_quote(key in "[a-z_-]{0,14}", secret in "[A-Z]{12}") {
            for value in [format!("{secret:?}"), format!("[{secret:?}]"), format!("{{\"a\":{secret:?}}}")] {
                let json = format!(r#"{{"module":"log",{key:?}:{value}}}"#);
                match compile(&json) {
                    Ok(webhook) => {
                        let shown = format!("{webhook:?}");
                        prop_assert!(!shown.contains(&secret));
                    }
                    Err(error) => prop_assert!(!error.contains(&secret), "{}", error),
                }
            }
        }
    }

    /// The most expensive values of each kind within the limits.
    fn worst_values() -> Vec<(&'static str, String)> {
        let fields = |count: usize, value: &str| {
            let fields: Vec<_> = (0..count).map(|n| format!(r#""f{n}":{value}"#)).collect();
            format!("{{{}}}", fields.join(","))
        };
        let metadata = |inner: &str| format!(r#"{{"module":"discard","metadata":{inner}}}"#);
        let config = |inner: &str| format!(r#"{{"module":"discard","module-config":{inner}}}"#);
        let deep = |inner: &str, depth: usize| {
            let (opened, closed) = (r#"{"a":"#.repeat(depth), "}".repeat(depth));
            format!("{opened}{inner}{closed}")
        };
        let long = "x".repeat(500_000);
        let item =
            |count: usize, value: &str| format!(r#"{{"module":"discard","module-config":{}}}"#, fields(count, value));
        let chain = |items: usize, of_item: usize, of_all: usize| {
            let items = vec![item(of_item, "0"); items].join(",");
            format!(r#"{{"chain":[{items}],"module-config":{}}}"#, fields(of_all, "0"))
        };
        let similar = |count: usize| {
            let fields: Vec<_> = (0..count).map(|n| format!(r#""{}{n:05}":0"#, "k".repeat(14))).collect();
            format!("{{{}}}", fields.join(","))
        };
        let secrets = |text: &str, count: usize| {
            let fields: Vec<_> = (0..count).map(|n| format!(r#""secret{n}":"{text}""#)).collect();
            format!("{{{}}}", fields.join(","))
        };
        // Many names that may be secret, each made different by a number.
        let blanks = |part: &str, times: usize| {
            let size = part.len() * times + 16;
            let names: Vec<_> =
                (0..(500_000 / size).min(19_900)).map(|n| format!(r#""{}a{n}b":" ""#, part.repeat(times))).collect();
            format!("{{{}}}", names.join(","))
        };
        let many = |item: &str, count: usize| format!("[{}]", vec![item; count].join(","));
        vec![
            ("fields", metadata(&fields(19_990, "0"))),
            ("fields of a module", config(&fields(19_990, "0"))),
            ("items", metadata(&many("1.5e300", 19_990))),
            ("similar names", metadata(&similar(19_990))),
            ("deep", metadata(&many(&deep("0", 60), 320))),
            ("a long string", metadata(&format!("\"{long}\""))),
            ("a long name", metadata(&format!("{{\"{long}\":0}}"))),
            ("a long unknown name", format!("{{\"{long}\":0}}")),
            (
                "a long name deep inside of what is refused",
                config(&deep(&format!(r#"{{"{}":{{"secret":"${{x}}"}}}}"#, "x".repeat(500_000)), 55)),
            ),
            ("escapes", metadata(&format!("\"{}\"", r"\u00e9".repeat(80_000)))),
            ("a chain of large items", chain(20, 900, 40)),
            (
                "a chain of long copies",
                format!(r#"{{"chain":[{}],"module-config":{{"a":"{long}"}}}}"#, vec![r#""log""#; 20].join(",")),
            ),
            ("a chain of copies", chain(20, 40, 900)),
            (
                "secrets",
                config(&secrets("$a ${ {$ {{ %b", 10_000).replace("{$", "[$").replace("${", "$(").replace("{{", "((")),
            ),
            ("secrets of many words", config(&secrets("a b", 19_900))),
            ("a long secret", config(&secrets(&"$A(".repeat(160_000), 1))),
            ("a long secret of percents", config(&secrets(&"%A".repeat(240_000), 1))),
            ("a long secret of blanks", config(&secrets(&" ".repeat(500_000), 1))),
            ("a long secret of words", config(&secrets(&"a ".repeat(250_000), 1))),
            ("a long secret of braces", config(&secrets(&"{ $".repeat(160_000), 1))),
            ("a long secret of double braces", config(&secrets(&"} {".repeat(160_000), 1))),
            ("long names of secrets", config(&format!(r#"{{"{}":0}}"#, "secre-".repeat(80_000)))),
            ("long names of short words", config(&format!(r#"{{"{}":0}}"#, "k_e_y".repeat(100_000)))),
            ("long names of capitals", config(&format!(r#"{{"{}":0}}"#, "KeY".repeat(160_000)))),
            (
                "names of words",
                config(&{
                    let names: Vec<_> = (0..10_000).map(|n| format!(r#""a_b_c_d_e_ke_y_tok_{n}":0"#)).collect();
                    format!("{{{}}}", names.join(","))
                }),
            ),
            ("blank secrets by long names", config(&blanks("k_e_y_", 165))),
            ("blank secrets by names of single letters", config(&blanks("s_k_e_y_p_", 100))),
            ("blank secrets by names that nearly are secret", config(&blanks("passcod_secre_key_", 55))),
            ("blank secrets by capitals", config(&blanks("K_E_Y_", 165))),
            ("blank secrets by camels", config(&blanks("kEyS", 250))),
            ("blank secrets by camels and bars", config(&blanks("kE_yS_", 165))),
            ("blank secrets by short names", config(&blanks("k_e_y_", 2))),
            ("blanks", metadata(&many(r#""""#, 19_990))),
            (
                "blanks deep inside of values",
                config(&format!("{}{}{}", r#"{"value":"#.repeat(60), many(r#"" ""#, 19_900), "}".repeat(60))),
            ),
            ("decimals", metadata(&many(&format!("2.{}1e-308", "2250738585072011".repeat(40)), 750))),
            ("large whole numbers", metadata(&many(&"9".repeat(308), 1600))),
            ("placeholders", metadata(&many(r#""{$TOKEN}""#, 1000))),
            ("too many placeholders", metadata(&many(r#""{$TOKEN}""#, 19_990))),
            ("placeholders in a string", metadata(&format!("\"{}\"", "{$TOKEN}".repeat(60_000)))),
            ("defaults", metadata(&format!("\"{}\"", "{$NO:x}".repeat(70_000)))),
            ("long defaults", metadata(&many(&format!("\"{{$NO:{}}}\"", "x".repeat(500)), 999))),
            ("openings", metadata(&format!("\"{}\"", "{$NO:".repeat(100_000)))),
            ("openings and an end", metadata(&format!("\"{}}}\"", "{$NO:".repeat(100_000)))),
            (
                "guards of placeholders",
                format!(r#"{{"module":"discard","authorization":"{}"}}"#, "{$NO:x}".repeat(70_000)),
            ),
            ("a guard", format!(r#"{{"module":"discard","authorization":"{}"}}"#, "a ".repeat(250_000))),
            (
                "fields to clean",
                format!(r#"{{"module":"discard","credential_cleanup":{{"fields":{}}}}}"#, many(r#""A""#, 19_990)),
            ),
            (
                "errors to try again",
                format!(r#"{{"module":"discard","retry":{{"retryable_errors":{}}}}}"#, many(r#""timeout""#, 19_900)),
            ),
            ("a pointer", format!(r#"{{"module":"discard","dedup":{{"pointer":"{}"}}}}"#, "/~0".repeat(160_000))),
            ("a chain of names", format!(r#"{{"chain":{}}}"#, many(r#""discard""#, 19_990))),
            ("an unknown module", format!(r#"{{"module":"{long}"}}"#)),
            ("an unknown variant", format!(r#"{{"module":"discard","data_type":"{long}"}}"#)),
            ("a long number", metadata(&"1".repeat(500_000))),
            ("digits", metadata(&format!("0.{}", "1".repeat(500_000)))),
            ("what is no JSON", "[".repeat(500_000)),
            ("quotes", "'".repeat(500_000)),
            ("a form", "a=b&".repeat(125_000)),
            ("files", format!(r#"{{"module":"save_to_disk","module-config":{{"path":"{}"}}}}"#, "a/".repeat(250_000))),
            (
                "names of files",
                format!(
                    r#"{{"module":"save_to_disk","module-config":{{"filename_template":"{}"}}}}"#,
                    "{event_id}".repeat(50_000)
                ),
            ),
            (
                "headers",
                format!(
                    r#"{{"module":"http_webhook","module-config":{{"url":"http://example.com/","headers":{}}}}}"#,
                    fields(19_900, r#""v""#)
                ),
            ),
            (
                "hosts",
                format!(
                    r#"{{"module":"http_webhook","module-config":{{"url":"http://example.com/","allowed_hosts":{}}}}}"#,
                    many(r#""a.b""#, 19_900)
                ),
            ),
            ("a target", format!(r#"{{"module":"http_webhook","module-config":{{"url":"http://{long}/"}}}}"#)),
            ("a log", format!(r#"{{"module":"log","module-config":{{"pretty_print":"{long}"}}}}"#)),
            ("items of log", format!(r#"{{"module":"log","module-config":{}}}"#, fields(19_900, "0"))),
        ]
    }

    #[test]
    fn no_value_within_the_bounds_takes_long_to_compile() {
        // It takes less than 10 ms with optimization; the limits allow for a busy machine.
        let limit = if cfg!(debug_assertions) { Duration::from_secs(2) } else { Duration::from_millis(50) };
        for (name, json) in worst_values() {
            assert!(json.len() <= LONGEST, "{name} has {} bytes", json.len());
            let fastest = (0..3).map(|_| {
                let began = Instant::now();
                let _ = compile(&json);
                began.elapsed()
            });
            let fastest = fastest.min().unwrap();
            println!("{fastest:>12.1?} {name}: {}", compile(&json).err().unwrap_or_default());
            assert!(fastest < limit, "{name} takes {fastest:?}");
        }
    }
}
