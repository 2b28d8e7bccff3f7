//! A wrong variable stops the start.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::support::process::{AUTHORIZATION, Gateway, refused_start};

/// Asserts that it does not start, and says why in one line that holds `named`.
async fn assert_refused(variables: &[(&str, &str)], named: &str) {
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, OsStr::new(value))).collect();
    assert_refused_os(&variables, named).await;
}

async fn assert_refused_os(variables: &[(&str, &OsStr)], named: &str) {
    let (status, stderr) = refused_start(variables).await;
    assert_eq!(status.code(), Some(1), "{variables:?}: {stderr}");
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 1, "{variables:?}: {stderr}");
    assert!(lines[0].contains(named), "{variables:?}: {stderr}");
}

#[tokio::test]
async fn a_wrong_variable_is_named() {
    for (name, value) in [
        ("PORT", "abc"),
        ("PORT", "70000"),
        ("PORT", "-1"),
        ("PORT", " 8000"),
        ("HOST", "no such host"),
        ("CONFIG_BACKEND", "x"),
        ("CONFIG_BACKEND", "ETCD"),
        ("RUST_LOG", "["),
        ("RUST_LOG", "tower_webhook=nonsense"),
        ("LOG_FORMAT", "xml"),
        ("MAX_BODY_BYTES", "-1"),
        ("MAX_BODY_BYTES", "25MiB"),
        ("MAX_CONNECTIONS", "0"),
        ("MAX_CONNECTIONS", "many"),
        ("HEADER_TIMEOUT_SECONDS", "0"),
        ("BODY_TIMEOUT_SECONDS", "0.5"),
        ("DELIVERY_TIMEOUT_SECONDS", "1000000"),
        ("SHUTDOWN_GRACE_SECONDS", "x"),
        ("CONFIG_ON_INVALID", "drop"),
        ("ETCD_NAMESPACE", "a/b"),
        ("ADMIN_TOKEN", " "),
        ("TLS_CERT", "cert.pem"),
        ("TLS_KEY", "key.pem"),
        ("SPOOL_DIR", "/proc/nothing"),
        ("SPOOL_MAX_BYTES", "1000"),
        ("DEAD_LETTER_DAYS", "0"),
        ("SPOOL_DIR", "webhooks.json"),
        ("SPOOL_DIR", "/proc/spool"),
        ("EGRESS_ALLOW", "10.0.0.1/8"),
        ("EGRESS_ALLOW", "localhost"),
        ("EGRESS_CA_CERT", "/nowhere/ca.pem"),
        ("EGRESS_CA_CERT", "webhooks.json"),
    ] {
        assert_refused(&[(name, value)], name).await;
    }
}

#[tokio::test]
async fn the_spool_is_not_where_webhooks_may_write() {
    for (root, spool) in [("data", "data/spool"), ("data", "./data"), ("/", "spool")] {
        assert_refused(&[("SAVE_TO_DISK_ROOT", root), ("SPOOL_DIR", spool)], "SPOOL_DIR").await;
    }
}

#[tokio::test]
async fn a_wrong_variable_of_etcd_is_named() {
    for (name, value) in [
        ("ETCD_ENDPOINTS", "nonsense"),
        ("ETCD_ENDPOINTS", "http://a:2379,,http://b:2379"),
        ("ETCD_ENDPOINTS", "ftp://a:2379"),
        ("ETCD_ENDPOINTS", "http://"),
        ("ETCD_PORT", "x"),
        ("ETCD_HOST", "a b"),
        ("ETCD_USERNAME", "root"),
        ("ETCD_PASSWORD", "x"),
        ("ETCD_CLIENT_CERT", "cert.pem"),
        ("ETCD_CLIENT_KEY", "key.pem"),
    ] {
        assert_refused(&[("CONFIG_BACKEND", "etcd"), (name, value)], name).await;
    }
}

/// Else the gateway would try forever to reach what cannot be.
#[tokio::test]
async fn an_address_of_etcd_that_nothing_can_have_is_named() {
    for (name, value) in [("ETCD_PORT", "0"), ("ETCD_HOST", "h:99"), ("ETCD_ENDPOINTS", "http://a:0")] {
        assert_refused(&[("CONFIG_BACKEND", "etcd"), (name, value)], name).await;
    }
}

#[tokio::test]
async fn a_certificate_of_etcd_that_is_not_there_is_named() {
    assert_refused(&[("CONFIG_BACKEND", "etcd"), ("ETCD_CA_CERT", "/nowhere/ca.pem")], "ETCD_CA_CERT").await;
    let pair = [("ETCD_CLIENT_CERT", "/nowhere/cert.pem"), ("ETCD_CLIENT_KEY", "/nowhere/key.pem")];
    let variables: Vec<_> = [("CONFIG_BACKEND", "etcd")].into_iter().chain(pair).collect();
    assert_refused(&variables, "ETCD_CLIENT_CERT").await;
}

#[tokio::test]
async fn a_variable_that_is_not_text_is_named() {
    for name in ["PORT", "HOST", "ADMIN_TOKEN", "RUST_LOG"] {
        assert_refused_os(&[(name, OsStr::from_bytes(b"\xff"))], name).await;
    }
}

#[tokio::test]
async fn certificates_that_cannot_be_read_are_named() {
    let (status, stderr) =
        refused_start(&[("TLS_CERT", OsStr::new("nowhere.pem")), ("TLS_KEY", OsStr::new("nowhere.key"))]).await;
    assert_eq!(status.code(), Some(1), "{stderr}");
    let errors: Vec<_> = stderr.lines().filter(|line| line.starts_with("gateway: ")).collect();
    assert!(errors.len() == 1 && errors[0].contains("TLS_CERT"), "{stderr}");
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let gateway = Gateway::start(&[]).await;
    assert_refused(&[("PORT", &gateway.address.port().to_string())], "PORT").await;
}

#[tokio::test]
async fn a_secret_is_not_told_when_it_stops_the_start() {
    let token = OsStr::from_bytes(b"adm1n-token\xff");
    let (_, stderr) = refused_start(&[("ADMIN_TOKEN", token)]).await;
    assert!(!stderr.contains("adm1n"), "{stderr}");
    let variables = [("CONFIG_BACKEND", OsStr::new("etcd")), ("ETCD_PASSWORD", OsStr::new("p4ssword"))];
    let (_, stderr) = refused_start(&variables).await;
    assert!(!stderr.contains("p4ssword"), "{stderr}");
}

#[tokio::test]
async fn an_empty_variable_counts_as_not_set() {
    let gateway = Gateway::start(&[("CONFIG_BACKEND", ""), ("ADMIN_TOKEN", ""), ("SPOOL_DIR", "")]).await;
    gateway.request(&["GET /admin/config-status HTTP/1.1", AUTHORIZATION], "").await.problem(403);
}

#[tokio::test]
async fn without_etcd_it_starts_and_is_not_ready() {
    let nobody = crate::support::process::free_address().to_string();
    let directory = tempfile::tempdir().unwrap();
    let endpoint = format!("http://{nobody}");
    let variables = [("CONFIG_BACKEND", "etcd"), ("ETCD_ENDPOINTS", endpoint.as_str())];
    let gateway = Gateway::start_in(directory, &variables).await;
    assert_eq!(gateway.get("/health").await.status, 200);
    gateway.get("/ready").await.problem(503);
    gateway.post("/webhook/open", "{}").await.problem(503);
}
