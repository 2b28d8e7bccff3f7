//! Reads certificates and tokens again when their files change, and on SIGHUP.

use std::fmt::Display;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::certificates::Certificates;

/// How often the files are read.
const POLL: Duration = Duration::from_secs(1);

/// Reading that takes longer gets a line in the log.
const SLOW: Duration = Duration::from_secs(5);

/// The largest file that is read.
const MAX_BYTES: u64 = 4 << 20;

/// The signals that must not stop the gateway. Without a handler each of them would.
pub(crate) struct Signals {
    hangup: Signal,
    unused: [Signal; 2],
}

impl Signals {
    /// Installs the handlers: from now on none of these signals ends the process.
    pub(crate) fn install() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            unused: [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?],
        })
    }

    /// Resolves on SIGHUP.
    async fn hangup(&mut self) {
        let [one, two] = &mut self.unused;
        loop {
            tokio::select! {
                _ = self.hangup.recv() => return,
                _ = one.recv() => tracing::info!("SIGUSR1 is ignored; SIGHUP reads certificates and tokens again"),
                _ = two.recv() => tracing::info!("SIGUSR2 is ignored; SIGHUP reads certificates and tokens again"),
            }
        }
    }
}

/// Reads the files again for ever. `certificates` are the server's, if it speaks TLS.
pub(crate) async fn run(mut signals: Signals, certificates: Option<Certificates>, watches: Vec<Watch>) {
    let (hangups, _) = watch::channel(());
    // Each in its own task: a path that never answers, such as one on a dead mount, delays no other.
    let mut watching: JoinSet<()> = watches.into_iter().map(|watch| watch.follow(hangups.subscribe())).collect();
    let mut looked_at = Timestamp::now();
    loop {
        tokio::select! {
            () = signals.hangup() => {
                if watching.is_empty() {
                    tracing::info!("SIGHUP: no variable names a file to read again");
                }
                hangups.send_replace(());
            }
            Some(ended) = watching.join_next() => tracing::error!(?ended, "files are no longer watched"),
            () = sleep(POLL) => {}
        }
        if let Some(certificates) = &certificates {
            certificates.warn_of_expiry(looked_at);
        }
        looked_at = Timestamp::now();
    }
}

/// A file whose path is the value of a variable.
#[derive(Clone, Debug)]
pub(crate) struct NamedFile {
    variable: &'static str,
    path: PathBuf,
}

impl NamedFile {
    pub(crate) fn new(variable: &'static str, path: PathBuf) -> Self {
        Self { variable, path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn read(&self) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(&self.path).map_err(|error| self.wrong(error))?;
        file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|error| self.wrong(error))?;
        Ok(bytes)
    }

    /// An error with the variable and the path.
    pub(crate) fn wrong(&self, error: impl Display) -> String {
        format!("{}: {}: {error}", self.variable, self.path.display())
    }
}

/// Takes the contents of files into use, or returns why it cannot.
type Apply = Box<dyn FnMut(&[Vec<u8>]) -> Result<(), String> + Send>;

/// Files that are taken into use together whenever one of them changes.
pub(crate) struct Watch {
    files: Vec<NamedFile>,
    apply: Apply,
    served: Vec<Vec<u8>>,
    refused: Option<Refused>,
}

/// Contents that cannot be used.
struct Refused {
    found: Result<Vec<Vec<u8>>, String>,
    is_told: bool,
}

/// The outcome of reading the files.
enum Look {
    /// They are the contents in use.
    Unchanged,
    Applied,
    /// They cannot be used. A line has said so before, or the change may be half done: the next look decides.
    Pending,
    /// They cannot be used, and a line must say so.
    Refused(String),
}

impl Watch {
    /// Applies the files now. [`follow`](Self::follow) applies them again whenever they change.
    ///
    /// # Errors
    ///
    /// When they cannot be used now.
    pub(crate) fn begin(
        files: impl Into<Vec<NamedFile>>,
        mut apply: impl FnMut(&[Vec<u8>]) -> Result<(), String> + Send + 'static,
    ) -> Result<Self, String> {
        let files = files.into();
        let contents = Self::read(&files)?;
        apply(&contents)?;
        Ok(Self { files, apply: Box::new(apply), served: contents, refused: None })
    }

    fn read(files: &[NamedFile]) -> Result<Vec<Vec<u8>>, String> {
        files.iter().map(NamedFile::read).collect()
    }

    /// Reads the files for ever. On SIGHUP it reads them at once and always logs the outcome.
    async fn follow(mut self, mut hangups: watch::Receiver<()>) {
        loop {
            let asked = tokio::select! {
                Ok(()) = hangups.changed() => true,
                () = sleep(POLL) => false,
            };
            self.read_again(asked).await;
        }
    }

    async fn read_again(&mut self, asked: bool) {
        let files = self.files.clone();
        let names: Vec<_> = self.files.iter().map(|file| file.variable).collect();
        let names = names.join(", ");
        let mut reading = tokio::task::spawn_blocking(move || Self::read(&files));
        let found = match timeout(SLOW, &mut reading).await {
            Ok(found) => found,
            Err(_) => {
                tracing::warn!("reading the files of {names} takes long; their previous contents stay in use");
                reading.await
            }
        };
        match self.look(found.unwrap_or_else(|error| Err(error.to_string())), asked) {
            Look::Unchanged if asked => tracing::info!("SIGHUP: nothing has changed in the files of {names}"),
            Look::Applied => tracing::info!("the files of {names} were read again"),
            Look::Refused(reason) => tracing::warn!("{reason}; the previous contents stay in use"),
            Look::Unchanged | Look::Pending => {}
        }
        let is_refused = self.refused.as_ref().is_some_and(|refused| refused.is_told);
        metrics::gauge!("tower_webhook_files_refused", "files" => names).set(f64::from(u8::from(is_refused)));
    }

    /// Decides about the contents that were `found`. With `asked` an operator waits for a line in the log.
    fn look(&mut self, found: Result<Vec<Vec<u8>>, String>, asked: bool) -> Look {
        if found.as_ref() == Ok(&self.served) {
            self.refused = None;
            return Look::Unchanged;
        }
        let applied = found.clone().and_then(|contents| (self.apply)(&contents).map(|()| contents));
        let reason = match applied {
            Ok(contents) => {
                self.served = contents;
                self.refused = None;
                return Look::Applied;
            }
            Err(reason) => reason,
        };
        // Perhaps only one of the files has been replaced so far.
        let before = self.refused.take().filter(|before| before.found == found);
        let was_told = before.as_ref().is_some_and(|before| before.is_told);
        let tell = asked || (before.is_some() && !was_told);
        self.refused = Some(Refused { found, is_told: was_told || tell });
        if tell { Look::Refused(reason) } else { Look::Pending }
    }
}
