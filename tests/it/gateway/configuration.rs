//! What the gateway reports about configuration values: warnings, refusals and ignored keys.

use std::ffi::OsStr;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::eventually;
use crate::support::process::Gateway;

/// The file `webhooks.json` in a directory of its own.
fn directory(webhooks: &Value) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("webhooks.json"), webhooks.to_string()).unwrap();
    directory
}

/// A gateway that has loaded `webhooks`.
async fn serving(webhooks: &Value, variables: &[(&str, &str)]) -> Gateway {
    let variables = [&[("ADMIN_TOKEN", "adm1n-token")], variables].concat();
    let gateway = Gateway::start_in(directory(webhooks), &variables).await;
    eventually("the gateway to be ready", || async { gateway.get("/ready").await.status == 200 }).await;
    gateway
}

async fn status(gateway: &Gateway) -> Value {
    gateway.request(&["GET /admin/config-status HTTP/1.1", "Authorization: Bearer adm1n-token"], "").await.json()
}

/// Whether the metrics have exactly this line.
async fn has_metric(gateway: &Gateway, line: &str) -> bool {
    gateway.get("/metrics").await.text().lines().any(|other| other == line)
}

#[tokio::test]
async fn a_number_moved_into_range_and_a_module_beside_a_chain_cause_warnings() {
    let webhooks = json!({
        "fine": {"module": "discard"},
        "often": {"module": "discard", "retry": {"enabled": true, "max_attempts": 99, "initial_delay": -1}},
        "both": {"module": "lag", "chain": ["discard"]},
        "wrong": {"module": "discard", "retry": {"enabled": true, "max_attempts": 1.5}},
    });
    let gateway = serving(&webhooks, &[]).await;
    let expected = json!([
        {"key": "default/webhooks/both", "reason": "module: has no effect together with `chain`; also, there is no module `lag`"},
        {"key": "default/webhooks/often", "reason": "retry.max_attempts: 99 is out of range, 20 is used"},
        {"key": "default/webhooks/often", "reason": "retry.initial_delay: -1 is out of range, 0 is used"},
    ]);
    let told = status(&gateway).await;
    assert_eq!(told["warnings"], expected);
    assert_eq!(told["refused_keys"][0]["key"], "default/webhooks/wrong");
    assert!(has_metric(&gateway, "tower_webhook_config_warned_keys 2").await);
    let lines = gateway.err();
    let warned: Vec<_> = lines.lines().filter(|line| line.contains("configuration accepted with a warning")).collect();
    assert_eq!(warned.len(), 3, "{lines}");
    assert!(
        warned.iter().any(|line| line.contains("default/webhooks/often") && line.contains("20 is used")),
        "{lines}"
    );
    for id in ["fine", "often", "both"] {
        gateway.post(&format!("/webhook/{id}"), "{}").await.assert_accepted();
    }

    let mended = json!({
        "fine": {"module": "discard"},
        "often": {"module": "discard", "retry": {"enabled": true, "max_attempts": 20}},
        "both": {"module": "lag", "chain": ["discard"], "data_type": 1},
    });
    std::fs::write(gateway.path("webhooks.json"), mended.to_string()).unwrap();
    assert_eq!(gateway.get("/ready?min_revision=2").await.status, 200);
    // The last good value is served, and its warnings stay.
    assert_eq!(status(&gateway).await["warnings"], json!([expected[0]]));
    assert!(has_metric(&gateway, "tower_webhook_config_warned_keys 1").await);

    std::fs::write(gateway.path("webhooks.json"), r#"{"fine": {"module": "discard"}}"#).unwrap();
    assert_eq!(gateway.get("/ready?min_revision=3").await.status, 200);
    assert_eq!(status(&gateway).await["warnings"], json!([]));
    assert!(has_metric(&gateway, "tower_webhook_config_warned_keys 0").await);
}

#[tokio::test]
async fn an_unfilled_placeholder_is_refused_as_a_secret() {
    let webhooks = json!({
        "shell": {"module": "discard", "authorization": "Bearer ${TOKEN}"},
        "bare": {"module": "discard", "authorization": "$TOKEN"},
        "template": {"module": "discard", "authorization": "Bearer {{TOKEN}}"},
        "indirect": {"module": "discard", "authorization": "Bearer {$INDIRECT}"},
        "header": {"module": "http_webhook", "module-config": {
            "url": "https://example.com/", "headers": {"Authorization": "Bearer ${TOKEN}"}
        }},
        "signing": {"module": "http_webhook", "module-config": {
            "url": "https://example.com/", "signing_secret": "$SECRET"
        }},
        "hash": {"module": "discard", "authorization": "Bearer $2y$10$N9qo8uLOickgx2ZMRZoMye"},
    });
    let gateway = serving(&webhooks, &[("INDIRECT", "${TOKEN}")]).await;
    let status = status(&gateway).await;
    let refused = status["refused_keys"].as_array().unwrap();
    assert_eq!(refused.len(), 6, "{refused:?}");
    assert!(refused.iter().all(|refused| refused["reason"].as_str().unwrap().contains("`{$TOKEN}`")), "{refused:?}");
    for (id, token) in [("shell", "Bearer ${TOKEN}"), ("bare", "$TOKEN"), ("indirect", "Bearer ${TOKEN}")] {
        let head = [&*format!("POST /webhook/{id} HTTP/1.1"), &*format!("Authorization: {token}")];
        gateway.request(&head, "{}").await.problem(503);
    }
    let head = ["POST /webhook/hash HTTP/1.1", "Authorization: Bearer $2y$10$N9qo8uLOickgx2ZMRZoMye"];
    gateway.request(&head, "{}").await.assert_accepted();
}

#[tokio::test]
async fn an_unfilled_placeholder_is_refused_as_a_secret_of_the_gateway() {
    for (variables, name) in [
        (&[("ADMIN_TOKEN", "${ADMIN_TOKEN}")][..], "ADMIN_TOKEN"),
        (&[("ADMIN_TOKEN", "$(ADMIN_TOKEN)")], "ADMIN_TOKEN"),
        (&[("CONFIG_BACKEND", "etcd"), ("ETCD_USERNAME", "a"), ("ETCD_PASSWORD", "{{password}}")], "ETCD_PASSWORD"),
    ] {
        let variables: Vec<_> = variables.iter().map(|&(name, value)| (name, OsStr::new(value))).collect();
        let (status, stderr) = crate::support::process::refused_start(&variables).await;
        assert_eq!(status.code(), Some(1), "{stderr}");
        assert!(
            stderr.contains(&format!("{name}: ")) && stderr.contains("is a placeholder that was not filled in"),
            "{stderr}"
        );
    }
}

#[tokio::test]
async fn invalid_names_in_a_file_are_counted_listed_and_logged_once() {
    let webhooks = json!({"namespaces": {
        "default": {"fine": {"module": "discard"}, "my hook": {"module": "discard"}, "a\n": {"module": "discard"}},
        "my team": {"one": {"module": "discard"}},
    }});
    let directory = directory(&webhooks);
    std::fs::write(
        directory.path().join("connections.json"),
        r#"{"my.db": {"type": "http", "url": "http://example.com/"}}"#,
    )
    .unwrap();
    let gateway = Gateway::start_in(directory, &[("ADMIN_TOKEN", "adm1n-token")]).await;
    eventually("the gateway to be ready", || async { gateway.get("/ready").await.status == 200 }).await;
    // The files are read again for as long as a change might not change their times.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut more = webhooks.clone();
    more["namespaces"]["default"]["another"] = json!({"module": "discard"});
    std::fs::write(gateway.path("webhooks.json"), more.to_string()).unwrap();
    assert_eq!(gateway.get("/ready?min_revision=2").await.status, 200);

    let told = status(&gateway).await;
    assert_eq!(told["ignored_keys"], 4);
    let listed = told["ignored"].as_array().unwrap();
    let hint = |key: &str| &listed.iter().find(|ignored| ignored["key"] == key).unwrap()["hint"];
    assert_eq!(hint("default/webhooks/my hook"), "default/webhooks/my-hook");
    assert_eq!(hint("default/webhooks/a\\n"), "default/webhooks/a");
    assert_eq!(hint("my team/webhooks/one"), "my-team/webhooks/one");
    assert_eq!(hint("global/connections/my.db"), "global/connections/my-db");
    let lines = gateway.err();
    assert_eq!(lines.matches("a key of the configuration is ignored").count(), 4, "{lines}");

    std::fs::write(gateway.path("webhooks.json"), r#"{"fine": {"module": "discard"}}"#).unwrap();
    assert_eq!(gateway.get("/ready?min_revision=3").await.status, 200);
    assert_eq!(status(&gateway).await["ignored_keys"], 1);
}

#[tokio::test]
async fn a_file_that_cannot_be_used_says_what_was_found() {
    let gateway = serving(&json!({"fine": {"module": "discard"}}), &[]).await;
    for (text, words) in [
        ("\u{feff}{}", "webhooks.json: expected JSON, found a byte order mark (UTF-8) before it"),
        (r#"{"a": {}, "a": {}}"#, "webhooks.json: duplicate key `a` at line 1 column "),
        (r#"["hunter2"]"#, "webhooks.json: expected an object, found another value at line 1 column "),
        (
            "{\n\"namespaces\": {\n\"a\": \"hunter2\"}}",
            "webhooks.json: expected an object, found another value at line 3 column 14",
        ),
        (r#"{"a": {}"#, "webhooks.json: expected JSON: EOF while parsing an object at line 1 column "),
        (
            r#"{"namespaces": {}, "a": {}}"#,
            "webhooks.json: expected only the key `namespaces`, found other keys beside it",
        ),
        ("", "webhooks.json: expected JSON, found nothing"),
    ] {
        std::fs::write(gateway.path("webhooks.json"), text).unwrap();
        eventually(words, async || {
            let told = status(&gateway).await;
            let reason = told["reason"].as_str().unwrap_or_default();
            assert!(!reason.contains("hunter2"), "{reason}");
            reason.contains(words)
        })
        .await;
        gateway.post("/webhook/fine", "{}").await.assert_accepted();
    }
}

#[tokio::test]
async fn the_line_of_a_failed_chain_names_the_item_that_failed() {
    // Accepts connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}/", silent.local_addr().unwrap());
    let sends = |url: &str| json!({"module": "http_webhook", "module-config": {"url": url, "timeout": 60}});
    let closed = format!("http://{}/", crate::support::process::free_address());
    let mut webhooks = json!({
        "fails": {"chain": ["discard", sends(&closed), "discard"]},
        "hangs": {"chain": ["discard", sends(&silent), "discard"]},
        "fails_and_hangs": {"chain": [sends(&closed), "discard", sends(&silent)]},
        "at_once": {"chain": ["discard", sends(&silent)], "chain-config": {"execution": "parallel"}},
    });
    for id in ["fails", "hangs"] {
        let mut accepted = webhooks[id].clone();
        accepted["ack"] = json!("accepted");
        accepted["retry"] = json!({"enabled": false});
        webhooks[format!("{id}_later")] = accepted;
    }
    let variables = [("EGRESS_ALLOW", "127.0.0.1"), ("DELIVERY_TIMEOUT_SECONDS", "1"), ("SPOOL_DIR", "spool")];
    let gateway = serving(&webhooks, &[&variables[..], &[("SAVE_TO_DISK_ROOT", "data")]].concat()).await;
    for (id, status, item) in [
        ("fails", 502, "chain.1 http_webhook: "),
        ("hangs", 504, "chain.1 http_webhook: no answer in time"),
        ("fails_and_hangs", 504, "chain.2 http_webhook: no answer in time"),
        ("at_once", 504, "chain.1 http_webhook: no answer in time"),
        ("fails_later", 202, "chain.1 http_webhook: "),
        ("hangs_later", 202, "chain.1 http_webhook: no answer in time"),
    ] {
        assert_eq!(gateway.post(&format!("/webhook/{id}"), "{}").await.status, status, "{id}");
        let is_line = |line: &str| line.contains("not delivered") && line.contains(&format!("webhook=default/{id} "));
        eventually("the operator to be told", async || gateway.err().lines().any(is_line)).await;
        let lines = gateway.err();
        let line = lines.lines().find(|line| is_line(line)).unwrap();
        assert!(line.contains(item) && line.contains("module=\"http_webhook\""), "{line}");
    }
}

#[tokio::test]
async fn a_value_that_is_too_large_is_refused_at_once_and_holds_up_nobody() {
    let gateway = serving(&json!({"fine": {"module": "discard"}}), &[]).await;
    // 20 items, each with a copy of the webhook's options, which are overlaid key by key.
    let options = |count: usize| (0..count).map(|n| (format!("f{n}"), json!(0))).collect::<serde_json::Map<_, _>>();
    let chain = |count: usize| {
        let item = json!({"module": "log", "module-config": options(count / 20)});
        json!({"chain": vec![item; 20], "module-config": options(count)})
    };
    let webhooks = json!({"fine": {"module": "discard"}, "huge": chain(60_000), "many": chain(9_000)});
    std::fs::write(gateway.path("webhooks.json"), webhooks.to_string()).unwrap();
    assert_eq!(gateway.get("/ready?min_revision=2").await.status, 200);
    gateway.post("/webhook/fine", "{}").await.assert_accepted();
    let told = status(&gateway).await;
    let reason = |at: usize| told["refused_keys"][at]["reason"].as_str().unwrap();
    assert!(reason(0).starts_with("expected at most 512 KiB, found "), "{told}");
    assert!(reason(1).starts_with("chain: expected at most 20000 keys and items in the `module-config` of"), "{told}");
}

#[tokio::test]
async fn options_that_would_fail_at_each_event_or_slow_it_down_are_refused() {
    let saves = |path: String| json!({"module": "save_to_disk", "module-config": {"path": path}});
    let names = |count: usize| (0..count).map(|n| format!("x-{n}")).collect::<Vec<_>>();
    let headers: serde_json::Map<_, _> = names(15_000).into_iter().map(|name| (name, json!("s3cret"))).collect();
    let sends = |option: &str, value: Value| {
        json!({"module": "http_webhook",
            "module-config": {"url": "http://example.com/", "forward_headers": true, option: value}})
    };
    let webhooks = json!({
        "a": saves("s3cret\0".to_owned()),
        "b": saves("d/".repeat(200_000)),
        "c": saves("s3cret".repeat(50)),
        "d": sends("headers", json!(headers)),
        "e": sends("headers", json!({"x-a": "s3cret".repeat(10_000)})),
        "f": sends("allowed_headers", json!(names(15_000))),
        "g": sends("allowed_hosts", json!(names(15_000))),
        "h": sends("url", json!(format!("http://example.com/{}", "s3cret".repeat(10_000)))),
        "i": {"module": "discard", "credential_cleanup": {"fields": names(15_000)}},
        "j": {"module": "discard", "dedup": {"pointer": format!("/{}", "s3cret".repeat(10_000))}},
        "k": {"module": "discard", "authorization": format!("Bearer {}", "s3cret".repeat(10_000))},
        "z": {"module": "discard"},
    });
    let gateway = serving(&webhooks, &[("SAVE_TO_DISK_ROOT", "data"), ("SPOOL_DIR", "spool")]).await;
    let told = status(&gateway).await;
    let refused = told["refused_keys"].as_array().unwrap();
    for (at, reason) in [
        "module-config: expected `path` without control characters, found one",
        "module-config: expected at most 4096 bytes in `path`, found 400000",
        "module-config: expected at most 255 bytes in each part of `path`, found 300",
        "module-config.headers: expected at most 100 names, found more",
        "module-config: expected at most 8192 bytes in the value of `x-a` in `headers`, found 60000",
        "module-config: expected at most 100 names in `allowed_headers`, found 15000",
        "module-config: expected at most 100 names in `allowed_hosts`, found 15000",
        "module-config: expected at most 8192 bytes in `url`, found 60019",
        "credential_cleanup: expected at most 100 names in `fields`, found 15000",
        "dedup: a pointer must have at most 1024 bytes",
        "authorization: expected a credential of at most 8192 bytes, found 60007",
    ]
    .iter()
    .enumerate()
    {
        assert_eq!(refused[at]["reason"], *reason);
    }
    assert_eq!(refused.len(), 11, "{told}");
}
