//! Certificates are read again while the gateway serves, and only the signals to stop end it.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::process::{Gateway, refused_start, webhooks};
use crate::support::raw::text;
use crate::support::{eventually, within};

/// A certificate for localhost, and its key.
pub(super) struct Pair {
    certificate: CertificateDer<'static>,
    cert: String,
    key: String,
}

impl Pair {
    pub(super) fn new() -> Self {
        Self::until(2100)
    }

    fn until(year: i32) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = date_time_ymd(year, 1, 1);
        let certificate = params.self_signed(&key).unwrap();
        Self { cert: certificate.pem(), key: key.serialize_pem(), certificate: certificate.der().clone() }
    }

    fn write(&self, directory: &Path) {
        std::fs::create_dir_all(directory).unwrap();
        put(directory, "cert.pem", &self.cert);
        put(directory, "key.pem", &self.key);
    }
}

/// Replaces the file atomically, as a careful program does.
fn put(directory: &Path, name: &str, text: &str) {
    std::fs::write(directory.join("new"), text).unwrap();
    std::fs::rename(directory.join("new"), directory.join(name)).unwrap();
}

/// A directory with the gateway's files, and with `tls/cert.pem` and `tls/key.pem`.
fn directory(pair: &Pair) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("webhooks.json"), webhooks().to_string()).unwrap();
    pair.write(&directory.path().join("tls"));
    directory
}

pub(super) async fn start(pair: &Pair) -> Gateway {
    Gateway::start_in(directory(pair), &[("TLS_CERT", "tls/cert.pem"), ("TLS_KEY", "tls/key.pem")]).await
}

/// A client that trusts all of `pairs`. It keeps its TLS sessions to resume them.
fn client(pairs: &[&Pair]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    pairs.iter().for_each(|pair| roots.add(pair.certificate.clone()).unwrap());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

async fn connect_as(client: &TlsConnector, gateway: &Gateway) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(gateway.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    within("a handshake", client.connect(name, stream)).await
}

pub(super) async fn connect(gateway: &Gateway, pairs: &[&Pair]) -> std::io::Result<TlsStream<TcpStream>> {
    connect_as(&client(pairs), gateway).await
}

/// Whether a new connection is shown `pair`, and none other of `pairs`.
async fn shows(gateway: &Gateway, pair: &Pair, pairs: &[&Pair]) -> bool {
    let stream = connect(gateway, pairs).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0] == pair.certificate
}

pub(super) async fn ask(stream: &mut TlsStream<TcpStream>) {
    stream.write_all(&text(&["POST /webhook/open HTTP/1.1"], "{}")).await.unwrap();
    let mut head = [0; 12];
    within("an answer", stream.read_exact(&mut head)).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
}

/// Reads the rest of an answer, of which [`ask`] reads only the beginning.
pub(super) async fn skip_answer(stream: &mut TlsStream<TcpStream>) {
    let mut rest = vec![0; 1024];
    let _ = within("the rest", stream.read(&mut rest)).await.unwrap();
}

/// Waits until the gateway has checked its files twice.
async fn two_looks() {
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
}

fn count(gateway: &Gateway, text: &str) -> usize {
    gateway.err().lines().filter(|line| line.contains(text)).count()
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_and_open_connections_go_on() {
    let (old, new) = (Pair::new(), Pair::new());
    let gateway = start(&old).await;
    let both = [&old, &new];
    let mut open = connect(&gateway, &both).await.unwrap();
    ask(&mut open).await;
    assert!(shows(&gateway, &old, &both).await);

    new.write(&gateway.path("tls"));
    eventually("the new certificate", async || shows(&gateway, &new, &both).await).await;
    ask(&mut connect(&gateway, &[&new]).await.unwrap()).await;
    assert!(connect(&gateway, &[&old]).await.is_err(), "the old certificate is still shown to somebody");
    assert!(gateway.err().contains("2100-01-01"), "the log says until when it is valid: {}", gateway.err());
    assert_eq!(count(&gateway, "WARN"), 0, "{}", gateway.err());
    skip_answer(&mut open).await;
    ask(&mut open).await;
}

#[tokio::test]
async fn a_client_that_keeps_its_session_is_shown_the_renewed_certificate() {
    let (old, new) = (Pair::new(), Pair::new());
    let gateway = start(&old).await;
    let client = client(&[&old, &new]);
    ask(&mut connect_as(&client, &gateway).await.unwrap()).await;
    let mut resumed = connect_as(&client, &gateway).await.unwrap();
    ask(&mut resumed).await;
    assert_eq!(resumed.get_ref().1.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
    new.write(&gateway.path("tls"));
    eventually("the new certificate", async || shows(&gateway, &new, &[&old, &new]).await).await;
    let stream = connect_as(&client, &gateway).await.unwrap();
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], new.certificate);
}

#[tokio::test]
async fn a_certificate_that_kubernetes_swaps_is_shown() {
    let (old, new) = (Pair::new(), Pair::new());
    let directory = directory(&old);
    let secret = directory.path().join("secret");
    old.write(&secret.join("..1"));
    new.write(&secret.join("..2"));
    symlink("..1", secret.join("..data")).unwrap();
    symlink("..data/cert.pem", secret.join("cert.pem")).unwrap();
    symlink("..data/key.pem", secret.join("key.pem")).unwrap();
    let files = [("TLS_CERT", "secret/cert.pem"), ("TLS_KEY", "secret/key.pem")];
    let gateway = Gateway::start_in(directory, &files).await;
    assert!(shows(&gateway, &old, &[&old, &new]).await);

    let secret = gateway.path("secret");
    symlink("..2", secret.join("..data_tmp")).unwrap();
    std::fs::rename(secret.join("..data_tmp"), secret.join("..data")).unwrap();
    std::fs::remove_dir_all(secret.join("..1")).unwrap();
    eventually("the new certificate", async || shows(&gateway, &new, &[&old, &new]).await).await;
}

#[tokio::test]
async fn a_pair_that_does_not_fit_is_refused_once_and_the_old_one_serves() {
    let (old, new) = (Pair::new(), Pair::new());
    let gateway = start(&old).await;
    let both = [&old, &new];
    put(&gateway.path("tls"), "cert.pem", &new.cert);
    eventually("a warning", async || count(&gateway, "WARN") > 0).await;
    two_looks().await;
    assert_eq!(count(&gateway, "WARN"), 1, "{}", gateway.err());
    let line = gateway.err().lines().find(|line| line.contains("WARN")).unwrap().to_owned();
    for word in ["TLS_KEY", "tls/key.pem", "tls/cert.pem", "does not belong"] {
        assert!(line.contains(word), "{word}: {line}");
    }
    assert!(shows(&gateway, &old, &both).await);

    // Finally the other half arrives.
    put(&gateway.path("tls"), "key.pem", &new.key);
    eventually("the new certificate", async || shows(&gateway, &new, &both).await).await;

    // A missing or incomplete file does no harm either.
    std::fs::remove_file(gateway.path("tls/key.pem")).unwrap();
    eventually("a warning of the missing file", async || count(&gateway, "No such file") > 0).await;
    put(&gateway.path("tls"), "key.pem", &new.key[..60]);
    eventually("a warning of half a file", async || count(&gateway, "holds no private key") > 0).await;
    assert!(shows(&gateway, &new, &both).await);
    assert!(!gateway.err().contains(&new.key[30..50]), "a part of the key is in the log");
    old.write(&gateway.path("tls"));
    eventually("the old certificate again", async || shows(&gateway, &old, &both).await).await;
}

#[tokio::test]
async fn other_certificates_of_targets_are_trusted_while_it_runs() {
    let (first, second) = (Pair::new(), Pair::new());
    // Another gateway is the target.
    let target = start(&second).await;
    let directory = tempfile::tempdir().unwrap();
    let url = format!("https://localhost:{}/webhook/open", target.address.port());
    let webhooks = json!({"on": {"module": "http_webhook", "module-config": {"url": url}}});
    std::fs::write(directory.path().join("webhooks.json"), webhooks.to_string()).unwrap();
    put(directory.path(), "ca.pem", &first.cert);
    let variables = [("EGRESS_CA_CERT", "ca.pem"), ("EGRESS_ALLOW", "127.0.0.0/8,::1/128")];
    let gateway = Gateway::start_in(directory, &variables).await;
    eventually("the gateway to be ready", async || gateway.get("/ready").await.status == 200).await;
    eventually("the target to be ready", async || shows(&target, &second, &[&second]).await).await;
    gateway.post("/webhook/on", "{}").await.problem(502);

    put(&gateway.path(""), "ca.pem", "no certificate");
    eventually("a warning", async || {
        gateway.err().lines().any(|line| ["WARN", "EGRESS_CA_CERT", "ca.pem"].iter().all(|word| line.contains(word)))
    })
    .await;
    put(&gateway.path(""), "ca.pem", &(first.cert + &second.cert));
    eventually("the target to be trusted", async || gateway.post("/webhook/on", "{}").await.status == 200).await;
    // A later mistake does not remove trust.
    std::fs::remove_file(gateway.path("ca.pem")).unwrap();
    eventually("a warning", async || gateway.err().contains("No such file")).await;
    gateway.post("/webhook/on", "{}").await.assert_accepted();
}

#[tokio::test]
async fn a_file_that_cannot_be_read_to_its_end_holds_up_no_other() {
    let [served, target, renewed] = [Pair::new(), Pair::new(), Pair::new()];
    let directory = directory(&served);
    put(directory.path(), "ca.pem", &target.cert);
    let variables = [("TLS_CERT", "tls/cert.pem"), ("TLS_KEY", "tls/key.pem"), ("EGRESS_CA_CERT", "ca.pem")];
    let mut gateway = Gateway::start_in(directory, &variables).await;
    // A pipe without a writer: opening it never returns, like a file on a mount whose server is gone.
    let pipe = gateway.path("tls/cert.pem");
    std::fs::remove_file(&pipe).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let is_slow = async || count(&gateway, "reading the files of TLS_CERT, TLS_KEY takes long") == 1;
    eventually("a line about the pipe", is_slow).await;
    put(&gateway.path("."), "ca.pem", &renewed.cert);
    eventually("the other file to be read", async || {
        count(&gateway, "the files of EGRESS_CA_CERT were read again") == 1
    })
    .await;
    gateway.signal("HUP").await;
    eventually("an answer to the hangup", async || count(&gateway, "SIGHUP: nothing has changed") == 1).await;
    assert!(shows(&gateway, &served, &[&served]).await);
    // The pipe ends, and so does the wait for it. It is moved away first, so that it is not opened again.
    let aside = gateway.path("tls/pipe");
    std::fs::rename(&pipe, &aside).unwrap();
    put(&gateway.path("tls"), "cert.pem", &renewed.cert);
    put(&gateway.path("tls"), "key.pem", &renewed.key);
    std::fs::write(&aside, &served.cert).unwrap();
    eventually("the renewed certificate", async || shows(&gateway, &renewed, &[&served, &renewed]).await).await;
    gateway.signal("TERM").await;
    assert_eq!(gateway.ended().await.code(), Some(0));
}

#[tokio::test]
async fn sighup_reads_certificates_again_and_says_what_it_found() {
    let (old, new) = (Pair::new(), Pair::new());
    let gateway = start(&old).await;
    gateway.signal("HUP").await;
    eventually("an answer to the signal", async || count(&gateway, "nothing has changed") == 1).await;
    new.write(&gateway.path("tls"));
    gateway.signal("HUP").await;
    eventually("the new certificate", async || shows(&gateway, &new, &[&old, &new]).await).await;
    put(&gateway.path("tls"), "key.pem", &old.key);
    for n in 1..=3 {
        gateway.signal("HUP").await;
        eventually("a warning for each signal", async || count(&gateway, "does not belong") >= n).await;
    }
}

#[tokio::test]
async fn no_signal_but_those_that_stop_it_ends_the_gateway() {
    let mut gateway = Gateway::start(&[]).await;
    for signal in ["HUP", "USR1", "USR2", "PIPE", "HUP"] {
        gateway.signal(signal).await;
        gateway.assert_serves().await;
    }
    eventually("an answer to each", async || {
        let err = gateway.err();
        ["SIGHUP: no variable names a file to read again", "SIGUSR1 is ignored", "SIGUSR2 is ignored"]
            .iter()
            .all(|line| err.contains(line))
    })
    .await;
    assert!(!gateway.has_ended());
}

/// A process cannot handle signals in its first millisecond, so the signal comes a little later.
#[tokio::test]
async fn a_hangup_during_the_start_does_not_end_the_gateway() {
    let directory = directory(&Pair::new());
    let mut command = crate::support::process::command(directory.path());
    command.env("PORT", "0");
    let mut child = command.spawn().unwrap();
    let id = child.id().unwrap();
    let status = std::path::PathBuf::from(format!("/proc/{id}/status"));
    // The mask of caught signals; SIGHUP is the lowest bit.
    eventually("the signal to be caught", async || {
        let status = std::fs::read_to_string(&status).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim();
        u64::from_str_radix(mask, 16).unwrap() & 1 == 1
    })
    .await;
    for _ in 0..20 {
        let script = format!("kill -HUP {id}");
        tokio::process::Command::new("sh").args(["-c", &script]).status().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(child.try_wait().unwrap().is_none(), "it has ended");
}

#[tokio::test]
async fn an_expired_certificate_causes_a_warning() {
    let gateway = start(&Pair::until(2001)).await;
    let line = gateway.err().lines().find(|line| line.contains("expired")).unwrap().to_owned();
    for word in ["WARN", "tls/cert.pem", "2001-01-01"] {
        assert!(line.contains(word), "{word}: {line}");
    }
}

/// Made with `openssl pkcs8 -topk8` and `openssl ec -aes128`.
const ENCRYPTED: [&str; 2] = [
    "-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAjWiXJNNbvmfwICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEFgPMfkJENfD1C9QbHMDbDUEgZBz
eFQSUA9eCP82pypax1jlH6W9yZb5f4NNPcs1jCYXp777pl0tYNFqMCch0yXiz8cN
D8U7nxKFlVhTU7Jg0l8rxxhejs4T2s714ILM9CwmoC7RC9iWLkLx04i6M+QzFDho
HqXlrIe7nFX0CuSu8i33ygy+yeWCfr4GD8YxuLsKcYykYoGpv56eXTLA/4W7UI8=
-----END ENCRYPTED PRIVATE KEY-----
",
    "-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-128-CBC,1EB30C3862C325DABA2AC9AF1D495655

J5EpdfrmvAS5XpDPv2GIR6i7x/+06iWK6T/isA+FpsqXx0HEitXStlY0q4affEpB
YLCf4zsaEaaEYgDyl4lBajXawxWMPaBDBZd3RYIrIMiyhx5k6qKnyye8/UQvsd5Q
72Y26lBW4pSGE8RrVl7mMIdYv9W0SQlUkNbWEzojYBM=
-----END EC PRIVATE KEY-----
",
];

#[tokio::test]
async fn a_file_that_holds_no_key_or_no_certificate_is_named_with_the_reason() {
    let (pair, other) = (Pair::new(), Pair::new());
    let cases = [
        (pair.cert.as_str(), ENCRYPTED[0], "TLS_KEY: ", &["key.pem", "encrypted", "openssl pkey"][..]),
        (&pair.cert, ENCRYPTED[1], "TLS_KEY: ", &["key.pem", "encrypted", "openssl pkey"]),
        (&pair.cert, &other.key, "TLS_KEY: ", &["key.pem", "does not belong", "cert.pem"]),
        (&pair.cert, "", "TLS_KEY: ", &["key.pem", "no private key"]),
        (&pair.cert, &pair.cert, "TLS_KEY: ", &["key.pem", "no private key"]),
        (&pair.key, &pair.cert, "TLS_CERT: ", &["cert.pem", "may be swapped"]),
        ("\u{0}\u{1}", &pair.key, "TLS_CERT: ", &["cert.pem", "no certificate"]),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &pair.key, "TLS_CERT: ", &["cert.pem"]),
    ];
    for (cert, key, variable, words) in cases {
        let directory = tempfile::tempdir().unwrap();
        put(directory.path(), "cert.pem", cert);
        put(directory.path(), "key.pem", key);
        assert_refused(directory.path(), variable, words).await;
    }
    let directory = tempfile::tempdir().unwrap();
    put(directory.path(), "cert.pem", &pair.cert);
    assert_refused(directory.path(), "TLS_KEY: ", &["key.pem", "No such file"]).await;
    put(directory.path(), "key.pem", &pair.key);
    std::fs::remove_file(directory.path().join("cert.pem")).unwrap();
    assert_refused(directory.path(), "TLS_CERT: ", &["cert.pem", "No such file"]).await;
    std::fs::create_dir(directory.path().join("cert.pem")).unwrap();
    assert_refused(directory.path(), "TLS_CERT: ", &["cert.pem", "directory"]).await;
}

async fn assert_refused(directory: &Path, variable: &str, words: &[&str]) {
    let (cert, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    let (status, stderr) = refused_start(&[("TLS_CERT", cert.as_os_str()), ("TLS_KEY", key.as_os_str())]).await;
    assert_eq!(status.code(), Some(1), "{stderr}");
    let line = stderr.lines().find_map(|line| line.strip_prefix("gateway: ")).unwrap_or_default().to_owned();
    assert!(line.starts_with(variable), "{stderr}");
    for word in words {
        assert!(line.contains(word), "{word}: {stderr}");
    }
}
