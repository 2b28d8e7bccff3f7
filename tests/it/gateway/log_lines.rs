//! The log lines for operators: refused requests, failed deliveries, and changes of the configuration.

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::process::{Gateway, webhooks};

/// The fields of the log lines with this message.
fn lines(gateway: &Gateway, message: &str) -> Vec<Value> {
    let text = gateway.err();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["fields"].take());
    lines.filter(|fields| fields["message"] == message).collect()
}

async fn refused(gateway: &Gateway, count: usize) -> Vec<Value> {
    eventually("the refusals to be logged", async || lines(gateway, "request refused").len() >= count).await;
    lines(gateway, "request refused")
}

#[tokio::test]
async fn a_refused_request_leaves_a_line_with_its_webhook_kind_reason_and_peer() {
    let gateway = Gateway::start(&[("LOG_FORMAT", "json"), ("MAX_BODY_BYTES", "1000")]).await;
    gateway.request(&["POST /webhook/guarded HTTP/1.1", "Authorization: Bearer wr0ng"], "{}").await.problem(401);
    gateway.post("/webhook/staging/open", "p4yload").await.problem(400);
    gateway.post("/webhook/open", "p4yload".repeat(1000)).await.problem(413);
    gateway.post("/webhook/nothing?token=s3cret", "{}").await.problem(404);
    gateway.get("/webhook/open").await;
    gateway.post("/webhook/a%1b[31m/b/c", "{}").await;
    gateway.assert_serves().await;
    let lines = refused(&gateway, 6).await;
    let of = |nth: usize, field: &str| lines[nth][field].as_str().unwrap_or_default();
    let told: Vec<_> = (0..lines.len()).map(|nth| (of(nth, "webhook"), of(nth, "kind"))).collect();
    assert_eq!(
        told,
        [
            ("default/guarded", "unauthenticated"),
            ("staging/open", "malformed_payload"),
            ("default/open", "body_too_large"),
            ("default/nothing", "unknown_webhook"),
            ("default/open", "method_not_allowed"),
            ("/webhook/a%1b[31m/b/c", "no_route"),
        ]
    );
    for (nth, line) in lines.iter().enumerate() {
        assert!(!of(nth, "reason").is_empty() && of(nth, "peer").starts_with("127.0.0.1:"), "{line}");
        assert!(line.get("left_out").is_none(), "{line}");
    }
    assert_eq!((of(0, "guard"), of(0, "reason")), ("authorization", "invalid"));
    for secret in ["wr0ng", "s3cret", "p4yload"] {
        assert!(!gateway.err().contains(secret), "{}", gateway.err());
    }
}

#[tokio::test]
async fn a_flood_of_refusals_leaves_few_lines_and_hides_those_of_no_other_webhook() {
    let gateway = Gateway::start(&[("LOG_FORMAT", "json")]).await;
    for nth in 0..150 {
        gateway.post("/webhook/guarded", "{}").await.problem(401);
        // A different name each time.
        gateway.post(&format!("/webhook/scan{nth}"), "{}").await.problem(404);
    }
    gateway.post_with_credential("/webhook/guarded", "nothing").await.problem(400);
    gateway.post("/webhook/save", "{}").await.problem(401);
    let of_save = |line: &Value| line["webhook"] == "default/save";
    eventually("the last one to be logged", async || lines(&gateway, "request refused").iter().any(of_save)).await;
    let lines = lines(&gateway, "request refused");
    let count = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).count();
    // The number of further lines depends on how long it took.
    assert!((10..40).contains(&count("unauthenticated")), "{}", count("unauthenticated"));
    assert!((10..40).contains(&count("unknown_webhook")), "{}", count("unknown_webhook"));
    assert_eq!(count("malformed_payload"), 1);
    // The next line reports how many were left out.
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    gateway.post("/webhook/guarded", "{}").await.problem(401);
    let told = async || {
        let lines = self::lines(&gateway, "request refused");
        let guarded = lines.iter().filter(|l| l["webhook"] == "default/guarded" && l["kind"] == "unauthenticated");
        guarded.map(|line| 1 + line["left_out"].as_u64().unwrap_or_default()).sum::<u64>() == 151
    };
    eventually("the count of all of them", told).await;
}

fn replace(gateway: &Gateway, webhooks: &Value) {
    std::fs::write(gateway.path("new.json"), webhooks.to_string()).unwrap();
    std::fs::rename(gateway.path("new.json"), gateway.path("webhooks.json")).unwrap();
}

#[tokio::test]
async fn each_change_of_the_configuration_leaves_one_line() {
    let gateway = Gateway::start(&[("LOG_FORMAT", "json")]).await;
    let mut webhooks = webhooks();
    let default = &mut webhooks["namespaces"]["default"];
    default["fresh"] = json!({"module": "discard"});
    default["wrong"] = json!({"module": "discard", "autorization": "x"});
    default["open"] = json!({"module": "log"});
    default["guarded"] = json!({"module": "nothing"});
    default.as_object_mut().unwrap().remove("pretty");
    replace(&gateway, &webhooks);
    let told = async |message: &str, count: usize| {
        eventually("the lines", async || lines(&gateway, message).len() >= count).await;
        let mut told: Vec<_> = lines(&gateway, message).into_iter().map(|line| line["key"].clone()).collect();
        told.sort_unstable_by_key(Value::to_string);
        told
    };
    let changed = told("configuration changed", 3).await;
    assert_eq!(changed, ["default/webhooks/fresh", "default/webhooks/open", "default/webhooks/pretty"]);
    assert_eq!(told("configuration refused", 2).await, ["default/webhooks/guarded", "default/webhooks/wrong"]);
    for line in lines(&gateway, "configuration changed") {
        let change = [("fresh", "added"), ("open", "changed"), ("pretty", "removed")];
        let found = change.iter().find(|(id, _)| line["key"].as_str().unwrap().ends_with(id)).unwrap();
        assert_eq!((&line["change"], &line["revision"]), (&json!(found.1), &json!(2)), "{line}");
    }

    // The same bytes cause no line, and many changes cause one.
    let many: serde_json::Map<_, _> =
        (0..3000).map(|nth| (format!("many{nth}"), json!({"module": "discard"}))).collect();
    webhooks["namespaces"]["many"] = many.into();
    replace(&gateway, &webhooks);
    assert_eq!(told("configuration changed", 4).await.len(), 4);
    let line = lines(&gateway, "configuration changed").pop().unwrap();
    let counts = ["added", "changed", "removed"].map(|count| line[count].as_u64().unwrap());
    assert_eq!((counts, line["key"].is_null()), ([3000, 0, 0], true), "{line}");
    assert_eq!(told("configuration refused", 2).await.len(), 2);
    assert_eq!(lines(&gateway, "configuration loaded").len(), 1);
}

#[tokio::test]
async fn a_list_in_which_everything_is_refused_leaves_few_lines() {
    let directory = tempfile::tempdir().unwrap();
    let wrong: serde_json::Map<_, _> = (0..3000).map(|nth| (format!("w{nth}"), json!({"module": "nothing"}))).collect();
    std::fs::write(directory.path().join("webhooks.json"), Value::from(wrong).to_string()).unwrap();
    let gateway = Gateway::start_in(directory, &[("LOG_FORMAT", "json")]).await;
    eventually("the list to be loaded", async || lines(&gateway, "configuration loaded").len() == 1).await;
    assert_eq!(lines(&gateway, "configuration refused").len(), 20);
    let more = &lines(&gateway, "configuration refused: too many keys to name")[0];
    assert_eq!((&more["refused"], &more["left_out"]), (&json!(3000), &json!(2980)));
}

/// The number of events that these lines stand for: the lines, and those that were left out before them.
fn counted_by(lines: &[Value]) -> u64 {
    lines.iter().map(|line| 1 + line["left_out"].as_u64().unwrap_or_default()).sum()
}

#[tokio::test]
async fn a_failed_delivery_leaves_one_line_and_a_flood_of_them_few() {
    // A file in place of a directory: unlike permissions, it also stops root.
    let gateway = Gateway::start(&[("LOG_FORMAT", "json"), ("SAVE_TO_DISK_ROOT", "webhooks.json/data")]).await;
    let mut webhooks = webhooks();
    let default = &mut webhooks["namespaces"]["default"];
    let again = json!({"enabled": true, "max_attempts": 2, "initial_delay": 0});
    default["again"] = json!({"module": "save_to_disk", "retry": again});
    default["chain"] = json!({"chain": [{"module": "discard"}, {"module": "save_to_disk"}]});
    replace(&gateway, &webhooks);
    eventually("the change", async || lines(&gateway, "configuration changed").len() == 2).await;

    let answer = gateway.post_with_credential("/webhook/save", "{}").await;
    answer.problem(503);
    let told = async || lines(&gateway, "not delivered").len() == 1;
    eventually("the failure to be logged", told).await;
    let line = &lines(&gateway, "not delivered")[0];
    let fields = ["event_id", "webhook", "module", "kind"].map(|field| line[field].as_str().unwrap_or_default());
    assert_eq!(fields, [answer.header("x-event-id"), "default/save", "save_to_disk", "io"], "{line}");
    assert!(line["error"].as_str().unwrap().starts_with("cannot write the file"), "{line}");

    for _ in 0..100 {
        gateway.post("/webhook/again", "{}").await.problem(503);
        gateway.post("/webhook/chain", "{}").await.problem(503);
    }
    tokio::time::sleep(std::time::Duration::from_secs(6)).await;
    gateway.post("/webhook/again", "{}").await.problem(503);
    gateway.post("/webhook/chain", "{}").await.problem(503);
    for (message, webhook) in [
        ("not delivered", "default/again"),
        ("trying again", "default/again"),
        ("not delivered", "default/chain"),
        ("an item failed", "default/chain"),
    ] {
        let of = || {
            let mut lines = lines(&gateway, message);
            lines.retain(|line| line["webhook"] == webhook);
            lines
        };
        eventually("the count of all of them", async || counted_by(&of()) == 101).await;
        assert!(of().len() < 40, "{message} {webhook}: {}", of().len());
    }
    assert_eq!(lines(&gateway, "request refused"), Vec::<Value>::new(), "a failed delivery has its line");
}

#[tokio::test]
async fn deleting_a_webhook_whose_events_wait_leaves_a_line_and_a_count() {
    const EVENTS: u64 = 400;
    // Accepts connections and never answers.
    let target = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", target.local_addr().unwrap());
    let mut all = webhooks();
    all["namespaces"]["default"]["waits"] =
        json!({"module": "http_webhook", "ack": "accepted", "module-config": {"url": url}});
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("webhooks.json"), all.to_string()).unwrap();
    let variables = [
        ("LOG_FORMAT", "json"),
        ("SPOOL_DIR", "spool"),
        ("EGRESS_ALLOW", "127.0.0.1"),
        ("DELIVERY_TIMEOUT_SECONDS", "3"),
        ("ADMIN_TOKEN", "adm1n-token"),
    ];
    let gateway = Gateway::start_in(directory, &variables).await;
    eventually("the gateway to be ready", || async { gateway.get("/ready").await.status == 200 }).await;
    let posts = (0..EVENTS).map(|_| gateway.post("/webhook/waits", "{}"));
    for answer in futures_util::future::join_all(posts).await {
        assert_eq!(answer.status, 202);
    }
    replace(&gateway, &webhooks());
    let letters = async || {
        let answer =
            gateway.request(&["GET /admin/dead-letters?limit=1 HTTP/1.1", "Authorization: Bearer adm1n-token"], "");
        answer.await.json()["total"].as_u64().unwrap()
    };
    eventually("all of them to be dead letters", async || letters().await == EVENTS).await;
    // Except those that were being delivered when the webhook was deleted.
    let gone = || {
        let mut all = lines(
            &gateway,
            "not delivered: the webhook is not configured any more, and its events are dead letters now",
        );
        all.extend(lines(&gateway, "more events of a webhook that is not configured any more are dead letters now"));
        all
    };
    let dead = || lines(&gateway, "not delivered: it is a dead letter now");
    let sum = || gone().iter().map(|line| line["events"].as_u64().unwrap()).sum::<u64>() + counted_by(&dead());
    let rest = || {
        let rest = lines(&gateway, "lines about deliveries were left out");
        rest.iter().map(|line| line["left_out"].as_u64().unwrap()).sum::<u64>()
    };
    eventually("the count of all of them", async || sum() + rest() == EVENTS).await;
    assert!((1..=3).contains(&gone().len()), "{:?}", gone());
    assert!(dead().len() < 20, "{}", dead().len());
    assert!(gone().iter().all(|line| line["webhook"] == "default/waits"), "{:?}", gone());
}

#[tokio::test]
async fn a_request_that_breaks_a_rule_of_http_leaves_a_line_and_a_flood_of_them_few() {
    let gateway = Gateway::start(&[("LOG_FORMAT", "json")]).await;
    for _ in 0..50 {
        for fields in ["", "Host: s3cret\r\nHost: s3cret\r\n"] {
            let mut raw = gateway.connect().await;
            raw.send(format!("POST /webhook/open HTTP/1.1\r\nContent-Length: 2\r\n{fields}\r\n{{}}")).await;
            raw.answer().await.unwrap().problem(400);
        }
    }
    let lines = refused(&gateway, 20).await;
    assert!(lines.len() < 40, "{}", lines.len());
    for line in &lines {
        assert_eq!(line["kind"], "invalid_http", "{line}");
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    }
    let reasons: std::collections::BTreeSet<_> = lines.iter().map(|line| line["reason"].as_str().unwrap()).collect();
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(!gateway.err().contains("s3cret"), "{}", gateway.err());
}

#[tokio::test]
async fn an_admin_request_without_the_token_leaves_a_warning_and_a_flood_of_them_few() {
    const MESSAGE: &str = "an admin request was refused: its bearer token is missing or wrong";
    let gateway = Gateway::start(&[("LOG_FORMAT", "json"), ("ADMIN_TOKEN", "adm1n-token")]).await;
    let status = |token: &str| {
        let field = format!("Authorization: Bearer {token}");
        let gateway = &gateway;
        async move { gateway.request(&["GET /admin/config-status HTTP/1.1", &field], "").await }
    };
    status("adm1n-token").await.json();
    for _ in 0..100 {
        status("gu3ss").await.problem(401);
    }
    eventually("the warnings", async || lines(&gateway, MESSAGE).len() >= 10).await;
    let lines = lines(&gateway, MESSAGE);
    assert!(lines.len() < 40, "{}", lines.len());
    assert!(lines.iter().all(|line| line["peer"].as_str().unwrap().starts_with("127.0.0.1:")), "{lines:?}");
    assert!(gateway.err().lines().filter(|line| line.contains(MESSAGE)).all(|line| line.contains(r#""level":"WARN""#)));
    assert!(!gateway.err().contains("gu3ss") && !gateway.err().contains("/admin"), "{}", gateway.err());
}

#[tokio::test]
async fn each_request_has_a_line_in_the_access_log() {
    let gateway = Gateway::start(&[("LOG_ACCESS", "json"), ("RUST_LOG", "off,gateway=info")]).await;
    let answer = gateway.post("/webhook/open?token=s3cret", "{}").await;
    answer.assert_accepted();
    gateway.get("/nothing").await;
    let lines = || -> Vec<serde_json::Value> {
        let log = gateway.err();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.filter_map(|line| line.get("access").cloned()).filter(|line| line["path"] != "/ready").collect()
    };
    eventually("a line for each request", async || lines().len() >= 2).await;
    let lines = lines();
    let first = &lines[0];
    assert_eq!(
        (&first["method"], &first["path"], &first["status"]),
        (&json!("POST"), &json!("/webhook/open"), &json!(200))
    );
    assert_eq!((&first["webhook"], &first["event_id"]), (&json!("default/open"), &json!(answer.header("x-event-id"))));
    assert_eq!(first["bytes"], json!(answer.body.len()));
    assert_eq!(
        (&lines[1]["path"], &lines[1]["status"], &lines[1]["webhook"]),
        (&json!("/nothing"), &json!(404), &json!(null))
    );
    assert!(!gateway.err().contains("s3cret"), "{}", gateway.err());

    let gateway = Gateway::start(&[("LOG_ACCESS", "common")]).await;
    gateway.post("/webhook/open?token=s3cret", "{}").await.assert_accepted();
    let is_common = |line: &str| {
        line.starts_with("127.0.0.1 - - [") && line.contains("+0000] \"POST /webhook/open HTTP/1.1\" 200 ")
    };
    eventually("the line", async || gateway.err().lines().any(is_common)).await;
    assert!(!gateway.err().contains("s3cret"), "{}", gateway.err());
}
