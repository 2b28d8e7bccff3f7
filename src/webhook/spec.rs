//! The keys of a webhook, as they are written.
//!
//! A new key is a field of [`Spec`], a row in the table of [`guide::configuration`](crate::guide::configuration), and the
//! code that uses it.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Promise;
use crate::config::{CompileError, DataType, Name, Node, PublicUrl, field_names, legacy, unknown_key};
use crate::dedup::DedupRule;
use crate::delivery::{Cleanup, Plan, RetryConfig};
use crate::handshake::HandshakeConfig;
use crate::history::Kept;

/// The keys of a webhook, with placeholders filled in.
#[derive(Default, Deserialize)]
#[serde(default, expecting = "an object")]
pub(crate) struct Spec {
    /// The module's name.
    pub(crate) module: Option<Name>,
    /// The name of the connection that the modules use.
    pub(crate) connection: Option<Name>,
    /// The type of the bodies.
    pub(crate) data_type: DataType,
    /// The address by which its senders know it.
    pub(crate) public_url: Option<PublicUrl>,
    /// The promise of a 2xx answer.
    pub(crate) ack: Promise,
    /// How duplicate events are recognised.
    pub(crate) dedup: Option<DedupRule>,
    /// How much a history keeps of its events.
    pub(crate) history: Kept,
    /// How its provider makes sure of it.
    pub(crate) handshake: Option<HandshakeConfig>,
    /// When a failed attempt is followed by another.
    pub(crate) retry: Option<RetryConfig>,
    /// How the items of a chain are executed.
    #[serde(rename = "chain-config")]
    pub(crate) chain_config: Option<Plan>,
    /// More proxies that `ip_allow` trusts.
    pub(crate) trusted_proxies: Option<Vec<String>>,
    /// Which credentials are withheld from the modules.
    pub(crate) credential_cleanup: Option<Cleanup>,
    #[serde(skip)]
    pub(crate) raw: Raw,
}

/// The keys that are read later, by a module or a scheme, or are never read.
#[derive(Default)]
pub(crate) struct Raw {
    /// `module-config`.
    pub(crate) config: Option<Node>,
    pub(crate) chain: Option<Node>,
    pub(crate) metadata: Option<Node>,
    /// The key of each guard, as written, and its value.
    pub(crate) guards: Vec<(String, Node)>,
}

/// The keys of a webhook whose values are kept as they are.
const RAW: [&str; 3] = ["module-config", "chain", "metadata"];

impl Spec {
    /// Reads the keys of a webhook; `guards` are the keys that configure guards.
    pub(crate) fn read(fields: Vec<(String, Node)>, guards: &[&'static str]) -> Result<Self, CompileError> {
        legacy::check_guard_keys(fields.iter().map(|(key, _)| key.as_str()))?;
        let mut raw = Raw::default();
        let mut rest = Vec::with_capacity(fields.len());
        for (key, value) in legacy::module_keys(fields)? {
            match key.as_str() {
                "module-config" => raw.config = Some(value),
                "chain" => raw.chain = Some(value),
                "metadata" => raw.metadata = Some(value),
                guard if guards.contains(&legacy::guard_key(guard)) => raw.guards.push((key, value)),
                "retry" => rest.push((key, legacy::retry(value))),
                _ => rest.push((key, value)),
            }
        }
        let others = RAW.iter().chain(guards).copied();
        Ok(Self { raw, ..read_keys(rest, others, legacy::webhook_key)? })
    }
}

/// The keys of a chain's item, as they are written.
#[derive(Default, Deserialize)]
#[serde(default, expecting = "an object")]
pub(crate) struct ItemSpec {
    /// The module's name.
    pub(crate) module: Option<Name>,
    /// The connection's name, if it differs from the webhook's.
    pub(crate) connection: Option<Name>,
    /// The item's own `retry`, if it differs from the webhook's.
    pub(crate) retry: Option<RetryConfig>,
    /// `module-config`: the keys that differ from the webhook's.
    #[serde(skip)]
    pub(crate) config: Option<Node>,
}

impl ItemSpec {
    /// Reads an item: an object, or the name of a module.
    pub(crate) fn read(item: Node) -> Result<Self, CompileError> {
        let fields = match item {
            Node::Object(fields) => fields,
            name @ (Node::String(_) | Node::Expanded(_) | Node::Filled(_)) => vec![("module".to_owned(), name)],
            other => return Err(other.is_not("the name of a module, or an object")),
        };
        let mut config = None;
        let mut rest = Vec::with_capacity(fields.len());
        for (key, value) in fields {
            match key.as_str() {
                "module-config" => config = Some(value),
                "retry" => rest.push((key, legacy::retry(value))),
                _ => rest.push((key, value)),
            }
        }
        Ok(Self { config, ..read_keys(rest, ["module-config"].into_iter(), legacy::item_key)? })
    }
}

/// Reads the fields of a `T`, all of which have defaults. A key that is present must have a value. `others` are keys
/// that `T` does not know and a hint may name; `refusal` explains why some keys are refused.
fn read_keys<T: DeserializeOwned>(
    fields: Vec<(String, Node)>,
    others: impl Iterator<Item = &'static str>,
    refusal: fn(&str) -> Option<CompileError>,
) -> Result<T, CompileError> {
    let known = field_names::<T>();
    if let Some((key, _)) = fields.iter().find(|(key, _)| !known.contains(&key.as_str())) {
        let unknown = || CompileError::new(unknown_key(key, known.iter().copied().chain(others)));
        return Err(refusal(key).unwrap_or_else(unknown));
    }
    // serde would treat null like a missing key.
    if let Some((key, _)) = fields.iter().find(|(_, value)| matches!(value, Node::Null)) {
        return Err(CompileError::new("expected a value, found null; leave it out").inside(key));
    }
    Node::Object(fields).read()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Spec, String> {
        let Ok(Node::Object(fields)) = Node::parse(json.as_bytes()) else { panic!("{json}") };
        Spec::read(fields, &["authorization"]).map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_is_in_the_table_of_the_docs() {
        let docs = include_str!("../docs/configuration.md");
        let keys = field_names::<Spec>().iter().chain(&RAW);
        for key in keys {
            assert!(docs.contains(&format!("\n| `{key}` | ")), "{key}");
        }
    }

    #[test]
    fn a_hint_may_name_a_key_of_any_kind() {
        for (key, nearest) in [
            ("modul", "module"),
            ("module_config", "module-config"),
            ("chain_config", "chain-config"),
            ("metdata", "metadata"),
            ("autorization", "authorization"),
        ] {
            let error = read(&format!("{{{key:?}: null}}")).err().unwrap();
            assert_eq!(error, format!("unknown key `{key}`, did you mean `{nearest}`?"));
        }
    }

    #[test]
    fn a_key_without_a_value_is_refused() {
        for key in field_names::<Spec>() {
            let error = read(&format!("{{{key:?}: null}}")).err().unwrap();
            assert_eq!(error, format!("{key}: expected a value, found null; leave it out"));
        }
        assert!(read(r#"{"metadata": null, "module-config": null, "authorization": null}"#).is_ok());
    }
}
