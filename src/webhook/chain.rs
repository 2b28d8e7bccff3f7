//! The steps of a webhook: the one module, or the items of a chain, that its events go to.

use std::collections::HashSet;

use super::Promise;
use super::spec::{ItemSpec, Spec};
use crate::config::{CompileError, LONGEST, MOST_HELD, Name, Node, Notes, missing_key};
use crate::delivery::{Plan, Retry, RetryConfig};
use crate::event::MAX_STEPS;

/// A step that has been read and not built yet.
pub(crate) struct StepSpec {
    /// The step's index in the chain; `None` without a chain.
    pub(crate) item: Option<usize>,
    pub(crate) module: Name,
    /// The step's own connection; without one it uses the webhook's.
    pub(crate) connection: Option<Name>,
    pub(crate) config: Node,
    pub(crate) retry: Retry,
}

/// Takes the steps out of `spec`, and the plan by which they are executed.
pub(crate) fn take_steps(spec: &mut Spec, notes: &Notes) -> Result<(Vec<StepSpec>, Plan), CompileError> {
    let retry = match (spec.retry.take(), spec.ack) {
        (Some(config), _) => read_retry(config, notes)?,
        (None, Promise::Delivered) => Retry::never(),
        (None, Promise::Accepted) => Retry::accepted(),
    };
    let config = spec.raw.config.take().unwrap_or(Node::Object(Vec::new()));
    if let Some(chain) = spec.raw.chain.take() {
        let steps = read_items(chain, &config, retry, notes).map_err(|error| error.inside("chain"))?;
        return Ok((steps, spec.chain_config.unwrap_or(Plan::CHAIN)));
    }
    if spec.chain_config.is_some() {
        return Err(CompileError::new("`chain-config` requires `chain`"));
    }
    let module = spec.module.take().ok_or_else(module_is_missing)?;
    Ok((vec![StepSpec { item: None, module, connection: None, config, retry }], Plan::ONE))
}

/// Reads the items of a chain. The webhook's `module-config` and `retry` are the defaults of each item.
fn read_items(chain: Node, config: &Node, retry: Retry, notes: &Notes) -> Result<Vec<StepSpec>, CompileError> {
    let items = match chain {
        Node::Array(items) => items,
        other => return Err(other.is_not("an array")),
    };
    if !(1..=MAX_STEPS).contains(&items.len()) {
        return Err(CompileError::new(format!("expected 1 to {MAX_STEPS} items, found {}", items.len())));
    }
    check_copies(config, &items)?;
    let steps = items.into_iter().enumerate().map(|(at, item)| {
        let (place, of_item) = (at.to_string(), Notes::new());
        let step = read_item(at, item, config, retry, &of_item).map_err(|error| error.inside(&place));
        notes.take(&of_item, &["chain", &place]);
        step
    });
    steps.collect()
}

/// Limits the copies of the webhook's `module-config`, one for each item: a small value must not become a large one.
fn check_copies(config: &Node, items: &[Node]) -> Result<(), CompileError> {
    let held = items.iter().map(|item| config.held() + item.held()).sum::<usize>();
    if held > MOST_HELD {
        let text = format!("expected at most {MOST_HELD} keys and items in the `module-config` of all items together");
        return Err(CompileError::new(format!("{text}, found {held}")));
    }
    let copied = config.bytes().saturating_mul(items.len());
    if copied > LONGEST {
        let (most, found) = (LONGEST >> 10, copied.div_ceil(1 << 10));
        let text = format!("expected at most {most} KiB in all copies of `module-config`, one for each item");
        return Err(CompileError::new(format!("{text}, found {found} KiB")));
    }
    Ok(())
}

fn read_item(at: usize, item: Node, config: &Node, retry: Retry, notes: &Notes) -> Result<StepSpec, CompileError> {
    let item = ItemSpec::read(item)?;
    let config = match item.config {
        Some(own) => merge(config.clone(), own).map_err(|error| error.inside("module-config"))?,
        None => config.clone(),
    };
    let retry = item.retry.map_or(Ok(retry), |own| read_retry(own, notes))?;
    let module = item.module.ok_or_else(module_is_missing)?;
    Ok(StepSpec { item: Some(at), module, connection: item.connection, config, retry })
}

/// Reads a `retry`. Each number that was moved into range becomes a warning.
fn read_retry(config: RetryConfig, notes: &Notes) -> Result<Retry, CompileError> {
    let wrong = |(key, wrong)| CompileError::new(wrong).inside(key).inside("retry");
    let (retry, warnings) = Retry::new(config).map_err(wrong)?;
    for (key, text) in warnings {
        let warning = CompileError::new(text);
        notes.warn(key.into_iter().fold(warning, |warning, key| warning.inside(key)).inside("retry"));
    }
    Ok(retry)
}

fn module_is_missing() -> CompileError {
    missing_key("module")
}

/// `base` overlaid with `over`.
fn merge(base: Node, over: Node) -> Result<Node, CompileError> {
    let (mut fields, over) = match (base, over) {
        (Node::Object(fields), Node::Object(over)) => (fields, over),
        (Node::Object(_), other) | (other, _) => return Err(other.is_not("an object")),
    };
    let others: HashSet<&str> = over.iter().map(|(key, _)| key.as_str()).collect();
    fields.retain(|(key, _)| !others.contains(key.as_str()));
    fields.extend(over);
    Ok(Node::Object(fields))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde::Deserialize;

    use crate::config::{Variables, WebhookKey};
    use crate::event::{Ack, DeliverError, Delivery};
    use crate::module::Module;
    use crate::module::connection::tests::Plain;
    use crate::webhook::compile::{Compiler, Connections};
    use crate::webhook::registry::Registry;

    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Options {
        a: u32,
        b: bool,
        c: String,
    }

    struct Shown;

    impl Module for Shown {
        async fn deliver(&self, _: Delivery) -> Result<Ack, DeliverError> {
            Ok(Ack::Delivered)
        }
    }

    /// What each item was built with: its options and its connection.
    fn compile(json: &str) -> Result<Vec<String>, String> {
        let built = Arc::new(Mutex::new(Vec::new()));
        let shown = Arc::clone(&built);
        let registry = Registry::builtin().variables(|name| match name {
            "YES" => Some("true".into()),
            "SECRET" => Some("hunter2".into()),
            _ => None,
        });
        let registry = registry.connection::<Plain>().module_fn("shown", move |Options { a, b, c }: Options, cx| {
            let connection = cx.optional_connection::<Plain>()?;
            let connection = connection.as_ref().map_or("-", |connection| connection.name());
            shown.lock().unwrap().push(format!("{a} {b} {c} {connection}"));
            Ok(Shown)
        });
        let compiler = Compiler::new(registry);
        let connection = |name: &str| compiler.connection(name, br#"{"type": "plain"}"#).outcome.unwrap().into();
        let connections = Connections::from(["one", "two"].map(|name| (name.into(), connection(name))));
        let key = WebhookKey::new("default", "a").unwrap();
        let webhook = compiler
            .read_webhook("default", json.as_bytes(), &Variables::new())
            .outcome
            .and_then(|spec| compiler.build_webhook(&key, spec, &connections))
            .map_err(|error| error.to_string())?;
        assert_eq!(webhook.module_name(), "shown");
        let built = std::mem::take(&mut *built.lock().unwrap());
        Ok(built)
    }

    #[test]
    fn an_item_inherits_from_the_webhook() {
        let built = compile(
            r#"{"module-config": {"a": 1, "c": "x"}, "connection": "one", "chain": [
                "shown",
                {"module": "shown", "connection": "two"},
                {"module-config": {"c": "y", "b": "{$YES}"}, "module": "shown"}]}"#,
        );
        assert_eq!(built.unwrap(), ["1 false x one", "1 false x two", "1 true y one"]);
        assert_eq!(compile(r#"{"module": "log", "chain": ["shown"]}"#).unwrap(), ["0 false  -"]);
    }

    #[test]
    fn an_error_names_its_place() {
        for (json, error) in [
            (r#""chain": []"#, "chain: expected 1 to 20 items, found 0"),
            (r#""chain": "log""#, "chain: expected an array, found a string"),
            (r#""chain": ["log", 1]"#, "chain.1: expected the name of a module, or an object, found a number"),
            (r#""chain": ["lag"]"#, "chain.0.module: there is no module `lag`, did you mean `log`?"),
            (r#""chain": [{"connection": "one"}]"#, "chain.0: the key `module` is missing"),
            (
                r#""chain": [{"module": "log", "modul-config": {}}]"#,
                "chain.0: unknown key `modul-config`, did you mean `module-config`?",
            ),
            (r#""chain": [{"module": "log", "chain": []}]"#, "chain.0: unknown key `chain`"),
            (
                r#""chain": [{"module": "log", "module-config": 1}]"#,
                "chain.0.module-config: expected an object, found a number",
            ),
            (r#""chain": ["log"], "module-config": {"x": 1}"#, "chain.0.module-config: unknown key `x`"),
            (
                r#""chain": ["log", {"module": "log", "connection": "three"}]"#,
                "chain.1.connection: there is no valid connection `three`; add it, or correct its value",
            ),
            (
                r#""chain": ["log"], "connection": "three""#,
                "connection: there is no valid connection `three`; add it, or correct its value",
            ),
            (r#""chain": [{"module": "log", "retry": {"max": 1}}]"#, "chain.0.retry: unknown key `max`"),
            (
                r#""chain": ["log"], "chain-config": {"timout": 1}"#,
                "chain-config: unknown key `timout`, did you mean `timeout`?",
            ),
            (r#""module": "log", "chain-config": {}"#, "`chain-config` requires `chain`"),
        ] {
            assert_eq!(compile(&format!("{{{json}}}")).unwrap_err(), error, "{json}");
        }
        for key in ["topic", "queue_name", "destination", "redis"] {
            let expected = format!("`{key}` is an option of a module: it belongs into `module-config`");
            let error = compile(&format!(r#"{{"chain": [{{"module": "log", {key:?}: "x"}}]}}"#)).unwrap_err();
            assert_eq!(error, format!("chain.0: {expected}"));
            assert_eq!(compile(&format!(r#"{{"chain": ["log"], {key:?}: "x"}}"#)).unwrap_err(), expected);
        }
    }

    #[test]
    fn no_error_quotes_a_value() {
        for json in [
            r#""chain": "hunter2""#,
            r#""chain": ["{$SECRET}"]"#,
            r#""chain": ["x{$SECRET}"]"#,
            r#""chain": [{"module": "log", "connection": "{$SECRET}"}]"#,
            r#""chain": [{"module": "log", "module-config": "hunter2"}]"#,
            r#""chain": [{"module": "log", "topic": "hunter2"}]"#,
            r#""chain": [{"module": "log", "retry": "hunter2"}]"#,
            r#""chain": [{"module": "log", "retry": {"retryable_errors": ["hunter2"]}}]"#,
            r#""chain": ["log"], "chain-config": {"execution": "hunter2"}"#,
            r#""chain": ["log"], "chain-config": {"timeout": "hunter2"}"#,
            r#""module": "log", "credential_cleanup": {"mode": "hunter2"}"#,
        ] {
            let error = compile(&format!("{{{json}}}")).unwrap_err();
            assert!(!error.contains("hunter2"), "{json} -> {error}");
        }
    }

    #[test]
    fn twenty_items_are_enough() {
        let items = |count| compile(&format!(r#"{{"chain": [{}]}}"#, vec![r#""shown""#; count].join(",")));
        assert_eq!(items(20).unwrap().len(), 20);
        assert_eq!(items(21).unwrap_err(), "chain: expected 1 to 20 items, found 21");
    }
}
