//! The copy of the configuration on disk, for a start without etcd.
//!
//! The copy holds the values of etcd byte for byte, so no secrets from the environment; for a key whose newest value is
//! refused, it also holds the last good one. A file is complete or does not exist: it is written under another name,
//! synced and renamed, and the directory is synced. A file that is damaged or belongs to another prefix is reported and
//! not used.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::machine::{Header, Meta};
use crate::base::private::PrivateDirectory;

const MAGIC: &[u8] = b"tower-webhook: saved configuration 1\n";

/// Our own directory below the given one, where other users may be able to write.
const OWN: &str = "tower-webhook";

const FILE: &str = "etcd.saved";

/// The least time between a change and the next copy: more changes may follow.
const SETTLE: Duration = Duration::from_secs(1);

/// The least time between two copies.
const PAUSE: Duration = Duration::from_secs(5);

/// The least time between two copies, as a multiple of the time that the last one took: a large copy must not keep the
/// disk busy.
const DUTY: u32 = 10;

/// A key and its value, as etcd holds them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) meta: Meta,
    pub(super) value: Bytes,
    /// The earlier value that is served because the newest is refused.
    pub(super) last_good: Option<Bytes>,
}

pub(super) type Keys = HashMap<Vec<u8>, Kept>;

/// Everything under the prefix at one revision.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Saved {
    pub(super) header: Header,
    pub(super) keys: Arc<Keys>,
}

/// Keeps the copy on disk in step with the published configuration.
#[derive(Debug)]
pub(super) struct SavedCopy {
    directory: PathBuf,
    prefix: String,
    keys: Arc<Keys>,
    header: Option<Header>,
    changed: Option<Instant>,
    not_before: Instant,
    writing: Option<JoinHandle<io::Result<Duration>>>,
}

impl SavedCopy {
    pub(super) fn new(directory: PathBuf, prefix: String) -> Self {
        Self {
            directory,
            prefix,
            keys: Arc::default(),
            header: None,
            changed: None,
            not_before: Instant::now(),
            writing: None,
        }
    }

    /// Reads the copy that an earlier process left. It becomes the current content of this copy.
    pub(super) fn read(&mut self) -> Result<Option<Saved>, String> {
        let path = self.directory.join(OWN);
        let at = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
        let Some(own) = PrivateDirectory::find(&self.directory, OWN).map_err(|error| at(&path, error))? else {
            return Ok(None);
        };
        own.remove_left_over(FILE);
        let path = path.join(FILE);
        let Some(bytes) = own.read(FILE).map_err(|error| at(&path, error))? else { return Ok(None) };
        let saved = decode(bytes.into(), &self.prefix).map_err(|error| format!("{}: {error}", path.display()))?;
        self.keys = Arc::clone(&saved.keys);
        self.header = Some(saved.header);
        Ok(Some(saved))
    }

    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Takes over a complete list.
    pub(super) fn replace(&mut self, header: Header, keys: Keys) {
        self.keys = Arc::new(keys);
        self.header = Some(header);
        self.changed = Some(Instant::now());
    }

    /// Takes over one key.
    pub(super) fn set(&mut self, key: Vec<u8>, kept: Option<Kept>) {
        // Clones the map only while it is being written.
        let keys = Arc::make_mut(&mut self.keys);
        match kept {
            Some(kept) => keys.insert(key, kept),
            None => keys.remove(&key),
        };
        self.changed.get_or_insert_with(Instant::now);
    }

    /// Sets the revision of the content. A revision that changed nothing does not cause a write.
    pub(super) fn at(&mut self, revision: i64) {
        if let Some(header) = &mut self.header {
            header.revision = revision;
        }
    }

    /// Writes the copy when it is due. Returns the outcome of a write once, when it is known.
    pub(super) async fn tick(&mut self) -> Option<io::Result<()>> {
        if let Some(writing) = self.writing.take_if(|writing| writing.is_finished()) {
            let outcome = writing.await.unwrap_or_else(|error| Err(io::Error::other(error)));
            let took = outcome.as_ref().map_or(PAUSE, |took| *took);
            self.not_before = Instant::now() + PAUSE.max(took * DUTY);
            if outcome.is_err() {
                self.changed.get_or_insert_with(Instant::now);
            }
            return Some(outcome.map(drop));
        }
        let due = self.changed.is_some_and(|changed| changed.elapsed() >= SETTLE);
        if let (true, None, Some(header)) = (due && Instant::now() >= self.not_before, &self.writing, self.header) {
            self.changed = None;
            let (directory, prefix, keys) = (self.directory.clone(), self.prefix.clone(), Arc::clone(&self.keys));
            self.writing = Some(tokio::task::spawn_blocking(move || {
                let began = std::time::Instant::now();
                write(&directory, &encode(&prefix, header, &keys))?;
                Ok(began.elapsed())
            }));
        }
        None
    }
}

fn write(directory: &Path, bytes: &[u8]) -> io::Result<()> {
    PrivateDirectory::create(directory, OWN)?.replace(FILE, bytes)
}

/// The format: `MAGIC`, then numbers as big-endian 64 bits and texts preceded by their length, then the SHA-256 of all
/// this.
fn encode(prefix: &str, header: Header, keys: &Keys) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    put(&mut out, prefix.as_bytes());
    for number in [header.cluster, header.term, header.revision.unsigned_abs(), keys.len() as u64] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    for (key, kept) in keys {
        put(&mut out, key);
        for number in [kept.meta.version, kept.meta.created, kept.meta.modified] {
            out.extend_from_slice(&number.to_be_bytes());
        }
        put(&mut out, &kept.value);
        // An empty text means none: a good value is never empty.
        put(&mut out, kept.last_good.as_deref().unwrap_or_default());
    }
    let digest = Sha256::digest(&out);
    out.extend_from_slice(&digest);
    out
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn decode(mut bytes: Bytes, prefix: &str) -> Result<Saved, &'static str> {
    const DAMAGED: &str = "the saved configuration is damaged";
    let content = bytes.len().checked_sub(32).ok_or(DAMAGED)?;
    if !bytes.starts_with(MAGIC) {
        return Err("it is not a saved configuration of this version");
    }
    if *Sha256::digest(&bytes[..content]) != bytes[content..] {
        return Err(DAMAGED);
    }
    bytes.truncate(content);
    bytes.advance(MAGIC.len());
    let mut reader = Reader(bytes);
    if reader.text().ok_or(DAMAGED)? != prefix.as_bytes() {
        return Err("the saved configuration belongs to another prefix");
    }
    reader.saved().filter(|_| reader.0.is_empty()).ok_or(DAMAGED)
}

/// Reads the fields of a copy. The digest has been verified, so only a forged file can be short; the result is then
/// `None`.
struct Reader(Bytes);

impl Reader {
    fn saved(&mut self) -> Option<Saved> {
        let (cluster, term) = (self.number()?, self.number()?);
        let revision = i64::try_from(self.number()?).ok()?;
        let mut keys = Keys::new();
        for _ in 0..self.number()? {
            let key = self.text()?.to_vec();
            let meta = Meta { version: self.signed()?, created: self.signed()?, modified: self.signed()? };
            let value = self.text()?;
            let last_good = Some(self.text()?).filter(|value| !value.is_empty());
            keys.insert(key, Kept { meta, value, last_good });
        }
        Some(Saved { header: Header { cluster, term, revision }, keys: Arc::new(keys) })
    }

    fn number(&mut self) -> Option<u64> {
        self.0.try_get_u64().ok()
    }

    fn signed(&mut self) -> Option<i64> {
        self.0.try_get_i64().ok()
    }

    fn text(&mut self) -> Option<Bytes> {
        let length = usize::try_from(self.number()?).ok()?;
        (length <= self.0.len()).then(|| self.0.split_to(length))
    }
}

/// Encoding a decoded copy gives a copy with the same keys.
#[cfg(fuzzing)]
pub(crate) fn fuzz(tail: &[u8]) {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(tail);
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest);
    if let Ok(saved) = decode(bytes.into(), "") {
        let again = encode("", saved.header, &saved.keys);
        assert_eq!(decode(again.into(), ""), Ok(saved));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use proptest::prelude::*;

    use super::*;

    fn kept(value: &'static str, last_good: Option<&'static str>) -> Kept {
        let meta = Meta { version: 3, created: 5, modified: 9 };
        Kept { meta, value: value.into(), last_good: last_good.map(Into::into) }
    }

    fn saved() -> Saved {
        let header = Header { cluster: u64::MAX, term: 4, revision: 77 };
        let keys = [(b"/cwm/a".to_vec(), kept("{}", None)), (b"/cwm/\xff".to_vec(), kept("", Some("{\"a\":1}")))];
        Saved { header, keys: Arc::new(keys.into()) }
    }

    fn encoded() -> Vec<u8> {
        encode("/cwm/", saved().header, &saved().keys)
    }

    #[test]
    fn a_written_copy_can_be_read() {
        assert_eq!(decode(encoded().into(), "/cwm/"), Ok(saved()));
        assert_eq!(
            decode(encoded().into(), "/other/").unwrap_err(),
            "the saved configuration belongs to another prefix"
        );
    }

    #[test]
    fn a_damaged_copy_is_an_error() {
        let whole = encoded();
        for cut in 0..whole.len() {
            assert!(decode(whole[..cut].to_vec().into(), "/cwm/").is_err(), "cut at {cut}");
        }
        for flip in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[flip] ^= 0x10;
            assert!(decode(bytes.into(), "/cwm/").is_err(), "flipped at {flip}");
        }
        let mut longer = whole;
        longer.push(0);
        assert!(decode(longer.into(), "/cwm/").is_err());
    }

    #[test]
    fn a_file_is_private_and_whole() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("made");
        write(&directory, &encoded()).unwrap();
        write(&directory, &encoded()).unwrap();
        let mut copy = SavedCopy::new(directory.clone(), "/cwm/".into());
        assert_eq!(copy.read(), Ok(Some(saved())));
        assert_eq!(directory.join(OWN).join(FILE).metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_file_is_no_error_and_a_missing_directory_is() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(SavedCopy::new(folder.path().join("none"), "/cwm/".into()).read(), Ok(None));
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(write(&folder.path().join("file"), b"x").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = MAGIC.to_vec();
            bytes.extend(tail);
            let digest = Sha256::digest(&bytes);
            bytes.extend_from_slice(&digest);
            let _ = decode(bytes.into(), "");
        }
    }
}
