//! Challenges of providers, answered by the gateway process.

use serde_json::json;

use crate::support::process::Gateway;
use crate::support::{Answer, eventually};

async fn gateway() -> Gateway {
    let guard = "Bearer s3cret-token-of-a-sender";
    let webhook = |handshake| json!({"module": "log", "authorization": guard, "handshake": handshake});
    let webhooks = json!({
        "dropbox": webhook(json!("dropbox")),
        "meta": webhook(json!({"type": "meta", "verify_token": "{$META_TOKEN}"})),
        "okta": webhook(json!("okta")),
        "trello": webhook(json!("trello")),
        "msgraph": webhook(json!("msgraph")),
        "cloudevents": webhook(json!("cloudevents")),
        "websub": webhook(json!({"type": "websub", "topics": ["https://example.com/feed"]})),
        "x": webhook(json!({"type": "x", "secrets": "fake_consumer_secret"})),
        "slack": webhook(json!("slack")),
        "twitch": webhook(json!("twitch")),
        "discord": webhook(json!("discord")),
        "zoom": webhook(json!({"type": "zoom", "secrets": "zoom_secret"})),
        "open": {"module": "discard"},
    });
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("webhooks.json"), webhooks.to_string()).unwrap();
    let gateway = Gateway::start_in(directory, &[("META_TOKEN", "fake-verify"), ("RUST_LOG", "debug")]).await;
    eventually("the gateway to be ready", || async { gateway.get("/ready").await.status == 200 }).await;
    gateway
}

fn assert_answered(answer: &Answer, body: &str) {
    assert_eq!((answer.status.as_u16(), answer.text()), (200, body), "{answer:?}");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
}

#[tokio::test]
async fn each_provider_gets_what_it_asks_for() {
    let gateway = gateway().await;
    for (line, expected) in [
        ("GET /webhook/dropbox?challenge=fake-challenge", "fake-challenge"),
        ("GET /webhook/meta?hub.mode=subscribe&hub.verify_token=fake-verify&hub.challenge=1158201444", "1158201444"),
        ("GET /webhook/websub?hub.mode=subscribe&hub.topic=https://example.com/feed&hub.challenge=abc", "abc"),
        ("POST /webhook/msgraph?validationToken=fake%20token", "fake token"),
        (
            "GET /webhook/x?crc_token=fake-token&nonce=fake-nonce",
            r#"{"response_token":"sha256=FCAVsOEuGtfFmOiGNH08fPF+8oIVZ0/qUv9xdLO3i6E="}"#,
        ),
    ] {
        let answer = gateway.request(&[&format!("{line} HTTP/1.1")], "").await;
        assert_answered(&answer, expected);
    }
    let okta = ["GET /webhook/okta HTTP/1.1", "X-Okta-Verification-Challenge: fake-challenge"];
    assert_answered(&gateway.request(&okta, "").await, r#"{"verification":"fake-challenge"}"#);
    let cloud_events = ["OPTIONS /webhook/cloudevents HTTP/1.1", "WebHook-Request-Origin: a.example"];
    assert_eq!(gateway.request(&cloud_events, "").await.header("webhook-allowed-origin"), "a.example");

    let guard = "Authorization: Bearer s3cret-token-of-a-sender";
    let slack = r#"{"token":"fake","challenge":"3eZbrw1a","type":"url_verification"}"#;
    gateway.post("/webhook/slack", slack).await.problem(401);
    assert_answered(&gateway.request(&["POST /webhook/slack HTTP/1.1", guard], slack).await, "3eZbrw1a");
    let twitch =
        ["POST /webhook/twitch HTTP/1.1", guard, "Twitch-Eventsub-Message-Type: webhook_callback_verification"];
    assert_answered(&gateway.request(&twitch, r#"{"challenge":"pogchamp"}"#).await, "pogchamp");
    let discord = ["POST /webhook/discord HTTP/1.1", guard];
    assert_answered(&gateway.request(&discord, r#"{"id":"1","type":1}"#).await, r#"{"type":1}"#);
    let zoom = [
        "POST /webhook/zoom HTTP/1.1",
        guard,
        "x-zm-request-timestamp: 1700000000",
        "x-zm-signature: v0=e38958f05829d1b2ef69429d817c2b5c7ab3d21022d5de6c377bab816f76c9f5",
    ];
    let body = r#"{"payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"},"event_ts":1654503849680,"event":"endpoint.url_validation"}"#;
    let answer = gateway.request(&zoom, body).await.json();
    assert_eq!(answer["encryptedToken"], "46a324cfb7c2ec760e4cd561586a53aadb6fc7561eb8d626d6ee1b71d808b3c0");

    assert_eq!(gateway.out(), "", "no challenge was printed as an event");
    let metrics = gateway.get("/metrics").await;
    let counted = r#"tower_webhook_requests_total{outcome="handshake"} 11"#;
    assert!(metrics.text().contains(counted), "{}", metrics.text());
}

#[tokio::test]
async fn a_stranger_gets_no_answer_and_nothing_of_a_query_is_logged() {
    let gateway = gateway().await;
    for (line, status) in [
        ("GET /webhook/meta?hub.mode=subscribe&hub.verify_token=wr0ng&hub.challenge=1", 403),
        ("GET /webhook/meta?hub.mode=subscribe&hub.verify_token=wr0ng", 400),
        ("GET /webhook/dropbox?challenge=wr0ng&challenge=wr0ng", 400),
        ("GET /webhook/dropbox?challenge=wr0ng%0d%0aSet-Cookie:%20a", 400),
        ("GET /webhook/open?challenge=wr0ng", 405),
        ("PUT /webhook/dropbox?challenge=wr0ng", 405),
        ("GET /webhook/nothing?challenge=wr0ng", 404),
    ] {
        let answer = gateway.request(&[&format!("{line} HTTP/1.1")], "").await;
        answer.problem(status);
        assert!(!answer.headers.contains_key("set-cookie"));
    }
    assert!(!gateway.err().contains("wr0ng"), "{}", gateway.err());
}
