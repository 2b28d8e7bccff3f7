//! The guards of the gateway, and what it keeps to itself.

use serde_json::json;

use crate::support::eventually;
use crate::support::process::Gateway;

async fn gateway(webhooks: &serde_json::Value, variables: &[(&str, &str)]) -> Gateway {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("webhooks.json"), webhooks.to_string()).unwrap();
    let gateway = Gateway::start_in(directory, variables).await;
    eventually("the gateway to be ready", || async { gateway.get("/ready").await.status == 200 }).await;
    gateway
}

/// Of `hunter2`, made with argon2-cffi of Python.
const HASH: &str = "$argon2id$v=19$m=64,t=1,p=1$DjA2W7z6q1McXH6VNTyifw$GBAmlrc3lOCQhvsKvhlRzACM7SDDVv33vqcSD3o5Fj4";

#[tokio::test]
async fn each_guard_lets_in_and_refuses() {
    let webhooks = json!({
        "header": {"module": "discard", "header_auth": {"api_key": "{$HEADER_KEY}"}},
        "query": {"module": "discard", "query_auth": {"api_key": "qu3ry-key"}},
        "basic": {"module": "discard", "basic_auth": {"users": {"ci": HASH}}},
        "any": {"module": "discard", "any_of": [
            {"ip_allow": ["192.0.2.7"]},
            {"header_auth": {"api_key": "{$HEADER_KEY}"}},
            {"hmac": {"secret": "hmac_secret"}},
        ]},
        "hmac": {"module": "discard", "hmac": {"secret": "hmac_secret"}},
        "near": {"module": "discard", "ip_allow": ["127.0.0.0/8"]},
        "far": {"module": "discard", "ip_whitelist": ["192.0.2.7"]},
    });
    let gateway = gateway(&webhooks, &[("HEADER_KEY", "h3ader-key"), ("RUST_LOG", "trace")]).await;
    let post = async |path: &str, field: &str, body: &str| {
        let line = format!("POST /webhook/{path} HTTP/1.1");
        let head = [&*line, field];
        let head = if field.is_empty() { &head[..1] } else { &head };
        gateway.request(head, body).await
    };
    let code = "X-HMAC-Signature: sha256=55b556180c2df7ecfeaea8a9597275a64bf7c59655948011c001e19824d0e564";
    for (path, field, body) in [
        ("header", "X-API-Key: h3ader-key", "{}"),
        ("query?api_key=qu3ry-key", "", "{}"),
        ("hmac", code, r#"{"a":1}"#),
        ("near", "", "{}"),
        ("basic", "Authorization: Basic Y2k6aHVudGVyMg==", "{}"),
        ("any", "X-API-Key: h3ader-key", "{}"),
        ("any", code, r#"{"a":1}"#),
    ] {
        post(path, field, body).await.assert_accepted();
    }
    for (path, field, body, status) in [
        ("header", "", "{}", 401),
        ("header", "X-API-Key: wr0ng-key", "{}", 401),
        ("query?api_key=wr0ng-key", "", "{}", 401),
        ("query?api_key=qu3ry-key&api_key=wr0ng-key", "", "{}", 401),
        ("query?api_key=qu3ry-key", "", "not JSON", 400),
        ("nothing?api_key=qu3ry-key", "", "{}", 404),
        ("query/a/b?api_key=qu3ry-key", "", "{}", 404),
        ("hmac", code, "{}", 401),
        ("hmac", "X-HMAC-Signature: sha256=wr0ng-key", "{}", 401),
        ("basic", "", "{}", 401),
        ("basic", "Authorization: Basic Y2k6aHVudGVyMw==", "{}", 401),
        ("basic", "Authorization: Basic wr0ng-key", "{}", 401),
        ("any", "", "{}", 401),
        ("any", code, "{}", 401),
        ("far", "", "{}", 403),
        ("far", "X-Forwarded-For: 192.0.2.7", "{}", 403),
    ] {
        post(path, field, body).await.problem(status);
    }
    eventually("the refusals to be logged", async || gateway.err().matches("request refused").count() >= 10).await;
    // Whatever the level: neither what is configured nor what was sent.
    for secret in
        ["h3ader-key", "qu3ry-key", "hmac_secret", "wr0ng-key", "api_key=", "55b55618", "hunter", "aHVudGVy", "$argon2"]
    {
        assert!(!gateway.err().contains(secret), "{secret}: {}", gateway.err());
    }
}

#[tokio::test]
async fn an_address_is_that_which_trusted_proxies_name() {
    let webhooks = json!({"far": {"module": "discard", "ip_allow": ["192.0.2.0/24"]}});
    let variables = [("TRUSTED_PROXIES", "127.0.0.1"), ("CLIENT_ADDRESS_HEADER", "x-forwarded-for")];
    let gateway = gateway(&webhooks, &variables).await;
    let from = async |forwarded: &str| {
        let field = format!("X-Forwarded-For: {forwarded}");
        gateway.request(&["POST /webhook/far HTTP/1.1", &field], "{}").await
    };
    from("192.0.2.7").await.assert_accepted();
    from("198.51.100.1, 192.0.2.7").await.assert_accepted();
    from("192.0.2.7, 198.51.100.1").await.problem(403);
    gateway.post("/webhook/far", "{}").await.problem(403);
}
