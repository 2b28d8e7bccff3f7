//! Secrets in files, for `{$file:name}`.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::SystemTime;

use super::variables::{PREFIX, Variables};
use crate::base::lock::lock;
use crate::base::stamp::Stamp;

/// The largest file, in bytes.
const LARGEST: usize = 64 << 10;

/// The most missing files that are watched for. A configuration can name more than there will ever be.
const MOST_MISSING: usize = 1000;

/// The secrets below a directory. Each file is read once, and again only when [`look`](Self::look) finds it changed, so that
/// all values that name a file are compiled with the same secret.
pub(crate) struct SecretFiles {
    root: PathBuf,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    files: HashMap<Box<str>, Entry>,
    missing: usize,
    /// Counts the changes of all files.
    changes: u64,
}

struct Entry {
    /// As of the last look; `None` if another look is needed all the same.
    stamp: Option<Stamp>,
    content: Content,
    /// The number of its last change; 0 if it was only read once.
    change: u64,
}

/// The text of a file; `None` if there is no such file.
type Content = Result<Option<String>, Unusable>;

/// Why a file that is there cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    LeadsOut,
    NoFile,
    TooLarge,
    NotUtf8,
    Empty,
    /// In the system's words.
    Unreadable(String),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LeadsOut => f.write_str(
                "leads out of the directory of secrets; put the file itself there, or a link to another file in it",
            ),
            Self::NoFile => f.write_str("is no regular file; put the secret into a file"),
            Self::TooLarge => write!(f, "has more than {} KiB; expected a secret", LARGEST >> 10),
            Self::NotUtf8 => f.write_str("is not UTF-8; write the secret as text, such as Base64"),
            Self::Empty => f.write_str("is empty; write the secret into it"),
            Self::Unreadable(why) => write!(f, "cannot be read: {why}"),
        }
    }
}

impl SecretFiles {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root, known: Mutex::default() }
    }

    /// The text of the file with this name among variables; `None` if there is no such file.
    pub(crate) fn get(&self, variable: &str) -> Content {
        if let Some(entry) = lock(&self.known).files.get(variable) {
            return entry.content.clone();
        }
        let (stamp, content) = self.read(variable);
        let known = &mut *lock(&self.known);
        // Another may have been faster, and everybody must see the same.
        if let Some(entry) = known.files.get(variable) {
            return entry.content.clone();
        }
        if content == Ok(None) {
            if known.missing >= MOST_MISSING {
                return content;
            }
            known.missing += 1;
        }
        known.files.insert(variable.into(), Entry { stamp, content: content.clone(), change: 0 });
        content
    }

    /// Looks at every file that somebody has asked for. Returns those that have changed after the change `since`, and the
    /// number of the last change.
    pub(crate) fn look(&self, since: u64) -> (Variables, u64) {
        let stamps: Vec<_> =
            lock(&self.known).files.iter().map(|(variable, entry)| (variable.clone(), entry.stamp)).collect();
        for (variable, stamp) in stamps {
            if stamp.is_none_or(|stamp| stamp != Stamp::of(&self.path(&variable))) {
                let (stamp, content) = self.read(&variable);
                self.update(&variable, stamp, content);
            }
        }
        let known = lock(&self.known);
        let changed = known.files.iter().filter(|(_, entry)| entry.change > since);
        (changed.map(|(variable, _)| variable.clone()).collect(), known.changes)
    }

    fn update(&self, variable: &str, stamp: Option<Stamp>, content: Content) {
        let known = &mut *lock(&self.known);
        let Some(entry) = known.files.get_mut(variable) else { return };
        entry.stamp = stamp;
        if entry.content != content {
            known.changes += 1;
            entry.change = known.changes;
            entry.content = content;
        }
    }

    fn path(&self, variable: &str) -> PathBuf {
        self.root.join(variable.strip_prefix(PREFIX).unwrap_or(variable))
    }

    /// The file's content, and its stamp if a later change must show in it.
    fn read(&self, variable: &str) -> (Option<Stamp>, Content) {
        let path = self.path(variable);
        let looked_at = SystemTime::now();
        let stamp = Stamp::of(&path);
        let content = match self.locate(&path) {
            Ok(Some(path)) => read(&path).map(Some),
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        let is_settled = stamp.is_settled(looked_at) && content.is_ok();
        (is_settled.then_some(stamp), content)
    }

    /// Where the file is, all links followed; `None` if it is not there.
    fn locate(&self, path: &Path) -> Result<Option<PathBuf>, Unusable> {
        let real = match fs::canonicalize(path) {
            Ok(real) => real,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Unusable::Unreadable(error.kind().to_string())),
        };
        let root = fs::canonicalize(&self.root).map_err(|error| Unusable::Unreadable(error.kind().to_string()))?;
        match real.starts_with(root) {
            true => Ok(Some(real)),
            false => Err(Unusable::LeadsOut),
        }
    }
}

fn read(path: &Path) -> Result<String, Unusable> {
    let unreadable = |error: io::Error| Unusable::Unreadable(error.kind().to_string());
    // Before it is opened: to open a pipe would wait for a writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(Unusable::NoFile);
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(unreadable)?.take(LARGEST as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > LARGEST {
        return Err(Unusable::TooLarge);
    }
    let mut text = String::from_utf8(bytes).map_err(|_| Unusable::NotUtf8)?;
    // Whatever writes a file puts a line break at its end.
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    match text.trim().is_empty() {
        true => Err(Unusable::Empty),
        false => Ok(text),
    }
}

// Shows no secret.
impl fmt::Debug for SecretFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretFiles").field("root", &self.root).finish_non_exhaustive()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Root(tempfile::TempDir);

    impl Root {
        fn new() -> Self {
            let root = Self(tempfile::tempdir().unwrap());
            for directory in ["secrets/shop", "secrets/shared", "outside"] {
                fs::create_dir_all(root.path(directory)).unwrap();
            }
            root
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn write(&self, path: &str, text: impl AsRef<[u8]>) {
            fs::write(self.path(path), text).unwrap();
        }

        fn files(&self) -> SecretFiles {
            SecretFiles::new(self.path("secrets"))
        }
    }

    fn changed(files: &SecretFiles, seen: &mut u64) -> Vec<String> {
        let (changed, last) = files.look(*seen);
        *seen = last;
        changed.iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn one_line_break_at_the_end_is_not_the_secrets() {
        let root = Root::new();
        for (text, secret) in
            [("s", "s"), ("s\n", "s"), ("s\r\n", "s"), ("s\n\n", "s\n"), (" s \n", " s "), ("s\r", "s\r")]
        {
            root.write("secrets/shop/a", text);
            assert_eq!(root.files().get("file:shop/a").unwrap().unwrap(), secret, "{text:?}");
        }
        root.write("secrets/shop/a", "s".repeat(64 << 10));
        assert!(root.files().get("file:shop/a").unwrap().is_some());
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        let root = Root::new();
        root.write("outside/a", "s3cret");
        fs::create_dir(root.path("secrets/shop/directory")).unwrap();
        symlink(root.path("outside/a"), root.path("secrets/shop/out")).unwrap();
        symlink("../../outside/a", root.path("secrets/shop/out-too")).unwrap();
        symlink(root.path("outside"), root.path("secrets/elsewhere")).unwrap();
        symlink("loop", root.path("secrets/shop/loop")).unwrap();
        for (path, text) in [
            ("secrets/shop/large", "s".repeat((64 << 10) + 1).as_bytes()),
            ("secrets/shop/latin1", b"\xe9"),
            ("secrets/shop/empty", b""),
            ("secrets/shop/blank", b" \n\n"),
        ] {
            root.write(path, text);
        }
        let files = root.files();
        for (name, expected) in [
            ("shop/out", Unusable::LeadsOut),
            ("shop/out-too", Unusable::LeadsOut),
            ("elsewhere/a", Unusable::LeadsOut),
            ("shop/directory", Unusable::NoFile),
            ("shop/large", Unusable::TooLarge),
            ("shop/latin1", Unusable::NotUtf8),
            ("shop/empty", Unusable::Empty),
            ("shop/blank", Unusable::Empty),
        ] {
            assert_eq!(files.get(&format!("file:{name}")), Err(expected), "{name}");
        }
        assert!(matches!(files.get("file:shop/loop"), Err(Unusable::Unreadable(_))));
        symlink("missing", root.path("secrets/shop/dangling")).unwrap();
        for name in ["shop/missing", "missing/a", "shop/dangling"] {
            assert_eq!(files.get(&format!("file:{name}")), Ok(None), "{name}");
        }
    }

    #[test]
    fn a_change_is_seen_by_everybody_who_looks() {
        let root = Root::new();
        root.write("secrets/shop/a", "1");
        root.write("secrets/shop/b", "1");
        let files = root.files();
        let get = |name: &str| files.get(&format!("file:shop/{name}"));
        assert_eq!((get("a"), get("b"), get("c")), (Ok(Some("1".into())), Ok(Some("1".into())), Ok(None)));
        let (mut one, mut other) = (0, 0);
        assert_eq!(changed(&files, &mut one), [""; 0]);
        root.write("secrets/shop/a", "2");
        assert_eq!(get("a"), Ok(Some("1".into())), "nobody has looked");
        assert_eq!(changed(&files, &mut one), ["file:shop/a"]);
        assert_eq!(get("a"), Ok(Some("2".into())));
        root.write("secrets/shop/c", "1");
        fs::remove_file(root.path("secrets/shop/b")).unwrap();
        assert_eq!(changed(&files, &mut one), ["file:shop/b", "file:shop/c"]);
        assert_eq!((get("b"), get("c")), (Ok(None), Ok(Some("1".into()))));
        assert_eq!(changed(&files, &mut other), ["file:shop/a", "file:shop/b", "file:shop/c"]);
        assert_eq!(changed(&files, &mut one), [""; 0]);
    }

    #[test]
    fn the_swap_of_a_link_is_a_change_and_the_link_may_be_a_directory() {
        let root = Root::new();
        for (version, secret) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir_all(root.path("secrets/shop").join(version)).unwrap();
            root.write(&format!("secrets/shop/{version}/a"), secret);
        }
        symlink("..1", root.path("secrets/shop/..data")).unwrap();
        symlink("..data/a", root.path("secrets/shop/a")).unwrap();
        let files = root.files();
        assert_eq!(files.get("file:shop/a"), Ok(Some("one".into())));
        symlink("..2", root.path("secrets/shop/..new")).unwrap();
        fs::rename(root.path("secrets/shop/..new"), root.path("secrets/shop/..data")).unwrap();
        assert_eq!(changed(&files, &mut 0), ["file:shop/a"]);
        assert_eq!(files.get("file:shop/a"), Ok(Some("two".into())));
    }

    #[test]
    fn only_so_many_files_are_waited_for() {
        let root = Root::new();
        let files = root.files();
        for number in 0..2 * MOST_MISSING {
            assert_eq!(files.get(&format!("file:shop/{number}")), Ok(None));
        }
        assert_eq!(lock(&files.known).files.len(), MOST_MISSING);
    }
}
