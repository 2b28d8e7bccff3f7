//! Configuration from two files.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::ignored::{Ignored, Logged};
use crate::base::stamp::Stamp;
use crate::config::{Key, WebhookKey, shown};
use crate::json::NotJson;
use crate::reflector::{Feed, Source};
use crate::store::{Revision, SourceState};

/// How often the files are checked for changes.
const POLL: Duration = Duration::from_millis(250);

/// Webhooks and connections from two JSON files, which are loaded again when they change.
///
/// The files are checked four times a second, by path: a change in place, a rename over the file, and the swap of a
/// symbolic link in Kubernetes are all seen. The webhooks' file holds `{"id": {...}}` for the default namespace, or
/// `{"namespaces": {"ns": {"id": {...}}}}`. The connections' file holds `{"name": {...}}`, and may be missing.
///
/// If a file cannot be read or does not have that shape, nothing changes: the last good configuration is served. The
/// same holds if the connections' file existed and is missing now; a file with `{}` has no connections. A webhook that
/// does not compile affects only itself. A name that no request could ask for is ignored: it is logged once, and the
/// store's status lists it.
///
/// `examples/file_source.rs` is a server whose webhooks are in a file.
#[derive(Clone, Debug)]
pub struct FileSource {
    webhooks: PathBuf,
    connections: PathBuf,
    default_namespace: String,
}

impl FileSource {
    /// Reads webhooks and connections from these files. Webhooks without a namespace belong to `default`.
    pub fn new(webhooks: impl Into<PathBuf>, connections: impl Into<PathBuf>) -> Self {
        Self { webhooks: webhooks.into(), connections: connections.into(), default_namespace: "default".to_owned() }
    }

    /// Sets the namespace of webhooks without one. The default is `default`.
    #[must_use]
    pub fn default_namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.default_namespace);
        self
    }
}

impl Source for FileSource {
    const NAME: &'static str = "file";

    async fn run(self, mut feed: Feed) {
        let mut seen = None;
        let mut served = None;
        let mut logged = Logged::default();
        let mut revision: Revision = 0;
        loop {
            let looked_at = SystemTime::now();
            let stamps = [Stamp::of(&self.webhooks), Stamp::of(&self.connections)];
            if seen != Some(stamps) {
                let source = self.clone();
                let had_connections = served.as_ref().is_some_and(|served: &Contents| served.has_connections_file);
                let read = tokio::task::spawn_blocking(move || source.read(had_connections)).await;
                let read = read.unwrap_or_else(|error| Err(error.to_string()));
                // After an error, the files are read again even if they do not change.
                let settled = read.is_ok() && stamps.iter().all(|stamp| stamp.is_settled(looked_at));
                match read {
                    Ok(contents) => {
                        if served.as_ref() != Some(&contents) {
                            revision += 1;
                            replace(&mut feed, revision, &contents, &mut logged).await;
                            served = Some(contents);
                        }
                        feed.state(SourceState::Live);
                    }
                    Err(reason) => feed.state(SourceState::Disconnected(reason)),
                }
                seen = settled.then_some(stamps);
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The contents of the two files.
#[derive(Default, PartialEq)]
struct Contents {
    has_connections_file: bool,
    entries: Vec<(Key, Bytes)>,
    /// Names that no request could ask for, in the form of keys in etcd.
    ignored: Vec<String>,
}

async fn replace(feed: &mut Feed, revision: Revision, contents: &Contents, logged: &mut Logged) {
    let mut replacement = feed.replace().await;
    for (key, value) in &contents.entries {
        replacement.put(key.clone(), revision, value.clone()).await;
    }
    let mut ignored = Ignored::default();
    contents.ignored.iter().for_each(|key| ignored.add("", key.as_bytes(), logged));
    feed.ignored_keys(ignored.total(), ignored.list());
    feed.commit(replacement, revision).await;
}

impl FileSource {
    fn read(&self, had_connections_file: bool) -> Result<Contents, String> {
        let mut contents = Contents::default();
        let text = read(&self.webhooks)?.ok_or_else(|| format!("{} does not exist", self.webhooks.display()))?;
        let file: Unique<&RawValue> = parse(&self.webhooks, &text)?;
        match file.0.get("namespaces") {
            Some(_) if file.0.len() == 1 => {
                // The whole file again, so that an error has its position in the file.
                let file: Namespaces<'_> = parse(&self.webhooks, &text)?;
                for (namespace, webhooks) in &file.namespaces.0 {
                    contents.add(namespace, &webhooks.0);
                }
            }
            Some(_) => {
                let shown = self.webhooks.display();
                return Err(format!("{shown}: expected only the key `namespaces`, found other keys beside it"));
            }
            None => contents.add(&self.default_namespace, &file.0),
        }
        if let Some(text) = read(&self.connections)? {
            contents.has_connections_file = true;
            let file: Unique<&RawValue> = parse(&self.connections, &text)?;
            for (name, json) in &file.0 {
                match Key::connection(name) {
                    Ok(key) => contents.entries.push((key, bytes(json))),
                    Err(_) => contents.ignored.push(format!("global/connections/{name}")),
                }
            }
        } else if had_connections_file {
            // The file may be about to be replaced. Until then its variables must stay reserved.
            let shown = self.connections.display();
            return Err(format!("{shown} does not exist any more; to have no connections, write `{{}}` into it"));
        }
        Ok(contents)
    }
}

impl Contents {
    fn add(&mut self, namespace: &str, webhooks: &BTreeMap<String, &RawValue>) {
        for (id, json) in webhooks {
            match WebhookKey::new(namespace, id) {
                Ok(key) => self.entries.push((Key::Webhook(key), bytes(json))),
                Err(_) => self.ignored.push(format!("{namespace}/webhooks/{id}")),
            }
        }
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

fn parse<'a, T: Deserialize<'a>>(path: &Path, text: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(text).map_err(|error| {
        let (path, line, column) = (path.display(), error.line(), error.column());
        let words = error.to_string();
        // serde_json's messages for a wrong type quote the value, which may be a secret; those for wrong syntax do not.
        match (error.is_data(), NotJson::detect(text)) {
            (true, _) if words.starts_with(DUPLICATE) => format!("{path}: {words}"),
            (true, _) => format!("{path}: expected an object, found another value at line {line} column {column}"),
            (false, Some(instead)) => format!("{path}: expected JSON, found {}", instead.found()),
            (false, None) => format!("{path}: expected JSON: {words}"),
        }
    })
}

fn bytes(json: &RawValue) -> Bytes {
    Bytes::copy_from_slice(json.get().as_bytes())
}

/// A webhooks' file that names namespaces.
#[derive(serde::Deserialize)]
struct Namespaces<'a> {
    #[serde(borrow)]
    namespaces: Unique<Unique<&'a RawValue>>,
}

/// The start of the message for a duplicate key, the only one that names a key.
const DUPLICATE: &str = "duplicate key";

/// A JSON object. A duplicate key is an error.
struct Unique<V>(BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<V>(PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for Fields<V> {
            type Value = Unique<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unique<V>, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, V>()? {
                    let shown = shown(&key);
                    if fields.insert(key, value).is_some() {
                        return Err(de::Error::custom(format_args!("{DUPLICATE} `{shown}`")));
                    }
                }
                Ok(Unique(fields))
            }
        }

        deserializer.deserialize_map(Fields(PhantomData))
    }
}
