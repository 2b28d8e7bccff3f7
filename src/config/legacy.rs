//! Compatibility with the configurations of the Python service that this crate replaces. Everything that exists only
//! for those configurations is in this file.
//!
//! | in an old configuration | here |
//! |---|---|
//! | the guard `ip_whitelist` | read as `ip_allow` ([`guard_key`]) |
//! | options of a module among the keys of its webhook ([`MODULE_KEYS`]) | read as if they stood in `module-config` |
//! | keys of a webhook that are not supported ([`WEBHOOK_KEYS`]) | refused by name, so that nobody looks for a spelling mistake |
//! | such options of another module, or of a chain's item ([`OPTIONS`]) | refused, with the place where they belong |
//! | connections of the type `redis-rq` | read as `redis` ([`connection_type`]) |
//! | connections whose `type` has no registered kind ([`CONNECTION_TYPES`]) | refused as not supported yet |
//! | class names of Python's errors in `retry` ([`CLASSES`]), plain or qualified | read as the label of the same kind of error |

use super::{CompileError, Node};

/// Keys of a webhook that are not supported.
const WEBHOOK_KEYS: [&str; 9] = [
    // This one and `hmac` are, with a feature.
    "basic_auth",
    "digest_auth",
    "hmac",
    "json_schema",
    "jwt",
    "oauth1",
    "oauth2",
    "rate_limit",
    "recaptcha",
];

/// Keys of a webhook that are options of this module.
const MODULE_KEYS: [(&str, &str); 4] =
    [("kafka", "topic"), ("mqtt", "topic"), ("rabbitmq", "queue_name"), ("redis_publish", "redis")];

/// Options of modules that an old configuration may have among the keys of a webhook or of a chain's item.
const OPTIONS: [&str; 4] = ["topic", "queue_name", "destination", "redis"];

/// Types of connections that the old service knew.
const CONNECTION_TYPES: [&str; 13] = [
    "activemq",
    "aws_sqs",
    "clickhouse",
    "gcp_pubsub",
    "kafka",
    "mariadb",
    "mqtt",
    "mysql",
    "postgres",
    "postgresql",
    "rabbitmq",
    "redis-rq",
    "s3",
];

/// Classes of Python's errors, and the kind of error that each means.
const CLASSES: [(&str, &str); 13] = [
    ("ConnectionError", "connect"),
    ("ConnectionRefusedError", "connect"),
    ("ConnectionResetError", "connect"),
    ("ConnectionAbortedError", "connect"),
    ("BrokenPipeError", "connect"),
    ("TimeoutError", "timeout"),
    ("OSError", "io"),
    ("IOError", "io"),
    ("AuthenticationError", "auth"),
    ("PermissionError", "auth"),
    ("ValueError", "config"),
    ("KeyError", "config"),
    ("TypeError", "config"),
];

/// The current name of this key of a guard.
pub(crate) fn guard_key(key: &str) -> &str {
    match key {
        "ip_whitelist" => "ip_allow",
        key => key,
    }
}

/// Refuses a guard that is configured under both of its names.
pub(crate) fn check_guard_keys<'a>(keys: impl Iterator<Item = &'a str> + Clone) -> Result<(), CompileError> {
    let old = keys.clone().find(|old| guard_key(old) != *old && keys.clone().any(|key| key == guard_key(old)));
    match old {
        Some(old) => Err(CompileError::new(format!("expected `{}` or `{old}`, found both", guard_key(old)))),
        None => Ok(()),
    }
}

/// The keys of a webhook with the options of its module in `module-config`.
pub(crate) fn module_keys(mut fields: Vec<(String, Node)>) -> Result<Vec<(String, Node)>, CompileError> {
    let module = fields.iter().find_map(|(key, value)| match value {
        Node::String(name) | Node::Expanded(name) | Node::Filled(name) if key == "module" => Some(name.clone()),
        _ => None,
    });
    for (_, key) in MODULE_KEYS.iter().filter(|(of, _)| module.as_deref() == Some(*of)) {
        let Some(at) = fields.iter().position(|(name, _)| name == key) else { continue };
        let option = fields.remove(at);
        match fields.iter_mut().find(|(name, _)| name == "module-config") {
            None => fields.push(("module-config".to_owned(), Node::Object(vec![option]))),
            Some((_, Node::Object(options))) if options.iter().all(|(name, _)| name != key) => options.push(option),
            Some((_, Node::Object(_))) => {
                return Err(CompileError::new(format!("`{key}` is in `module-config` too; expected it there only")));
            }
            // The error of `module-config` comes first.
            Some(_) => {}
        }
    }
    Ok(fields)
}

/// Why this key of a webhook is refused.
pub(crate) fn webhook_key(key: &str) -> Option<CompileError> {
    let text = || format!("the key `{key}` is not supported by this version");
    item_key(key).or_else(|| WEBHOOK_KEYS.contains(&key).then(|| CompileError::new(text())))
}

/// Why this key of a chain's item is refused.
pub(crate) fn item_key(key: &str) -> Option<CompileError> {
    let text = || format!("`{key}` is an option of a module: it belongs into `module-config`");
    OPTIONS.contains(&key).then(|| CompileError::new(text()))
}

/// The current name of this type of connections.
pub(crate) fn connection_type(name: &str) -> &str {
    match name {
        "redis-rq" => "redis",
        name => name,
    }
}

/// Whether it knew connections of this type.
pub(crate) fn is_connection_type(name: &str) -> bool {
    CONNECTION_TYPES.contains(&name)
}

/// The key `retry` with the labels of errors in place of Python's classes.
pub(crate) fn retry(mut value: Node) -> Node {
    let Node::Object(fields) = &mut value else { return value };
    for (key, list) in fields {
        let Node::Array(names) = list else { continue };
        if matches!(key.as_str(), "retryable_errors" | "non_retryable_errors") {
            names.iter_mut().for_each(rename);
        }
    }
    value
}

fn rename(name: &mut Node) {
    let (Node::String(text) | Node::Expanded(text) | Node::Filled(text)) = name else { return };
    let class = text.rsplit('.').next().unwrap_or(text);
    if let Some((_, label)) = CLASSES.iter().find(|(known, _)| *known == class) {
        *text = (*label).to_owned();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_python_are_read_as_labels() {
        for (class, label) in CLASSES.into_iter().chain([
            ("builtins.ConnectionResetError", "connect"),
            ("asyncio.exceptions.TimeoutError", "timeout"),
            ("connect", "connect"),
            ("any", "any"),
            ("x.any", "x.any"),
            ("ConnectionError.", "ConnectionError."),
            ("Timeout", "Timeout"),
        ]) {
            for key in ["retryable_errors", "non_retryable_errors"] {
                let json =
                    |name| Node::parse(format!(r#"{{"enabled": true, {key:?}: [{name:?}]}}"#).as_bytes()).unwrap();
                assert!(retry(json(class)) == json(label), "{class}");
            }
        }
        let other = || Node::parse(br#"{"max_attempts": ["ConnectionError"]}"#).unwrap();
        assert!(retry(other()) == other());
    }

    #[test]
    fn options_among_the_keys_of_a_webhook_belong_to_its_module() {
        let read = |json: &str| {
            let Ok(Node::Object(fields)) = Node::parse(json.as_bytes()) else { panic!("{json}") };
            module_keys(fields).map(|fields| fields.into_iter().collect::<std::collections::BTreeMap<_, _>>())
        };
        let same = |old: &str, new: &str| assert!(read(old).unwrap() == read(new).unwrap(), "{old}");
        same(
            r#"{"module": "redis_publish", "redis": {"port": 1}}"#,
            r#"{"module": "redis_publish", "module-config": {"redis": {"port": 1}}}"#,
        );
        same(
            r#"{"module": "redis_publish", "redis": {}, "module-config": {"format": "body"}}"#,
            r#"{"module": "redis_publish", "module-config": {"format": "body", "redis": {}}}"#,
        );
        same(r#"{"topic": "t", "module": "kafka"}"#, r#"{"module": "kafka", "module-config": {"topic": "t"}}"#);
        assert!(read(r#"{"module": "log", "redis": {}}"#).unwrap().contains_key("redis"));
        assert!(read(r#"{"module": "redis_publish", "redis": {}, "module-config": {"redis": {}}}"#).is_err());
    }

    #[test]
    fn each_label_is_a_kind_of_error() {
        for (_, label) in CLASSES {
            assert!(crate::event::DeliverErrorKind::ALL.into_iter().any(|kind| kind.label() == label), "{label}");
        }
    }
}
