//! `save_to_disk`: writes each event to a file of its own.

use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, DirBuilder, DirBuilderExt, OpenOptions, OpenOptionsExt};
use http::HeaderName;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::{ConfigModule, Module};
use crate::base::directory;
use crate::config::{BuildContext, BuildError, DataType, WebhookKey};
use crate::event::{Ack, DeliverError, DeliverErrorKind, Delivery};

/// The default root.
const DEFAULT_ROOT: &str = "./data";

/// The most events that are written at a time, by all webhooks together. So a disk that hangs blocks at most this many
/// threads; an event that waits for one of them is refused with 504 in the end.
const MAX_WRITES: usize = 64;

static WRITES: Semaphore = Semaphore::const_new(MAX_WRITES);

/// The longest name of a file or directory, in bytes.
const MAX_FILE_NAME: usize = 255;

/// The longest `path`, in bytes.
const MAX_PATH: usize = 4096;

/// The most directories below one another: each event opens them one by one.
const MAX_PARTS: usize = 64;

/// Writes each event's body, byte for byte, to a file of its own.
///
/// A file appears under its name only when it is complete: it is written under a temporary name, synced and renamed,
/// and its directory is synced, before the sender gets an answer. Files have mode 0600, new directories 0700. Nothing
/// is ever written outside of the root, neither through `..` nor through a symbolic link.
#[derive(Clone, Debug)]
pub struct SaveToDisk {
    target: Arc<Place>,
}

#[derive(Debug)]
struct Place {
    root: PathBuf,
    /// Relative to the root.
    directory: PathBuf,
    template: Template,
}

/// The options of [`SaveToDisk`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaveToDiskConfig {
    /// The directory: relative to the root, or an absolute path inside of it. The default is the root itself. At most
    /// 4,096 bytes in 64 parts of at most 255 bytes each, without control characters. The first event creates it.
    #[serde(default)]
    pub path: PathBuf,
    /// The name of each file, with `{timestamp}` (UTC, `20261123T051434.123Z`), `{event_id}`, `{namespace}` and
    /// `{webhook_id}`. It must contain `{event_id}`, or one event would overwrite another. The default is
    /// `{event_id}.json`, `{event_id}.form` or `{event_id}.bin`, by the webhook's `data_type`.
    pub filename_template: Option<String>,
}

impl SaveToDisk {
    /// Keeps files below `root`, which the first event creates.
    ///
    /// # Errors
    ///
    /// When `path` leads out of the root, or the template is not a valid file name.
    pub fn new(root: impl AsRef<Path>, config: SaveToDiskConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        let default = match cx.data_type() {
            DataType::Json => "{event_id}.json",
            DataType::Form => "{event_id}.form",
            DataType::Blob => "{event_id}.bin",
        };
        let template = Template::parse(config.filename_template.as_deref().unwrap_or(default))?;
        let longest = template.longest_name(cx.webhook());
        if longest > MAX_FILE_NAME {
            let text = format!("expected at most {MAX_FILE_NAME} bytes in a name made from `filename_template`");
            return Err(format!("{text}, found {longest}").into());
        }
        let root = std::path::absolute(root)?;
        let directory = below(&root, &config.path)?;
        Ok(Self { target: Arc::new(Place { root, directory, template }) })
    }
}

impl Module for SaveToDisk {
    async fn deliver(&self, delivery: Delivery) -> Result<Ack, DeliverError> {
        let target = Arc::clone(&self.target);
        let failed =
            |error: io::Error| DeliverError::new(DeliverErrorKind::Io, format!("cannot write the file: {error}"));
        let permit = WRITES.acquire().await.map_err(|error| failed(io::Error::other(error)))?;
        // Once started it completes even if the sender hangs up: the file then exists whole or not at all.
        let written = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let name = target.template.name(&delivery);
            target.write(&name, &delivery.id().to_string(), delivery.body())
        });
        written.await.map_err(|error| failed(io::Error::other(error)))?.map_err(failed)?;
        Ok(Ack::Delivered)
    }

    fn target(&self) -> Option<String> {
        // Relative to the root, which is the operator's own.
        Some(Path::new("./").join(&self.target.directory).display().to_string())
    }

    fn uses_header(&self, _: &HeaderName) -> bool {
        false
    }
}

impl ConfigModule for SaveToDisk {
    const NAME: &'static str = "save_to_disk";
    type Config = SaveToDiskConfig;

    /// Keeps its files below `./data`.
    fn build(config: SaveToDiskConfig, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        Self::new(DEFAULT_ROOT, config, cx)
    }
}

impl Place {
    fn write(&self, name: &str, event_id: &str, body: &Bytes) -> io::Result<()> {
        let directory = self.open()?;
        let usual = format!(".{event_id}.tmp");
        match put(&directory, &usual, name, body) {
            // Left by a killed process, or still being written by an attempt that timed out.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let other = format!(".{event_id}.{:016x}.tmp", fastrand::u64(..));
                put(&directory, &other, name, body)?;
                // The event is in place; the other temporary file is of no use.
                let _ = directory.remove_file(&usual);
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Opens the directory, and creates missing parts. The kernel resolves each step below the root's handle.
    fn open(&self) -> io::Result<Dir> {
        let root = match Dir::open_ambient_dir(&self.root, ambient_authority()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                directory::create(&self.root)?;
                Dir::open_ambient_dir(&self.root, ambient_authority())?
            }
            opened => opened?,
        };
        let mut directory = root;
        for part in &self.directory {
            let next = match directory.open_dir(part) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    match directory.create_dir_with(part, DirBuilder::new().mode(0o700)) {
                        // Another event may have created it first; the order of their syncs does not matter.
                        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                        _ => sync(&directory)?,
                    }
                    directory.open_dir(part)?
                }
                opened => opened?,
            };
            directory = next;
        }
        Ok(directory)
    }
}

/// Writes a file under a temporary name and renames it. [`AlreadyExists`](io::ErrorKind::AlreadyExists) means that the
/// temporary name is taken.
fn put(directory: &Dir, temporary: &str, name: &str, body: &[u8]) -> io::Result<()> {
    let outcome = match write_synced(directory, temporary, body) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(error),
        written => written.and_then(|()| directory.rename(temporary, directory, name)).and_then(|()| sync(directory)),
    };
    if outcome.is_err() {
        // The temporary file may not even exist.
        let _ = directory.remove_file(temporary);
    }
    outcome
}

fn write_synced(directory: &Dir, name: &str, body: &[u8]) -> io::Result<()> {
    let mut file = directory.open_with(name, OpenOptions::new().write(true).create_new(true).mode(0o600))?;
    file.write_all(body)?;
    file.sync_all()
}

/// A rename survives a crash only once its directory has been synced.
fn sync(directory: &Dir) -> io::Result<()> {
    directory.open(".")?.sync_all()
}

/// `path` relative to `root`.
fn below(root: &Path, path: &Path) -> Result<PathBuf, BuildError> {
    check_text(path)?;
    let relative = match path.is_absolute() {
        true => path.strip_prefix(root).map_err(|_| "`path` is outside of the root of save_to_disk")?,
        false => path,
    };
    let (mut clean, mut parts) = (PathBuf::new(), 0);
    for part in relative.components() {
        match part {
            Component::Normal(name) if name.len() > MAX_FILE_NAME => {
                let found = name.len();
                return Err(
                    format!("expected at most {MAX_FILE_NAME} bytes in each part of `path`, found {found}").into()
                );
            }
            Component::Normal(name) => {
                parts += 1;
                clean.push(name);
            }
            Component::CurDir => {}
            _ => return Err("`path` must not contain `..`".into()),
        }
    }
    match parts <= MAX_PARTS {
        true => Ok(clean),
        false => Err(format!("expected at most {MAX_PARTS} parts in `path`, found {parts}").into()),
    }
}

/// NUL is impossible in a name; other control characters would deceive tools that list the directory.
fn check_text(path: &Path) -> Result<(), BuildError> {
    let found = path.as_os_str().len();
    if found > MAX_PATH {
        return Err(format!("expected at most {MAX_PATH} bytes in `path`, found {found}").into());
    }
    match path.to_str() {
        Some(text) if !text.contains(char::is_control) => Ok(()),
        Some(_) => Err("expected `path` without control characters, found one".into()),
        None => Err("expected UTF-8 in `path`, found other bytes".into()),
    }
}

#[derive(Debug, PartialEq)]
struct Template(Vec<Part>);

#[derive(Debug, PartialEq)]
enum Part {
    Text(String),
    Timestamp,
    EventId,
    Namespace,
    WebhookId,
}

impl Template {
    fn parse(text: &str) -> Result<Self, BuildError> {
        if text.starts_with('.') || text.contains(['/', '\\']) || text.chars().any(char::is_control) || text.len() > 100
        {
            return Err("`filename_template` must be a plain file name of at most 100 characters".into());
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            let (before, from) = rest.split_at(at);
            let end = from.find('}').ok_or("`filename_template` has a `{` without a `}`")?;
            parts.push(Part::Text(before.to_owned()));
            parts.push(match &from[1..end] {
                "timestamp" => Part::Timestamp,
                "event_id" => Part::EventId,
                "namespace" => Part::Namespace,
                "webhook_id" => Part::WebhookId,
                _ => {
                    let text = "`filename_template` has an unknown field; expected {timestamp}, {event_id}, \
                                {namespace} or {webhook_id}";
                    return Err(text.into());
                }
            });
            rest = &from[end + 1..];
        }
        parts.push(Part::Text(rest.to_owned()));
        if !parts.contains(&Part::EventId) {
            return Err("`filename_template` must contain {event_id}, or events would overwrite one another".into());
        }
        Ok(Self(parts))
    }

    fn longest_name(&self, webhook: &WebhookKey) -> usize {
        let lengths = self.0.iter().map(|part| match part {
            Part::Text(text) => text.len(),
            Part::Timestamp => "20261123T051434.123Z".len(),
            Part::EventId => uuid::fmt::Hyphenated::LENGTH,
            Part::Namespace => webhook.namespace().len(),
            Part::WebhookId => webhook.id().len(),
        });
        lengths.sum()
    }

    fn name(&self, delivery: &Delivery) -> String {
        let webhook = delivery.webhook();
        let mut name = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Timestamp => name.push_str(&timestamp(delivery.received_at())),
                Part::EventId => name.push_str(&delivery.id().to_string()),
                Part::Namespace => name.push_str(webhook.namespace()),
                Part::WebhookId => name.push_str(webhook.id()),
            }
        }
        name
    }
}

/// UTC in the basic format of ISO 8601, with milliseconds.
fn timestamp(time: SystemTime) -> String {
    // A time outside of the years -9999 to 9999 becomes the epoch; the event's id keeps the names apart.
    let time = Timestamp::try_from(time).unwrap_or_default();
    time.strftime("%Y%m%dT%H%M%S.%3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::time::{Duration, UNIX_EPOCH};

    use http::HeaderMap;

    use super::*;
    use crate::config::WebhookInfo;

    fn config(path: &str, template: Option<&str>) -> SaveToDiskConfig {
        SaveToDiskConfig { path: path.into(), filename_template: template.map(str::to_owned) }
    }

    fn module(root: &Path, config: SaveToDiskConfig) -> Result<SaveToDisk, BuildError> {
        let key = WebhookKey::new("ns", "hook").unwrap();
        SaveToDisk::new(root, config, &BuildContext::bare(&key))
    }

    fn delivery(body: &'static [u8]) -> Delivery {
        let webhook = WebhookInfo::new(WebhookKey::new("ns", "hook").unwrap(), DataType::Json);
        Delivery::new(webhook, HeaderMap::new(), body)
    }

    fn files(path: &Path) -> Vec<PathBuf> {
        let mut files: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    #[tokio::test]
    async fn the_body_is_in_a_private_file() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("made/here");
        let module = module(&root, config("a/b", None)).unwrap();
        let delivery = delivery(b"{\"\xff\":\0}");
        let name = format!("{}.json", delivery.id());
        module.deliver(delivery).await.unwrap();

        let file = root.join("a/b").join(name);
        assert_eq!(std::fs::read(&file).unwrap(), b"{\"\xff\":\0}");
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
        assert!([root.clone(), root.join("a")].iter().all(|made| made.metadata().unwrap().mode() & 0o777 == 0o700));
        assert_eq!(files(&root.join("a/b")).len(), 1, "no temporary file is left");
    }

    #[tokio::test]
    async fn the_template_is_filled_in() {
        let root = tempfile::tempdir().unwrap();
        let template = "{namespace}.{webhook_id}.{timestamp}.{event_id}.txt";
        let module = module(root.path(), config("", Some(template))).unwrap();
        let delivery = delivery(b"x");
        let expected = format!("ns.hook.{}.{}.txt", timestamp(delivery.received_at()), delivery.id());
        module.deliver(delivery).await.unwrap();
        assert_eq!(files(root.path()), [root.path().join(expected)]);
    }

    #[test]
    fn timestamps_are_utc() {
        let time = UNIX_EPOCH + Duration::from_millis(1_795_410_874_007);
        assert_eq!(timestamp(time), "20261123T051434.007Z");
    }

    #[test]
    fn templates_that_lose_or_misplace_events_are_refused() {
        let root = Path::new("/data");
        for template in [
            "",
            "latest.json",
            "{timestamp}.json",
            "{event_id",
            "{event}.json",
            "../{event_id}",
            "a/{event_id}",
            "a\\{event_id}",
            ".{event_id}",
            "{event_id}\n",
            "{event_id}{",
            &format!("{}{{event_id}}", "x".repeat(100)),
        ] {
            assert!(module(root, config("", Some(template))).is_err(), "{template:?}");
        }
    }

    #[test]
    fn a_name_that_no_file_can_have_is_refused() {
        let key = WebhookKey::new(&"n".repeat(64), &"i".repeat(64)).unwrap();
        let template = format!("{}{{namespace}}{{webhook_id}}{{event_id}}", "x".repeat(60));
        let config = config("", Some(template.as_str()));
        assert!(SaveToDisk::new("/data", config.clone(), &BuildContext::bare(&key)).is_ok());
        let config =
            SaveToDiskConfig { filename_template: Some(format!("{template}{{timestamp}}{{timestamp}}")), ..config };
        assert!(SaveToDisk::new("/data", config, &BuildContext::bare(&key)).is_err());
    }

    #[test]
    fn a_path_that_no_directory_can_have_is_refused() {
        let root = Path::new("/data");
        let refused = |path: &str| module(root, config(path, None)).unwrap_err().to_string();
        let part = "p".repeat(255);
        for path in [part.clone(), vec![part.as_str(); 16].join("/"), vec!["a"; 64].join("/"), "./".repeat(2048)] {
            assert!(module(root, config(&path, None)).is_ok(), "{}", path.len());
        }
        assert_eq!(refused(&format!("a/{part}p")), "expected at most 255 bytes in each part of `path`, found 256");
        assert_eq!(refused(&"a/".repeat(65)), "expected at most 64 parts in `path`, found 65");
        assert_eq!(refused(&"a/".repeat(2049)), "expected at most 4096 bytes in `path`, found 4098");
        for path in ["a\0b", "a\nb", "\u{1b}[2J", "a/\u{7f}", "\u{85}"] {
            assert_eq!(refused(path), "expected `path` without control characters, found one");
        }
    }

    #[test]
    fn paths_stay_below_the_root() {
        let root = Path::new("/data");
        for path in ["", ".", "a", "a/./b", "/data", "/data/a"] {
            assert!(module(root, config(path, None)).is_ok(), "{path:?}");
        }
        for path in ["..", "a/../..", "a/..", "/", "/etc", "/database", "/data/../etc"] {
            assert!(module(root, config(path, None)).is_err(), "{path:?}");
        }
    }

    #[tokio::test]
    async fn a_symbolic_link_is_not_followed_out_of_the_root() {
        let outside = tempfile::tempdir().unwrap();
        let root = tempfile::tempdir().unwrap();
        symlink(outside.path(), root.path().join("absolute")).unwrap();
        let sibling = Path::new("..").join(outside.path().file_name().unwrap());
        symlink(sibling, root.path().join("relative")).unwrap();
        for path in ["absolute", "relative"] {
            let module = module(root.path(), config(path, None)).unwrap();
            let error = module.deliver(delivery(b"x")).await.unwrap_err();
            assert_eq!(error.kind(), DeliverErrorKind::Io, "{path}");
        }
        assert!(files(outside.path()).is_empty());
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("file"), "in the way").unwrap();
        let module = module(root.path(), config("file", None)).unwrap();
        assert!(module.deliver(delivery(b"x")).await.is_err());
    }
}
