//! etcd's protocol. The only file that names `etcd_client`.

mod fault;
mod login;
mod probe;

use std::future::Future;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, GetOptions, GetResponse, Identity, KeyValue, KvClient, ResponseHeader,
    StatusResponse, TlsOptions, WatchClient, WatchOptions, WatchRequestSender, WatchResponseStream,
};
use tokio::time::timeout;

use self::fault::{broken, ended, explained, fault, no_header, refused};
use self::login::Login;
use super::machine::{
    AuditPage, Entry, Event, Fault, Header, Known, Look, Memory, Message, Meta, Page, Past, Proof, Put, Revision,
};
use super::options::EtcdOptions;
use super::tls::EtcdTls;
use crate::store::ErrorKind;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The time limit for connecting, authenticating and the first read together.
const SESSION_TIMEOUT: Duration = Duration::from_secs(5);

const PAGE_TIMEOUT: Duration = Duration::from_secs(10);

const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

const AUDIT_TIMEOUT: Duration = Duration::from_secs(3);

const PROVE_TIMEOUT: Duration = Duration::from_secs(3);

const ACCOUNT_TIMEOUT: Duration = Duration::from_secs(3);

/// The most alarms that are shown.
const MOST_ERRORS: usize = 32;

/// The most changed keys that a proof names.
const MOST_CHANGED: i64 = 1000;

/// The additional time, for each key, of a read that makes etcd look at every key.
const PER_KEY: Duration = Duration::from_micros(10);

/// The interval and the timeout of pings. etcd closes connections that ping more often than every 5 s.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(4));

/// The client's default limit of 4 MiB is less than one transaction may hold.
const MAX_MESSAGE: usize = 64 << 20;

/// The connections to one endpoint. Reads and the watch have one each, because large reads can starve a watch on the
/// same connection (etcd #15402).
#[derive(Clone)]
pub(super) struct Session {
    kv: KvClient,
    watch: WatchClient,
    login: Login,
    range: Range,
    /// The number of keys when the session was opened.
    keys: i64,
}

/// A member's report about itself, for status pages only.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) version: String,
    /// The alarms of the cluster, and whether this member sees no leader.
    pub(super) errors: Vec<String>,
}

/// All keys with the prefix.
#[derive(Clone)]
struct Range {
    start: Vec<u8>,
    end: Vec<u8>,
}

/// An open watch.
pub(super) struct Stream {
    /// Kept because some servers end the stream when the sender is dropped.
    ask: WatchRequestSender,
    messages: WatchResponseStream,
}

impl Session {
    /// Connects to one endpoint and does a linearizable read, which includes `memory` if there is one.
    pub(super) async fn open(
        options: &EtcdOptions,
        endpoint: &str,
        memory: Option<Memory>,
    ) -> Result<(Self, Header, Past), Fault> {
        let keys = memory.map_or(0, |memory| memory.keys);
        let opened = bounded(SESSION_TIMEOUT + for_all(keys), "connecting", async {
            let connect = connect_options(options, endpoint).await?;
            // One endpoint per client: a client with several keeps calling dead endpoints.
            let reads = connect.clone().with_keep_alive_while_idle(false);
            let reads = Client::connect([endpoint], Some(reads)).await.map_err(fault)?;
            let watches = Client::connect([endpoint], Some(connect)).await.map_err(fault)?;
            let mut session = Self {
                kv: reads.kv_client().max_decoding_message_size(MAX_MESSAGE),
                watch: watches.watch_client().max_decoding_message_size(MAX_MESSAGE),
                login: Login::new(reads, options.user.clone()),
                range: Range::of_prefix(options.prefix.as_bytes()),
                keys,
            };
            Login::new(watches, options.user.clone()).renew().await?;
            session.login.renew().await?;
            let (header, past) = session.recall(memory).await?;
            if memory.is_none() && session.keys == 0 {
                session.doubt_prefix(&options.prefix).await?;
            }
            Ok((session, header, past))
        });
        match opened.await {
            Ok(opened) => Ok(opened),
            Err(fault) => Err(explained(endpoint, fault).await),
        }
    }

    /// Whether there are credentials that etcd does not ask for.
    pub(super) fn has_idle_credentials(&self) -> bool {
        self.login.is_idle()
    }

    /// Asks the member for its version and its alarms.
    pub(super) async fn account(self) -> Result<Account, Fault> {
        let status = bounded(ACCOUNT_TIMEOUT, "asking for alarms", async { self.login.status().await.map_err(fault) });
        Ok(account(&status.await?))
    }

    async fn get(&mut self, start: Vec<u8>, options: GetOptions) -> Result<GetResponse, Fault> {
        match self.kv.get(start.clone(), Some(options.clone())).await.map_err(fault) {
            Err(fault) if self.login.may_resolve(&fault) => self.login.renew().await?,
            outcome => return outcome,
        }
        self.kv.get(start, Some(options)).await.map_err(fault)
    }

    async fn recall(&mut self, memory: Option<Memory>) -> Result<(Header, Past), Fault> {
        let read = GetOptions::new().with_range(self.range.end.clone());
        let mut past = Past::Unknown;
        if let Some(Memory { at, newest, .. }) = memory {
            let read = read.clone().with_revision(at).with_min_mod_revision(newest).with_keys_only().with_limit(1);
            match self.get(self.range.start.clone(), read).await {
                Ok(response) => {
                    let changed = response.kvs().first().map(|kv| (kv.key().to_vec(), meta(kv)));
                    return Ok((header(response.header())?, Past::Known { keys: response.count(), changed }));
                }
                Err(fault) if fault.kind == ErrorKind::Compacted => {}
                // The member may have reached the revision by the next read.
                Err(fault) if fault.kind == ErrorKind::HistoryChanged => past = Past::Future,
                Err(fault) => return Err(fault),
            }
        }
        let read = read.with_count_only();
        let response = self.get(self.range.start.clone(), read).await?;
        self.keys = response.count();
        Ok((header(response.header())?, past))
    }

    /// Detects a prefix whose leading `/` was forgotten: there is no key below it, and there are keys below the same
    /// prefix with the `/`. If this user may not read there, there are none.
    async fn doubt_prefix(&mut self, prefix: &str) -> Result<(), Fault> {
        if prefix.starts_with('/') {
            return Ok(());
        }
        let meant = format!("/{prefix}");
        let Range { start, end } = Range::of_prefix(meant.as_bytes());
        match self
            .get(start, GetOptions::new().with_range(end).with_count_only())
            .await
            .map_or(0, |found| found.count())
        {
            0 => Ok(()),
            keys => Err(Fault {
                kind: ErrorKind::Other,
                reason: format!("found no key below the prefix {prefix}, but {keys} below {meant}; use that prefix"),
            }),
        }
    }

    /// Reads a page of at most `limit` keys.
    pub(super) async fn list(
        mut self,
        at: Option<Revision>,
        after: Option<Vec<u8>>,
        limit: i64,
    ) -> Result<Page, Fault> {
        let mut options = GetOptions::new().with_range(self.range.end.clone()).with_limit(limit);
        if let Some(revision) = at {
            options = options.with_revision(revision);
        }
        let start = self.range.start_after(after);
        let mut response =
            bounded(PAGE_TIMEOUT, &format!("a page of {limit} keys"), async { self.get(start, options).await }).await?;
        let (header, more) = (header(response.header())?, response.more());
        let entries = response.take_kvs().into_iter().map(|kv| {
            let meta = meta(&kv);
            let (key, value) = kv.into_key_value();
            Entry { key, value: value.into(), meta }
        });
        Ok(Page { header, entries: entries.collect(), more })
    }

    /// Reads a page of at most `limit` keys at a revision, with the digests of the values. That the revision has been
    /// compacted, or that the page is too large, is not an error of the connection.
    pub(super) async fn audit(mut self, at: Revision, after: Option<Vec<u8>>, limit: i64) -> Result<AuditPage, Fault> {
        let options = GetOptions::new().with_range(self.range.end.clone()).with_revision(at).with_limit(limit);
        let start = self.range.start_after(after);
        let page = bounded(AUDIT_TIMEOUT, "comparing the values", async { self.get(start, options).await });
        match page.await {
            Ok(page) => {
                let bytes = page.kvs().iter().map(|kv| kv.key().len() + kv.value().len()).sum();
                let keys = page.kvs().iter().map(|kv| (kv.key().to_vec(), Known::new(meta(kv), kv.value())));
                Ok(AuditPage::Keys { keys: keys.collect(), bytes, more: page.more() })
            }
            Err(fault) if fault.kind == ErrorKind::Compacted => Ok(AuditPage::Compacted),
            Err(fault) if matches!(fault.kind, ErrorKind::TooLarge | ErrorKind::Timeout) => {
                Ok(AuditPage::Unwieldy(fault))
            }
            Err(fault) => Err(fault),
        }
    }

    /// Opens a watch and waits until etcd has created it. Returns etcd's current revision.
    pub(super) async fn watch(mut self, from: Revision) -> Result<(Stream, Revision), Fault> {
        bounded(OPEN_TIMEOUT, "opening the watch", async {
            let options = WatchOptions::new()
                .with_range(self.range.end.clone())
                .with_start_revision(from)
                .with_progress_notify()
                .with_fragment();
            let stream = self.watch.watch(self.range.start.clone(), Some(options)).await.map_err(fault)?;
            let (ask, mut messages) = stream.split();
            let first = messages.message().await.map_err(fault)?.ok_or_else(ended)?;
            // Checked before `created`: a watch that is refused is both.
            if first.canceled() {
                return Err(refused(&first));
            }
            if !first.created() {
                return Err(broken("etcd did not say that the watch was created"));
            }
            let revision = first.header().ok_or_else(no_header)?.revision();
            Ok((Stream { ask, messages }, revision))
        })
        .await
    }

    /// Asks for etcd's current revision and the number of keys; reads no key.
    pub(super) async fn look(mut self, after: Revision) -> Result<Look, Fault> {
        let options = GetOptions::new().with_range(self.range.end.clone()).with_count_only();
        let response = bounded(PROVE_TIMEOUT + for_all(self.keys), "asking where etcd is", async {
            self.get(self.range.start.clone(), options).await
        })
        .await?;
        Ok(Look { header: header(response.header())?, total: response.count(), after })
    }

    /// Asks which keys changed after the revision `since`, and how many keys there are.
    pub(super) async fn prove(mut self, since: Revision, after: Revision) -> Result<Proof, Fault> {
        let options = GetOptions::new()
            .with_range(self.range.end.clone())
            .with_min_mod_revision(since + 1)
            .with_keys_only()
            .with_limit(MOST_CHANGED);
        let response = bounded(PROVE_TIMEOUT + for_all(self.keys), "proving that nothing was missed", async {
            self.get(self.range.start.clone(), options).await
        })
        .await?;
        let changed = response.kvs().iter().map(|kv| (kv.key().to_vec(), meta(kv))).collect();
        let (header, more, total) = (header(response.header())?, response.more(), response.count());
        Ok(Proof { header, changed, more, total, since, after })
    }
}

impl Stream {
    /// The next message. Dropping the future loses nothing.
    pub(super) async fn message(&mut self) -> Result<Message, Fault> {
        let response = self.messages.message().await.map_err(fault)?.ok_or_else(ended)?;
        let canceled = response.canceled().then(|| refused(&response));
        let fragment = response.0.fragment;
        let events = response.0.events.into_iter().map(|event| {
            let kv = event.kv.ok_or_else(|| broken("etcd sent an event without a key"))?;
            let put = match event.r#type {
                0 => Some(Put { value: kv.value.into(), version: kv.version, created: kv.create_revision }),
                1 => None,
                _ => return Err(broken("etcd sent an event of an unknown type")),
            };
            Ok(Event { key: kv.key, revision: kv.mod_revision, put })
        });
        Ok(Message { canceled, fragment, events: events.collect::<Result<_, _>>()? })
    }

    /// Asks for progress. This only queues the request; the answer shows whether the stream is alive.
    pub(super) async fn ask_progress(&mut self) {
        let _ = timeout(Duration::from_millis(200), self.ask.request_progress()).await;
    }
}

impl Range {
    fn of_prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        // The end of the range is the prefix with its last byte incremented; the prefix is ASCII, so this cannot
        // overflow.
        match end.last_mut() {
            Some(last) => *last += 1,
            None => end.push(0),
        }
        Self { start: prefix.to_vec(), end }
    }

    /// The key at which to continue after `key`; without one, the start of the range.
    fn start_after(&self, key: Option<Vec<u8>>) -> Vec<u8> {
        key.map_or_else(
            || self.start.clone(),
            |mut key| {
                key.push(0);
                key
            },
        )
    }
}

async fn connect_options(options: &EtcdOptions, endpoint: &str) -> Result<ConnectOptions, Fault> {
    let (interval, patience) = KEEP_ALIVE;
    let mut connect = ConnectOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_keep_alive(interval, patience)
        .with_require_leader(true);
    if endpoint.starts_with("https://") {
        connect = connect.with_tls(tls_options(&options.tls).await?);
    }
    Ok(connect)
}

async fn tls_options(tls: &EtcdTls) -> Result<TlsOptions, Fault> {
    let tls = tls.clone();
    // A blocking thread: the files may be on a disk that hangs, and checking a key takes time.
    let read = tokio::task::spawn_blocking(move || tls.read().map_err(|error| error.to_string()));
    let read = read.await.unwrap_or_else(|error| Err(error.to_string()));
    let contents = read.map_err(|reason| Fault { kind: ErrorKind::File, reason })?;
    let mut options = TlsOptions::new();
    options = match contents.ca {
        Some(ca) => options.ca_certificate(Certificate::from_pem(ca)),
        None => options.with_enabled_roots(),
    };
    if let Some((cert, key)) = contents.own {
        options = options.identity(Identity::from_pem(cert, key));
    }
    Ok(options)
}

fn for_all(keys: i64) -> Duration {
    PER_KEY * u32::try_from(keys).unwrap_or(0)
}

async fn bounded<T>(limit: Duration, what: &str, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        Err(Fault { kind: ErrorKind::Timeout, reason: format!("{what} took longer than {limit:?}") })
    })
}

fn header(header: Option<&ResponseHeader>) -> Result<Header, Fault> {
    let header = header.ok_or_else(no_header)?;
    Ok(Header { cluster: header.cluster_id(), term: header.raft_term(), revision: header.revision() })
}

fn account(status: &StatusResponse) -> Account {
    let mut errors: Vec<_> = status.errors().iter().take(MOST_ERRORS).map(|error| error.trim().to_owned()).collect();
    // etcd returns them in no particular order.
    errors.sort_unstable();
    Account { version: status.version().to_owned(), errors }
}

fn meta(kv: &KeyValue) -> Meta {
    Meta { version: kv.version(), created: kv.create_revision(), modified: kv.mod_revision() }
}
