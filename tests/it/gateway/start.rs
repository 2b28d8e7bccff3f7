//! A wrong variable stops the start.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::support::eventually;
use crate::support::process::{AUTHORIZATION, Gateway, refused_start};

/// Asserts that the gateway does not start, and that one line of its error contains `named`.
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
        ("PUBLIC_URL", "hooks.example.com"),
        ("PUBLIC_URL", "https://hooks.example.com/?x=1"),
        ("CONFIG_BACKEND", "x"),
        ("CONFIG_BACKEND", "ETCD"),
        ("RUST_LOG", "["),
        ("RUST_LOG", "tower_webhook=nonsense"),
        ("LOG_FORMAT", "xml"),
        ("MAX_BODY_BYTES", "-1"),
        ("MAX_BODY_BYTES", "25 elephants"),
        ("MAX_BODY_BYTES", "0"),
        ("MAX_BODY_BYTES", "16777216TiB"),
        ("MAX_CONNECTIONS", "10k"),
        ("SPOOL_MAX_BYTES", "1023KiB"),
        ("SPOOL_MAX_BYTES", "99999999999999999999"),
        ("DEAD_LETTER_DAYS", "3651"),
        ("DEAD_LETTER_DAYS", "59m"),
        ("HEADER_TIMEOUT_SECONDS", "99ms"),
        ("BODY_TIMEOUT_SECONDS", "25h"),
        ("HOST", "http://0.0.0.0"),
        ("HOST", "0.0.0.0:8000"),
        ("MAX_CONNECTIONS", "0"),
        ("MAX_CONNECTIONS", "many"),
        ("HEADER_TIMEOUT_SECONDS", "0"),
        ("IDLE_TIMEOUT_SECONDS", "0"),
        ("BODY_TIMEOUT_SECONDS", "0.5"),
        ("DELIVERY_TIMEOUT_SECONDS", "1000000"),
        ("SHUTDOWN_GRACE_SECONDS", "x"),
        ("CONFIG_ON_INVALID", "drop"),
        ("ETCD_NAMESPACE", "a/b"),
        ("ADMIN_TOKEN", " "),
        ("TLS_CERT", "cert.pem"),
        ("TRUSTED_PROXIES", "10.0.0.0/8"),
        ("CLIENT_ADDRESS_HEADER", "X-Forwarded-For"),
        ("TLS_KEY", "key.pem"),
        ("SPOOL_DIR", "/proc/nothing"),
        ("SPOOL_MAX_BYTES", "1000"),
        ("DEAD_LETTER_DAYS", "0"),
        ("SPOOL_DIR", "webhooks.json"),
        ("SPOOL_DIR", "/proc/spool"),
        ("HISTORY_DIR", "/proc/nothing"),
        ("HISTORY_DIR", "webhooks.json"),
        ("HISTORY_MAX_BYTES", "4095KiB"),
        ("HISTORY_MAX_BYTES", "much"),
        ("HISTORY_DAYS", "0"),
        ("HISTORY_DAYS", "36h"),
        ("HISTORY_DAYS", "3651"),
        ("HISTORY_BODY_DAYS", "15"),
        ("HISTORY_BODY_DAYS", "0"),
        ("HISTORY_FULL_TEXT", "yes"),
        ("EGRESS_ALLOW", "10.0.0.1/8"),
        ("EGRESS_ALLOW", "localhost"),
        ("EGRESS_CA_CERT", "/nowhere/ca.pem"),
        ("EGRESS_CA_CERT", "webhooks.json"),
        ("SECRETS_DIR", "/nowhere/secrets"),
        ("SECRETS_DIR", "webhooks.json"),
        ("PLACEHOLDER_ALLOW", "*"),
        ("PLACEHOLDER_ALLOW", "A,,B"),
        ("PLACEHOLDER_ALLOW", "A B"),
        ("PLACEHOLDER_ALLOW", "ACME_*,ADMIN_TOKEN"),
        ("PLACEHOLDER_ALLOW", "ETCD_HOST"),
    ] {
        assert_refused(&[(name, value)], name).await;
    }
}

#[tokio::test]
async fn secrets_are_not_where_webhooks_may_write() {
    for (root, secrets) in [("data", "data"), ("data", "."), ("/", "/tmp")] {
        assert_refused(&[("SAVE_TO_DISK_ROOT", root), ("SECRETS_DIR", secrets)], "SECRETS_DIR").await;
    }
}

#[tokio::test]
async fn the_spool_is_not_where_webhooks_may_write() {
    for (root, spool) in [("data", "data/spool"), ("data", "./data"), ("/", "spool")] {
        assert_refused(&[("SAVE_TO_DISK_ROOT", root), ("SPOOL_DIR", spool)], "SPOOL_DIR").await;
    }
}

#[tokio::test]
async fn the_history_is_not_where_webhooks_may_write() {
    for (root, history) in [("data", "data/history"), ("data", "./data"), ("/", "history")] {
        assert_refused(&[("SAVE_TO_DISK_ROOT", root), ("HISTORY_DIR", history)], "HISTORY_DIR").await;
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

/// The gateway would otherwise try for ever to reach an impossible address.
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
async fn a_secret_is_not_quoted_when_it_stops_the_start() {
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

#[tokio::test]
async fn the_error_for_a_wrong_value_says_what_is_accepted() {
    for (name, value, words) in [
        ("PORT", "abc", &["`abc`", "whole number", "65535"][..]),
        ("PORT", "\"8000\"", &["leave out the quotes"]),
        ("PORT", "8000\nx", &[r"`8000\nx`"]),
        ("MAX_CONNECTIONS", "-1", &["`-1`", "whole number", "at least 1"]),
        ("MAX_BODY_BYTES", "25 elephants", &["`25 elephants`", "25MB", "64KiB", "1GiB"]),
        ("SPOOL_MAX_BYTES", "1 gigabyte", &["`1 gigabyte`", "1GiB", "at least 1MiB"]),
        ("BODY_TIMEOUT_SECONDS", "0.5", &["`0.5`", "500ms", "90s"]),
        ("DEAD_LETTER_DAYS", "0", &["`0`", "14d", "3650d"]),
        ("LOG_FORMAT", "JSON", &["`JSON`", "text, json"]),
        ("CONFIG_BACKEND", "consul", &["`consul`", "file, etcd"]),
        ("HOST", "0.0.0.0:8000", &["`0.0.0.0:8000`", "localhost"]),
        ("RUST_LOG", "tower_webhook=nonsense", &["`tower_webhook=nonsense`", "info"]),
        ("TLS_CERT", "cert.pem", &["TLS_KEY is not set"]),
    ] {
        let (_, stderr) = refused_start(&[(name, OsStr::new(value))]).await;
        for word in words {
            assert!(stderr.contains(word), "{name}={value:?}: {word}: {stderr}");
        }
    }
}

#[tokio::test]
async fn all_wrong_variables_are_reported_at_once() {
    let variables = [("MAX_CONNECTIONS", "many"), ("LOG_FORMAT", "xml"), ("ADMIN_TOKEN", " "), ("TLS_KEY", "a")];
    let variables = variables.map(|(name, value)| (name, OsStr::new(value)));
    let (status, stderr) = refused_start(&variables).await;
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), variables.len(), "{stderr}");
    for (name, _) in variables {
        assert!(stderr.lines().any(|line| line.starts_with(&format!("gateway: {name}: "))), "{name}: {stderr}");
    }
}

#[tokio::test]
async fn sizes_and_times_take_units() {
    let gateway = Gateway::start(&[
        ("MAX_BODY_BYTES", "1KiB"),
        ("MAX_CONNECTIONS", "100"),
        ("HEADER_TIMEOUT_SECONDS", "1m"),
        ("BODY_TIMEOUT_SECONDS", "500ms"),
        ("DELIVERY_TIMEOUT_SECONDS", "90s"),
        ("SHUTDOWN_GRACE_SECONDS", "2 m"),
        ("SPOOL_DIR", "spool"),
        ("SPOOL_MAX_BYTES", "64MiB"),
        ("DEAD_LETTER_DAYS", "36h"),
    ])
    .await;
    gateway.post("/webhook/open", format!("[{}]", " ".repeat(1022))).await.assert_accepted();
    gateway.post("/webhook/open", format!("[{}]", " ".repeat(1023))).await.problem(413);
    let mut slow = gateway.connect().await;
    slow.send("POST /webhook/open HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{").await;
    slow.answer().await.unwrap().problem(408);
}

#[tokio::test]
async fn an_unusable_token_is_refused_with_a_hint_and_not_quoted() {
    for (value, hint) in [
        ("Bearer s3cret", "leave out that word"),
        ("bearer\ts3cret", "leave out that word"),
        ("Bearer", "leave out that word"),
        ("s3cret one", "within the token"),
        ("s3cret\none", "within the token"),
        ("s3\u{7}cret", "within the token"),
        ("Authorization: s3cret", "within the token"),
        ("\"s3cret\"", "quotes"),
        ("'s3cret'", "quotes"),
        ("${s3cret}", "placeholder"),
        ("{{s3cret}}", "placeholder"),
        ("{$s3cret}", "placeholder"),
        ("$S3CRET", "placeholder"),
    ] {
        let (status, stderr) = refused_start(&[("ADMIN_TOKEN", OsStr::new(value))]).await;
        assert_eq!(status.code(), Some(1), "{value:?}: {stderr}");
        assert!(stderr.starts_with("gateway: ADMIN_TOKEN: ") && stderr.contains(hint), "{value:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{value:?}: {stderr}");
        assert!(!stderr.to_lowercase().contains("s3cret"), "{value:?}: {stderr}");
    }
}

#[tokio::test]
async fn a_line_break_at_the_end_of_a_value_is_not_part_of_it() {
    for end in ["\n", "\r\n", " \n"] {
        let token = format!("adm1n-bearer$2y$10{end}");
        let gateway = Gateway::start(&[("ADMIN_TOKEN", &token), ("MAX_BODY_BYTES", "1KiB\n")]).await;
        let head = ["GET /admin/config-status HTTP/1.1", "Authorization: Bearer adm1n-bearer$2y$10"];
        assert_eq!(gateway.request(&head, "").await.status, 200, "{end:?}");
    }
}

#[tokio::test]
async fn a_misspelt_variable_causes_a_warning_with_the_nearest_name() {
    let gateway = Gateway::start(&[
        ("MAX_BODY_BYTE", "1"),
        ("ETCD_PREFX", "/x/"),
        ("SPOOL_DIRS", "spool"),
        ("TLS_CERT_FILE", "cert.pem"),
        ("spool_max_bytes", "1"),
        ("SHUTDOWN_SOMETHING_ELSE", "secret-value"),
    ])
    .await;
    gateway.assert_serves().await;
    for (name, nearest) in [
        ("MAX_BODY_BYTE", "did you mean MAX_BODY_BYTES?"),
        ("ETCD_PREFX", "did you mean ETCD_PREFIX?"),
        ("SPOOL_DIRS", "did you mean SPOOL_DIR?"),
        ("TLS_CERT_FILE", "did you mean TLS_CERT?"),
        ("spool_max_bytes", "did you mean SPOOL_MAX_BYTES?"),
        ("SHUTDOWN_SOMETHING_ELSE", "--help"),
    ] {
        let err = gateway.err();
        let lines: Vec<_> = err.lines().filter(|line| line.contains(&format!(" {name}: "))).collect();
        assert!(lines.len() == 1 && lines[0].contains("WARN") && lines[0].contains(nearest), "{name}: {err}");
    }
    assert!(!gateway.err().contains("secret-value"), "{}", gateway.err());
}

#[tokio::test]
async fn variables_that_kubernetes_sets_for_services_cause_no_warning() {
    let mut variables = Vec::new();
    // `etcd` is tried with the file backend here; the effect of ETCD_PORT is tested elsewhere.
    for service in ["ETCD", "SPOOL", "MAX", "TLS", "HEADER", "SAVE_TO_DISK", "KUBERNETES", "MAX_BODY_BYTES"] {
        variables.push((format!("{service}_PORT"), "tcp://10.96.0.10:2379"));
        variables.push((format!("{service}_SERVICE_HOST"), "10.96.0.10"));
        variables.push((format!("{service}_SERVICE_PORT"), "2379"));
        variables.push((format!("{service}_SERVICE_PORT_CLIENT"), "2379"));
        variables.push((format!("{service}_PORT_2379_TCP"), "tcp://10.96.0.10:2379"));
        variables.push((format!("{service}_PORT_2379_TCP_PROTO"), "tcp"));
        variables.push((format!("{service}_PORT_2379_TCP_PORT"), "2379"));
        variables.push((format!("{service}_PORT_2379_TCP_ADDR"), "10.96.0.10"));
    }
    let variables: Vec<_> = variables.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let gateway = Gateway::start(&variables).await;
    gateway.assert_serves().await;
    assert!(!gateway.err().contains("WARN"), "{}", gateway.err());
}

#[tokio::test]
async fn a_port_that_kubernetes_sets_counts_as_not_set() {
    // An unassigned address, so that the start ends where the port is named.
    let variables = [("PORT", OsStr::new("tcp://10.96.0.10:80")), ("HOST", OsStr::new("192.0.2.1"))];
    let (_, stderr) = refused_start(&variables).await;
    assert!(stderr.contains("PORT: `tcp://10.96.0.10:80` is set by Kubernetes"), "{stderr}");
    assert!(stderr.contains("cannot listen on 192.0.2.1:8000"), "{stderr}");
}

#[tokio::test]
async fn an_unwritable_directory_causes_a_warning_at_the_start() {
    for root in ["/proc/nothing", "webhooks.json", "webhooks.json/below"] {
        let gateway = Gateway::start(&[("SAVE_TO_DISK_ROOT", root)]).await;
        eventually("a warning", async || {
            let err = gateway.err();
            err.lines().any(|line| line.contains("WARN") && line.contains("SAVE_TO_DISK_ROOT") && line.contains(root))
        })
        .await;
        gateway.assert_serves().await;
    }
    let variables =
        [("CONFIG_BACKEND", "etcd"), ("ETCD_ENDPOINTS", "http://127.0.0.1:9"), ("CONFIG_CACHE_DIR", "/proc/nothing")];
    let gateway = Gateway::start_in(tempfile::tempdir().unwrap(), &variables).await;
    eventually("a warning", async || gateway.err().contains("CONFIG_CACHE_DIR: the directory cannot be written")).await;
}

#[tokio::test]
async fn a_directory_that_can_be_written_is_left_as_it_was() {
    let gateway = Gateway::start(&[("SAVE_TO_DISK_ROOT", "data/below")]).await;
    gateway.post_with_credential("/webhook/save", "{}").await.assert_accepted();
    assert_eq!(std::fs::read_dir(gateway.path("data/below")).unwrap().count(), 1);
    // The configuration and the saved events.
    let names = || std::fs::read_dir(gateway.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    eventually("only these to be there", async || names().count() == 2).await;
    assert!(!gateway.err().contains("WARN"), "{}", gateway.err());
}
