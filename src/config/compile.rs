//! From bytes to a webhook. Pure: no file, no socket, no clock; only the registry's variables are looked up.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;

use super::chain::{Route, StepSpec, identity};
use super::error::unknown_key;
use super::placeholder::expand;
use super::{BuildContext, CompileError, Connection, Node, Promise, Registry, Webhook};
use crate::auth::{Guards, Scheme};
use crate::dedup::DedupRule;
use crate::delivery::{Cleanup, NamespaceGates, Plan, Retry, Step, Steps};
use crate::key::WebhookKey;
use crate::payload::DataType;

/// Keys of a webhook that are not a scheme's.
const KEYS: [&str; 11] = [
    "module",
    "module-config",
    "data_type",
    "ack",
    "dedup",
    "connection",
    "retry",
    "chain",
    "chain-config",
    "credential_cleanup",
    "metadata",
];

/// Keys that the service this one replaces knew, and whose promise is not kept here: refused by name, so that nobody
/// searches for a spelling mistake.
const UNSUPPORTED: [&str; 16] = [
    "basic_auth",
    "digest_auth",
    "header_auth",
    "hmac",
    "ip_whitelist",
    "json_schema",
    "jwt",
    "oauth1",
    "oauth2",
    "query_auth",
    "rate_limit",
    "recaptcha",
    "queue_name",
    "redis",
    "topic",
    "trusted_proxies",
];

/// The connections a webhook may name.
pub(crate) type Connections = HashMap<Box<str>, Arc<Connection>>;

/// Makes webhooks and connections of bytes.
#[derive(Clone, Debug)]
pub(crate) struct Compiler {
    registry: Registry,
    gates: NamespaceGates,
}

/// A webhook that has been read and not yet built: it may name connections.
pub(crate) struct WebhookSpec {
    data_type: DataType,
    promise: Promise,
    connection: Option<String>,
    guards: Vec<(String, Node)>,
    dedup: Option<DedupRule>,
    steps: Vec<StepSpec>,
    plan: Plan,
    cleanup: Option<Cleanup>,
    metadata: Option<Node>,
}

impl WebhookSpec {
    /// The connections it names; some of them more than once.
    pub(crate) fn connections(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().map(|step| &step.connection).chain([&self.connection]).filter_map(|name| name.as_deref())
    }
}

impl Compiler {
    pub(crate) fn new(registry: Registry) -> Self {
        Self { registry, gates: NamespaceGates::default() }
    }

    pub(crate) fn read_webhook(&self, json: &[u8]) -> Result<WebhookSpec, CompileError> {
        let mut route = Route::new();
        let (mut data_type, mut promise) = (DataType::default(), Promise::default());
        let (mut guards, mut dedup, mut cleanup, mut metadata) = (Vec::new(), None, None, None);
        for (key, value) in self.read_object(json)? {
            match key.as_str() {
                "module" => route.module = Some(read_field(&key, value)?),
                "module-config" => route.config = value,
                "connection" => route.connection = Some(read_field(&key, value)?),
                "retry" => route.retry = Some(read_field(&key, value)?),
                "chain" => route.chain = Some(value),
                "chain-config" => route.plan = Some(read_field(&key, value)?),
                "data_type" => data_type = read_field(&key, value)?,
                "ack" => promise = self.read_promise(&key, value)?,
                "dedup" => dedup = Some(self.read_dedup(value).map_err(|error| error.inside(&key))?),
                "credential_cleanup" => cleanup = Some(read_field(&key, value)?).filter(Cleanup::is_enabled),
                "metadata" => metadata = Some(value),
                _ if self.registry.scheme_keys().any(|scheme| scheme == key) => guards.push((key, value)),
                _ => return Err(CompileError::new(self.refuse_key(&key))),
            }
        }
        if data_type != DataType::Json && dedup.as_ref().is_some_and(DedupRule::needs_json) {
            return Err(CompileError::new("a `pointer` needs the `data_type` json").inside("dedup"));
        }
        let connection = route.connection.clone();
        let (steps, plan) = route.into_steps(match promise {
            Promise::Delivered => Retry::never(),
            Promise::Accepted => Retry::accepted(),
        })?;
        Ok(WebhookSpec { data_type, promise, connection, guards, dedup, steps, plan, cleanup, metadata })
    }

    pub(crate) fn build_webhook(
        &self,
        key: &WebhookKey,
        spec: WebhookSpec,
        connections: &Connections,
    ) -> Result<Webhook, CompileError> {
        let connection = find(spec.connection.as_deref(), connections)?;
        let cx = BuildContext { webhook: key, data_type: spec.data_type, connection };
        let guards = spec
            .guards
            .into_iter()
            .map(|(key, config)| self.registry.build_scheme(&key, config, &cx))
            .collect::<Result<Vec<Arc<dyn Scheme>>, _>>()?;
        let identity = identity(&spec.steps);
        let steps = spec.steps.into_iter().map(|step| match step.item {
            None => self.build_step(step, cx, connections),
            Some(at) => self.build_step(step, cx, connections).map_err(|e| e.inside(&at.to_string()).inside("chain")),
        });
        Ok(Webhook {
            key: key.clone(),
            data_type: spec.data_type,
            promise: spec.promise,
            guards: Guards::new(guards),
            dedup: spec.dedup,
            gates: self.gates.for_webhook(key.namespace()),
            steps: Steps::new(steps.collect::<Result<_, _>>()?, spec.plan, spec.cleanup, identity),
            metadata: spec.metadata.map(|node| Box::new(node.into_value())),
        })
    }

    fn build_step(
        &self,
        spec: StepSpec,
        cx: BuildContext<'_>,
        connections: &Connections,
    ) -> Result<Step, CompileError> {
        let cx = BuildContext { connection: find(spec.connection.as_deref(), connections)?, ..cx };
        let (name, module) = self.registry.build_module(&spec.module, spec.config, &cx)?;
        Ok(Step::new(name, module, spec.retry))
    }

    pub(crate) fn connection(&self, name: &str, json: &[u8]) -> Result<Connection, CompileError> {
        let mut fields = self.read_object(json)?;
        let at = fields
            .iter()
            .position(|(key, _)| key == "type")
            .ok_or_else(|| CompileError::new("the key `type` is missing"))?;
        let (key, kind) = fields.remove(at);
        let kind: String = read_field(&key, kind)?;
        Ok(Connection { name: name.into(), kind: kind.into(), config: Node::Object(fields) })
    }

    fn read_promise(&self, key: &str, value: Node) -> Result<Promise, CompileError> {
        match read_field(key, value)? {
            Promise::Accepted if !self.registry.is_accepting() => {
                Err(CompileError::new("`accepted` needs a spool, and there is none").inside(key))
            }
            promise => Ok(promise),
        }
    }

    fn read_dedup(&self, value: Node) -> Result<DedupRule, CompileError> {
        let rule = value.read()?;
        match self.registry.has_dedup() {
            true => Ok(rule),
            // To let events pass twice would be to break what the key promises.
            false => {
                Err(CompileError::new("this application keeps no store of events (a gateway does with SPOOL_DIR)"))
            }
        }
    }

    fn read_object(&self, json: &[u8]) -> Result<Vec<(String, Node)>, CompileError> {
        let Node::Object(fields) = Node::parse(json)? else { return Err(CompileError::new("not a JSON object")) };
        let is_guard = |key: &str| self.registry.scheme_keys().any(|scheme| scheme == key);
        let fields = fields.into_iter().map(|(key, value)| {
            // A variable that is set to nothing would leave of a credential what everybody knows: `Token `.
            match expand(value, self.registry.lookup(), is_guard(&key)) {
                Ok(value) => Ok((key, value)),
                Err(error) => Err(error.inside(&key)),
            }
        });
        fields.collect()
    }

    fn refuse_key(&self, key: &str) -> String {
        if UNSUPPORTED.contains(&key) {
            return format!("the key `{key}` is not supported by this version");
        }
        unknown_key(key, KEYS.into_iter().chain(self.registry.scheme_keys()))
    }
}

fn find<'a>(name: Option<&str>, connections: &'a Connections) -> Result<Option<&'a Arc<Connection>>, CompileError> {
    let Some(name) = name else { return Ok(None) };
    // The name is not told: by mistake, it may be the value of a variable that is a secret.
    let missing = || CompileError::new("there is no valid connection of this name").inside("connection");
    connections.get(name).map(Some).ok_or_else(missing)
}

pub(super) fn read_field<T: for<'de> Deserialize<'de>>(key: &str, value: Node) -> Result<T, CompileError> {
    value.read().map_err(|error| error.inside(key))
}

/// No value makes the compiler panic, and no error quotes much of it.
#[cfg(fuzzing)]
pub(crate) fn fuzz(json: &[u8]) {
    let compiler = Compiler::new(Registry::builtin());
    let Ok(key) = WebhookKey::new("default", "fuzzed") else { return };
    let built = compiler.read_webhook(json).and_then(|spec| compiler.build_webhook(&key, spec, &Connections::new()));
    match built {
        Ok(webhook) => drop(format!("{webhook:?}")),
        Err(error) => assert!(error.to_string().len() < 2000),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compile(json: &str) -> Result<Webhook, String> {
        let registry = Registry::builtin().variables(|name| match name {
            "TOKEN" => Some("from-env".into()),
            "PRETTY" => Some("true".into()),
            "BLANK" => Some(" ".into()),
            "EMPTY" => Some(String::new()),
            _ => None,
        });
        let compiler = Compiler::new(registry);
        let key = WebhookKey::new("default", "a").unwrap();
        compiler
            .read_webhook(json.as_bytes())
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
        ] {
            let error = compile(&format!(r#"{{"module":"discard","authorization":{value}}}"#)).unwrap_err();
            assert!(error.starts_with("authorization: "), "{value} -> {error}");
        }
    }

    #[test]
    fn what_is_misspelt_is_named() {
        let error = |json| compile(json).unwrap_err();
        assert_eq!(
            error(r#"{"module":"discard","autorization":"Bearer x"}"#),
            "unknown key `autorization`, did you mean `authorization`?"
        );
        assert_eq!(error(r#"{"module":"lag"}"#), "module: there is no module of this name, did you mean `log`?");
        assert_eq!(
            error(r#"{"module":"log","module-config":{"prety_print":true}}"#),
            "module-config: unknown key `prety_print`, did you mean `pretty_print`?"
        );
        assert_eq!(error(r#"{"module":"discard","data_type":"xml"}"#), "data_type: must be one of `json`, `blob`");
        assert_eq!(
            error(r#"{"module":"discard","hmac":{"secret":"x"}}"#),
            "the key `hmac` is not supported by this version"
        );
    }

    #[test]
    fn a_dedup_that_could_not_be_kept_does_not_compile() {
        let dedup = |has_dedup, rest: &str| {
            let compiler = Compiler::new(Registry::builtin().dedup(has_dedup));
            let spec = compiler.read_webhook(format!(r#"{{"module":"discard","dedup":{rest}}}"#).as_bytes());
            spec.map(|spec| assert!(spec.dedup.is_some())).map_err(|error| error.to_string())
        };
        assert_eq!(dedup(true, r#"{"header":"X-GitHub-Delivery","ttl":60}"#), Ok(()));
        assert_eq!(dedup(true, r#"{"digest":true},"data_type":"blob""#), Ok(()));
        for (rest, error) in [
            (r#"{"hedder":"x"}"#, "dedup: unknown key `hedder`, did you mean `header`?"),
            (r#"{"header":"x","digest":true}"#, "dedup: there must be exactly one of `header`, `pointer`, `digest`"),
            (r#"{"digest":true,"ttl":0}"#, "dedup: `ttl` must be from 1 to 2592000 seconds"),
            (r#"{"pointer":"/id"},"data_type":"blob""#, "dedup: a `pointer` needs the `data_type` json"),
            ("true", "dedup: must be an object, and is boolean"),
        ] {
            assert_eq!(dedup(true, rest).unwrap_err(), error);
        }
        let error = dedup(false, r#"{"digest":true}"#).unwrap_err();
        assert!(error.starts_with("dedup: this application keeps no store"), "{error}");
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

    #[test]
    fn connections_are_shared_and_checked() {
        let compiler = Compiler::new(Registry::builtin());
        let connection = compiler.connection("db", br#"{"type": "x", "port": 1}"#).unwrap();
        assert_eq!((connection.name(), connection.kind()), ("db", "x"));
        assert!(compiler.connection("db", br#"{"port": 1}"#).is_err());
        assert!(!format!("{connection:?}").contains("port"));

        let spec = compiler.read_webhook(br#"{"module":"discard","connection":"db"}"#).unwrap();
        assert!(spec.connections().all(|name| name == "db"));
        let connections = Connections::from([("db".into(), Arc::new(connection))]);
        let key = WebhookKey::new("default", "a").unwrap();
        assert!(compiler.build_webhook(&key, spec, &connections).is_ok());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_compiler_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = Compiler::new(Registry::builtin()).read_webhook(&bytes);
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
}
