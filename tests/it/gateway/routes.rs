//! The routes and their answers.

use serde_json::json;

use crate::support::process::{AUTHORIZATION, Gateway};
use crate::support::within;

#[tokio::test]
async fn webhooks_are_received_with_and_without_a_namespace() {
    let gateway = Gateway::start(&[]).await;
    let answer = gateway.post("/webhook/open", r#"{"hello": "world"}"#).await;
    answer.assert_accepted();
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(uuid::Uuid::parse_str(answer.header("x-event-id")).unwrap().get_version_num(), 7);
    gateway.post("/webhook/default/open", "{}").await.assert_accepted();
    gateway.post("/webhook/staging/open", "{}").await.assert_accepted();
    assert_eq!(gateway.post("/webhook/staging/guarded", "{}").await.problem(404), "Webhook ID not found");
    gateway.post_with_credential("/webhook/guarded", "{}").await.assert_accepted();
}

#[tokio::test]
async fn the_namespace_of_a_short_path_is_configured() {
    let gateway = Gateway::start(&[("ETCD_NAMESPACE", "staging")]).await;
    gateway.post("/webhook/open", "{}").await.assert_accepted();
    gateway.post("/webhook/guarded", "{}").await.problem(404);
    gateway.post_with_credential("/webhook/default/guarded", "{}").await.assert_accepted();
}

#[tokio::test]
async fn bad_input_gets_the_answer_in_the_table() {
    let gateway = Gateway::start(&[]).await;
    for (path, status) in [
        ("/webhook", 404),
        ("/webhook/", 404),
        ("/webhook/a/b/c", 404),
        ("/webhook/open/", 404),
        ("/webhook/nothing", 404),
        ("/webhook/%6Fpen", 400),
        ("/webhook/..", 400),
        ("/webhook/staging/op%2Fen", 400),
        ("/webhook/health", 400),
        ("/webhook/guarded", 401),
    ] {
        gateway.post(path, "{}").await.problem(status);
    }
    for body in ["", "{", "{} x", "a=b"] {
        gateway.post_with_credential("/webhook/guarded", body).await.problem(400);
    }
    let encoded = ["POST /webhook/open HTTP/1.1", "Content-Encoding: gzip"];
    gateway.request(&encoded, "\u{1f}").await.problem(415);
    for method in ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let answer = gateway.request(&[&format!("{method} /webhook/open HTTP/1.1")], "").await;
        assert_eq!(answer.problem(405), "Method Not Allowed");
        assert_eq!(answer.header("allow"), "POST");
    }
    let answer = gateway.post("/webhook/guarded", "{}").await;
    assert_eq!(answer.header("www-authenticate"), r#"Bearer realm="webhook""#);
}

/// A webhook has exactly one path, because a proxy before the gateway may decide by path.
#[tokio::test]
async fn a_doubled_slash_is_another_path() {
    let gateway = Gateway::start(&[]).await;
    for path in ["/webhook//open", "//webhook/open", "/webhook/default//open", "/webhook///open"] {
        assert_eq!(gateway.post(path, "{}").await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn the_root_health_and_unknown_paths_answer() {
    let gateway = Gateway::start(&[]).await;
    gateway.get("/").await.assert_accepted();
    let health = gateway.get("/health").await;
    assert_eq!(health.status, 200);
    assert_eq!(
        health.json(),
        json!({"status": "healthy", "components": {"file": "healthy"}, "staleness_seconds": null})
    );
    for path in ["/nothing", "/webhooks/open", "/docs", "/admin"] {
        assert_eq!(gateway.get(path).await.problem(404), "Not Found");
    }
}

#[tokio::test]
async fn without_a_configuration_it_is_healthy_and_not_ready() {
    let gateway = Gateway::start_in(tempfile::tempdir().unwrap(), &[]).await;
    let health = gateway.get("/health").await;
    assert_eq!((health.status.as_u16(), &health.json()["status"]), (200, &json!("starting")));
    gateway.get("/ready").await.problem(503);
    let answer = gateway.post("/webhook/open", "{}").await;
    assert_eq!(answer.problem(503), "No configuration has been loaded yet");
    assert_eq!(answer.header("retry-after"), "1");

    std::fs::write(gateway.path("webhooks.json"), r#"{"open": {"module": "discard"}}"#).unwrap();
    assert_eq!(gateway.get("/ready?min_revision=1").await.json(), json!({"status": "ready", "revision": 1}));
    gateway.assert_serves().await;
}

#[tokio::test]
async fn ready_waits_for_a_revision() {
    let gateway = Gateway::start(&[]).await;
    assert_eq!(gateway.get("/ready").await.json(), json!({"status": "ready", "revision": 1}));
    for wrong in ["abc", "-1", "", "1.5", "99999999999999999999"] {
        gateway.get(&format!("/ready?min_revision={wrong}")).await.problem(400);
    }
    let mut waiting = gateway.connect().await;
    waiting.send("GET /ready?min_revision=2 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    std::fs::write(gateway.path("webhooks.json"), r#"{"new": {"module": "discard"}}"#).unwrap();
    assert_eq!(waiting.answer().await.unwrap().json()["revision"], 2);
    gateway.post("/webhook/new", "{}").await.assert_accepted();
    gateway.post("/webhook/open", "{}").await.problem(404);
}

#[tokio::test]
async fn the_admins_page_is_closed_while_no_token_is_set() {
    let gateway = Gateway::start(&[]).await;
    for head in [&["GET /admin/config-status HTTP/1.1"][..], &["GET /admin/config-status HTTP/1.1", AUTHORIZATION]] {
        let expected = "none of ADMIN_TOKEN, ADMIN_READ_TOKEN and ADMIN_TOKENS_FILE is set";
        assert_eq!(gateway.request(head, "").await.problem(403), expected);
    }
}

#[tokio::test]
async fn the_admins_page_shows_what_is_refused_and_no_secret() {
    let gateway = Gateway::start(&[("ADMIN_TOKEN", "adm1n-token")]).await;
    let page =
        async |authorization: &str| gateway.request(&["GET /admin/config-status HTTP/1.1", authorization], "").await;
    for wrong in ["X-A: b", "Authorization: Bearer x", AUTHORIZATION, "Authorization: adm1n-token"] {
        assert!(page(wrong).await.problem(401).contains("Unauthorized"));
    }
    let mut webhooks = crate::support::process::webhooks();
    webhooks["namespaces"]["default"]["bad"] = json!({"module": "discard", "autorization": "Bearer s3cret-two"});
    // A webhook cannot use the gateway's own secrets.
    webhooks["namespaces"]["default"]["thief"] = json!({"module": "discard", "authorization": "Bearer {$ADMIN_TOKEN}"});
    std::fs::write(gateway.path("webhooks.json"), webhooks.to_string()).unwrap();
    assert_eq!(gateway.get("/ready?min_revision=2").await.status, 200);

    let answer = page("Authorization: bearer adm1n-token").await;
    assert_eq!(answer.status, 200);
    let status = answer.json();
    assert_eq!(status["source"], "file");
    assert_eq!(status["state"], "healthy");
    assert_eq!(status["revision"], 2);
    assert_eq!((&status["webhooks"], &status["namespaces"]), (&json!(6), &json!(2)));
    assert_eq!((&status["fenced_webhooks"], &status["open_webhooks"]), (&json!(2), &json!(4)));
    let refused = status["refused_keys"].as_array().unwrap();
    assert_eq!(refused.len(), 2);
    assert_eq!(refused[0]["key"], "default/webhooks/bad");
    assert_eq!(refused[0]["reason"], "unknown key `autorization`, did you mean `authorization`?");
    assert_eq!(refused[0]["serving_last_good"], false);
    assert_eq!(refused[1]["key"], "default/webhooks/thief");
    for secret in ["s3cret", "adm1n"] {
        assert!(!answer.text().contains(secret), "{}", answer.text());
        assert!(!gateway.err().contains(secret), "{}", gateway.err());
    }
}

#[tokio::test]
async fn metrics_count_outcomes_and_nothing_a_stranger_sent() {
    let gateway = Gateway::start(&[]).await;
    for n in 0..5 {
        gateway.post(&format!("/webhook/stranger{n}"), "{}").await.problem(404);
        gateway.post("/webhook/open", "{}").await.assert_accepted();
    }
    gateway.post("/webhook/guarded", "{}").await.problem(401);
    let answer = gateway.get("/metrics").await;
    assert_eq!(answer.status, 200);
    assert!(answer.header("content-type").starts_with("text/plain; version=0.0.4"));
    let text = answer.text();
    for line in [
        r#"tower_webhook_requests_total{outcome="delivered"} 5"#,
        r#"tower_webhook_requests_total{outcome="unknown_webhook"} 5"#,
        r#"tower_webhook_requests_total{outcome="unauthenticated"} 1"#,
        r#"tower_webhook_auth_refusals_total{guard="authorization",reason="missing"} 1"#,
        r#"tower_webhook_request_seconds_count{outcome="delivered"} 5"#,
        r#"tower_webhook_request_seconds_bucket{outcome="delivered",le="+Inf"} 5"#,
        "tower_webhook_config_revision 1",
        "tower_webhook_config_webhooks 6",
        "tower_webhook_config_refused_keys 0",
        "tower_webhook_source_live 1",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} is missing in\n{text}");
    }
    assert!(!text.contains("stranger") && !text.contains("guarded"));
}

#[tokio::test]
async fn the_health_check_asks_the_gateway() {
    let gateway = Gateway::start(&[]).await;
    let check = async |port: u16| {
        let directory = tempfile::tempdir().unwrap();
        let mut command = crate::support::process::command(directory.path());
        command.arg("healthcheck").env("PORT", port.to_string());
        within("the health check", command.spawn().unwrap().wait()).await.unwrap().success()
    };
    assert!(check(gateway.address.port()).await);
    assert!(!check(crate::support::process::free_address().port()).await);
}
