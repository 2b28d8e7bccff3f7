//! etcd's protocol. The only file that names `etcd_client`.

use std::error::Error as _;
use std::fmt::Write as _;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use etcd_client::{
    Certificate, Client, ConnectOptions, Error, GetOptions, Identity, KvClient, TlsOptions, WatchClient, WatchOptions,
    WatchRequestSender, WatchResponse, WatchResponseStream,
};
use tokio::time::timeout;

use super::machine::{Canceled, Entry, Event, Fault, FaultKind, Message, Page, Proof, Revision};
use super::{EtcdOptions, EtcdTls};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// For connecting, authenticating and the first read together.
const SESSION_TIMEOUT: Duration = Duration::from_secs(5);

const PAGE_TIMEOUT: Duration = Duration::from_secs(10);

const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

const PROVE_TIMEOUT: Duration = Duration::from_secs(3);

/// etcd closes connections that ping more often than every 5 s.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(4));

/// The client's own limit of 4 MiB is less than one transaction may hold.
const MAX_MESSAGE: usize = 64 << 20;

/// Connections to one endpoint. Reads and the watch have one each, as large reads can starve a watch beside them
/// (etcd #15402).
#[derive(Clone)]
pub(super) struct Session {
    kv: KvClient,
    watch: WatchClient,
    range: Range,
}

/// All keys with the prefix.
#[derive(Clone)]
struct Range {
    start: Vec<u8>,
    end: Vec<u8>,
}

/// An open watch.
pub(super) struct Stream {
    /// Some servers end the stream when the half that asks is dropped.
    ask: WatchRequestSender,
    messages: WatchResponseStream,
}

/// What a linearizable read says of the cluster.
pub(super) struct Cluster {
    pub(super) id: u64,
    pub(super) revision: Revision,
}

impl Session {
    /// Connects to one endpoint and does a linearizable read.
    pub(super) async fn open(options: &EtcdOptions, endpoint: &str) -> Result<(Self, Cluster), Fault> {
        bounded(SESSION_TIMEOUT, "connecting", async {
            let connect = connect_options(options, endpoint).await?;
            // One endpoint per client: a client with several keeps calling the dead ones.
            let reads = connect.clone().with_keep_alive_while_idle(false);
            let reads = Client::connect([endpoint], Some(reads)).await.map_err(fault)?;
            let watches = Client::connect([endpoint], Some(connect)).await.map_err(fault)?;
            let range = Range::of_prefix(options.prefix.as_bytes());
            let session = Self {
                kv: reads.kv_client().max_decoding_message_size(MAX_MESSAGE),
                watch: watches.watch_client().max_decoding_message_size(MAX_MESSAGE),
                range,
            };
            let read = GetOptions::new().with_range(session.range.end.clone()).with_count_only();
            let response = session.kv.clone().get(session.range.start.clone(), Some(read)).await.map_err(fault)?;
            let header = response.header().ok_or_else(no_header)?;
            let cluster = Cluster { id: header.cluster_id(), revision: header.revision() };
            Ok((session, cluster))
        })
        .await
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
        let start = match after {
            Some(mut key) => {
                key.push(0);
                key
            }
            None => self.range.start.clone(),
        };
        let mut response = match timeout(PAGE_TIMEOUT, self.kv.get(start, Some(options))).await {
            Ok(page) => page.map_err(fault)?,
            Err(_) => {
                let reason = format!("a page of {limit} keys took longer than {PAGE_TIMEOUT:?}");
                return Err(Fault { kind: FaultKind::TooSlow, reason });
            }
        };
        let revision = response.header().ok_or_else(no_header)?.revision();
        let (total, more) = (response.count(), response.more());
        let entries = response.take_kvs().into_iter().map(|kv| {
            let revision = kv.mod_revision();
            let (key, value) = kv.into_key_value();
            Entry { key, value: value.into(), revision }
        });
        Ok(Page { revision, total, entries: entries.collect(), more })
    }

    /// Opens a watch and waits until etcd has created it. Returns the revision etcd is at.
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
            // Before `created`: a watch that is refused is both.
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

    /// Asks which keys changed after a revision.
    pub(super) async fn prove(mut self, after: Revision) -> Result<Proof, Fault> {
        let options = GetOptions::new()
            .with_range(self.range.end.clone())
            .with_min_mod_revision(after + 1)
            .with_keys_only()
            .with_limit(1);
        let response = bounded(PROVE_TIMEOUT, "proving that nothing was missed", async {
            self.kv.get(self.range.start.clone(), Some(options)).await.map_err(fault)
        })
        .await?;
        let header = response.header().ok_or_else(no_header)?;
        Ok(Proof {
            revision: header.revision(),
            changed: !response.kvs().is_empty(),
            total: response.count(),
            after,
            cluster: header.cluster_id(),
        })
    }
}

impl Stream {
    /// The next message. Nothing is lost when the future is dropped.
    pub(super) async fn message(&mut self) -> Result<Message, Fault> {
        let response = self.messages.message().await.map_err(fault)?.ok_or_else(ended)?;
        let canceled = response.canceled().then(|| Canceled {
            compact_revision: response.compact_revision(),
            reason: response.cancel_reason().to_owned(),
        });
        let fragment = response.0.fragment;
        let events = response.0.events.into_iter().map(|event| {
            let kv = event.kv.ok_or_else(|| broken("etcd sent an event without a key"))?;
            let value = match event.r#type {
                0 => Some(kv.value.into()),
                1 => None,
                _ => return Err(broken("etcd sent an event of an unknown type")),
            };
            Ok(Event { key: kv.key, value, revision: kv.mod_revision, created: kv.version == 1 })
        });
        Ok(Message { canceled, fragment, events: events.collect::<Result<_, _>>()? })
    }

    /// Asks for progress. It only queues the request; whether the stream lives is told by what comes back.
    pub(super) async fn ask_progress(&mut self) {
        let _ = timeout(Duration::from_millis(200), self.ask.request_progress()).await;
    }
}

impl Range {
    fn of_prefix(prefix: &[u8]) -> Self {
        let mut end = prefix.to_vec();
        // The first key behind all that begin with the prefix; a prefix is ASCII here, so the last byte can grow.
        match end.last_mut() {
            Some(last) => *last += 1,
            None => end.push(0),
        }
        Self { start: prefix.to_vec(), end }
    }
}

async fn connect_options(options: &EtcdOptions, endpoint: &str) -> Result<ConnectOptions, Fault> {
    let (interval, patience) = KEEP_ALIVE;
    let mut connect = ConnectOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_keep_alive(interval, patience)
        .with_require_leader(true);
    if let Some((name, password)) = &options.user {
        connect = connect.with_user(name, password);
    }
    if endpoint.starts_with("https://") {
        connect = connect.with_tls(tls_options(&options.tls).await?);
    }
    Ok(connect)
}

async fn tls_options(tls: &EtcdTls) -> Result<TlsOptions, Fault> {
    let mut options = TlsOptions::new();
    options = match &tls.ca {
        Some(ca) => options.ca_certificate(Certificate::from_pem(read(ca).await?)),
        None => options.with_enabled_roots(),
    };
    if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
        options = options.identity(Identity::from_pem(read(cert).await?, read(key).await?));
    }
    Ok(options)
}

async fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    tokio::fs::read(path).await.map_err(|error| broken(&format!("{}: {error}", path.display())))
}

async fn bounded<T>(limit: Duration, what: &str, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(broken(&format!("{what} took longer than {limit:?}"))))
}

fn refused(response: &WatchResponse) -> Fault {
    let kind = if response.compact_revision() > 0 { FaultKind::Compacted } else { FaultKind::Broken };
    Fault { kind, reason: format!("etcd refused the watch: {}", response.cancel_reason()) }
}

fn fault(error: Error) -> Fault {
    let mut reason = match &error {
        Error::GRpcStatus(status) if !status.message().is_empty() => status.message().to_owned(),
        other => other.to_string(),
    };
    // The codes do not tell these apart: both come as OutOfRange.
    let kind = if reason.contains("required revision has been compacted") {
        FaultKind::Compacted
    } else if reason.contains("decoded message length too large") {
        FaultKind::TooLarge
    } else {
        FaultKind::Broken
    };
    // etcd-client's own words hide the cause.
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !reason.contains(&text) {
            let _ = write!(reason, ": {text}");
        }
        cause = error.source();
    }
    Fault { kind, reason }
}

fn broken(reason: &str) -> Fault {
    Fault { kind: FaultKind::Broken, reason: reason.to_owned() }
}

fn no_header() -> Fault {
    broken("etcd's answer has no header")
}

fn ended() -> Fault {
    broken("etcd ended the watch")
}
