//! Challenges: what each provider gets, and what nobody gets.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tower_webhook::auth::WallClock;
use tower_webhook::dedup::Claims;
use tower_webhook::{Receiver, Registry};

use crate::support::modules::Seen;
use crate::support::{Answer, ask, receiver_of};

const GUARD: &str = "Bearer s3cret-token-of-a-sender";

/// Webhooks of `shop`, each with the handshake of its name, a guard, and a rule that knows its events apart.
async fn receiver(seen: &Seen) -> Receiver {
    let handshakes = [
        ("dropbox", json!("dropbox")),
        ("meta", json!({"type": "meta", "verify_token": ["fake-verify", "of-another-app"]})),
        ("websub", json!({"type": "websub", "topics": ["https://example.com/feed"]})),
        (
            "websub-token",
            json!({"type": "websub", "topics": ["https://example.com/feed"], "verify_token": "fake-verify"}),
        ),
        ("okta", json!("okta")),
        ("trello", json!("trello")),
        ("msgraph", json!("msgraph")),
        ("cloudevents", json!("cloudevents")),
        ("cloudevents-some", json!({"type": "cloudevents", "origins": ["eventemitter.example.com"], "rate": 100})),
        ("x", json!({"type": "x", "secrets": ["an older secret", "fake_consumer_secret"]})),
        ("slack", json!("slack")),
        ("twitch", json!({"type": "twitch"})),
        ("discord", json!("discord")),
        ("xero", json!("xero")),
        ("line", json!("line")),
        ("zoom", json!({"type": "zoom", "secrets": ["an older secret", "zoom_secret"]})),
        ("none", json!("none")),
    ];
    let webhook = |handshake: &Value| {
        let webhook =
            json!({"module": "capture", "authorization": GUARD, "dedup": {"digest": true}, "handshake": handshake});
        webhook.to_string()
    };
    let webhooks: Vec<_> = handshakes.iter().map(|(id, handshake)| (*id, webhook(handshake))).collect();
    let webhooks: Vec<_> = webhooks.iter().map(|(id, json)| ("shop", *id, json.as_str())).collect();
    receiver_of(seen.registry(), &webhooks, |builder| builder.claims(Claims::in_memory())).await
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::from(body.to_owned())).unwrap()
}

fn assert_never_a_page(answer: &Answer) {
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("cache-control"), "no-store");
    if !answer.body.is_empty() {
        let content_type = answer.header("content-type");
        assert!(["text/plain; charset=utf-8", "application/json"].contains(&content_type), "{content_type}");
    }
    assert!(!answer.headers.contains_key("x-event-id"), "a challenge is no event");
}

#[tokio::test]
async fn what_is_asked_before_the_guards_is_answered_without_a_credential() {
    let seen = Seen::default();
    let receiver = receiver(&seen).await;
    for (method, path, headers, expected) in [
        ("GET", "/shop/dropbox?challenge=fake-challenge", &[][..], "fake-challenge"),
        (
            "GET",
            "/shop/meta?hub.mode=subscribe&hub.verify_token=fake-verify&hub.challenge=1158201444",
            &[],
            "1158201444",
        ),
        ("GET", "/shop/meta?hub.challenge=1&hub.mode=subscribe&hub.verify_token=of%2Danother-app&more=2", &[], "1"),
        (
            "GET",
            "/shop/websub?hub.mode=unsubscribe&hub.topic=https%3A%2F%2Fexample.com%2Ffeed&hub.challenge=a+b",
            &[],
            "a b",
        ),
        (
            "GET",
            "/shop/websub-token?hub.mode=subscribe&hub.topic=https://example.com/feed&hub.challenge=a&hub.lease_seconds=9\
             &hub.verify_token=fake-verify",
            &[],
            "a",
        ),
        (
            "GET",
            "/shop/okta",
            &[("x-okta-verification-challenge", "fake\"challenge")],
            r#"{"verification":"fake\"challenge"}"#,
        ),
        ("HEAD", "/shop/trello", &[], ""),
        ("POST", "/shop/msgraph?validationToken=fake%20token", &[("content-type", "text/plain")], "fake token"),
        (
            "GET",
            "/shop/x?crc_token=fake-token&nonce=fake-nonce",
            &[("x-twitter-webhooks-signature", "sha256=lNGBAqpKeJXoSYsu+4FikD9k4HJCDtjvegJS2BnoVBc=")],
            r#"{"response_token":"sha256=FCAVsOEuGtfFmOiGNH08fPF+8oIVZ0/qUv9xdLO3i6E="}"#,
        ),
    ] {
        let answer = ask(&receiver, request(method, path, headers, "")).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, expected), "{method} {path}");
        assert_never_a_page(&answer);
    }
    assert_eq!(seen.count(), 0);
}

#[tokio::test]
async fn a_sender_of_cloud_events_is_told_that_it_may_send_and_how_much() {
    let receiver = receiver(&Seen::default()).await;
    let asked = [("webhook-request-origin", "eventemitter.example.com"), ("webhook-request-rate", "120")];
    let answer = ask(&receiver, request("OPTIONS", "/shop/cloudevents", &asked, "")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("webhook-allowed-origin"), "eventemitter.example.com");
    assert_eq!(answer.header("webhook-allowed-rate"), "120");
    assert_eq!(answer.header("allow"), "POST, OPTIONS");
    let answer = ask(&receiver, request("OPTIONS", "/shop/cloudevents-some", &asked, "")).await;
    assert_eq!(answer.header("webhook-allowed-rate"), "100");
    let answer = ask(&receiver, request("OPTIONS", "/shop/cloudevents", &asked[..1], "")).await;
    assert!(answer.status == 200 && !answer.headers.contains_key("webhook-allowed-rate"));
    let other = [("webhook-request-origin", "other.example.com")];
    let answer = ask(&receiver, request("OPTIONS", "/shop/cloudevents-some", &other, "")).await;
    answer.problem(403);
    assert!(!answer.headers.contains_key("webhook-allowed-origin"));
    for headers in
        [&[][..], &[asked[0], asked[0]], &[asked[0], ("webhook-request-rate", "0")], &[asked[0], asked[1], asked[1]]]
    {
        ask(&receiver, request("OPTIONS", "/shop/cloudevents", headers, "")).await.problem(400);
    }
}

/// A webhook, the header fields and the body of a challenge, and the status and body of its answer.
type Signed = (&'static str, Vec<(&'static str, &'static str)>, &'static str, u16, &'static str);

/// The challenges that come by a signed POST.
fn signed() -> Vec<Signed> {
    vec![
        (
            "slack",
            vec![],
            r#"{"token":"fake","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P","type":"url_verification"}"#,
            200,
            "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P",
        ),
        (
            "twitch",
            vec![("twitch-eventsub-message-type", "webhook_callback_verification")],
            r#"{"challenge":"pogchamp-kappa-360noscope-vohiyo","subscription":{"id":"fake"}}"#,
            200,
            "pogchamp-kappa-360noscope-vohiyo",
        ),
        ("discord", vec![], r#"{"id":"1","type":1,"application_id":"2","version":1}"#, 200, r#"{"type":1}"#),
        ("discord", vec![], r#"{"version":1,"application_id":"2","type":0}"#, 204, ""),
        ("xero", vec![], r#"{"events":[],"firstEventSequence":0,"lastEventSequence":0,"entropy":"a"}"#, 200, ""),
        ("line", vec![], r#"{"destination":"a","events":[]}"#, 200, ""),
        (
            "zoom",
            vec![
                ("x-zm-request-timestamp", "1700000000"),
                ("x-zm-signature", "v0=e38958f05829d1b2ef69429d817c2b5c7ab3d21022d5de6c377bab816f76c9f5"),
            ],
            r#"{"payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"},"event_ts":1654503849680,"event":"endpoint.url_validation"}"#,
            200,
            r#"{"encryptedToken":"46a324cfb7c2ec760e4cd561586a53aadb6fc7561eb8d626d6ee1b71d808b3c0","plainToken":"qgg8vlvZRS6UYooatFL8Aw"}"#,
        ),
    ]
}

#[tokio::test]
async fn a_signed_challenge_is_answered_once_its_sender_is_proven_and_is_no_event() {
    let seen = Seen::default();
    let receiver = receiver(&seen).await;
    for (id, headers, body, status, expected) in signed() {
        let path = format!("/shop/{id}");
        ask(&receiver, request("POST", &path, &headers, body)).await.problem(401);
        let headers = [&headers[..], &[("authorization", GUARD)]].concat();
        // Not a duplicate the second time: it is no event.
        for _ in 0..2 {
            let answer = ask(&receiver, request("POST", &path, &headers, body)).await;
            assert_eq!((answer.status.as_u16(), answer.text()), (status, expected), "{id}");
            assert_never_a_page(&answer);
            assert!(!answer.headers.contains_key("x-duplicate"));
        }
    }
    assert_eq!(seen.count(), 0);
}

#[tokio::test]
async fn events_beside_challenges_are_delivered() {
    let seen = Seen::default();
    let receiver = receiver(&seen).await;
    let guard = ("authorization", GUARD);
    for (id, headers, body) in [
        ("slack", vec![guard], r#"{"type":"event_callback","challenge":"a"}"#),
        ("slack", vec![guard], r#"{"type":"url_verification","type":"url_verification","challenge":"a"}"#),
        ("twitch", vec![guard, ("twitch-eventsub-message-type", "notification")], r#"{"challenge":"a"}"#),
        ("discord", vec![guard], r#"{"type":2}"#),
        ("discord", vec![guard], r#"{"version":1,"type":1,"event":{"type":"ENTITLEMENT_CREATE"}}"#),
        ("xero", vec![guard], r#"{"events":[{"resourceId":"a"}]}"#),
        ("line", vec![guard], r#"{"events":{}}"#),
        ("zoom", vec![guard], r#"{"event":"meeting.started","payload":{"plainToken":"a"}}"#),
        ("msgraph", vec![guard], r#"{"value":[]}"#),
        ("dropbox", vec![guard], r#"{"list_folder":{"accounts":["a"]}}"#),
        ("none", vec![guard], r#"{"type":"url_verification","challenge":"a"}"#),
    ] {
        let answer = ask(&receiver, request("POST", &format!("/shop/{id}?challenge=a"), &headers, body)).await;
        answer.assert_accepted();
        assert_eq!(seen.take().len(), 1, "{id} {body}");
    }
}

#[tokio::test]
async fn a_malformed_challenge_is_400_and_a_wrong_token_403() {
    let seen = Seen::default();
    let receiver = receiver(&seen).await;
    let long = "a".repeat(1025);
    let meta = |rest: &str| format!("/shop/meta?hub.mode=subscribe&{rest}");
    let websub = "/shop/websub?hub.mode=subscribe&hub.challenge=a";
    for (method, path, headers, status) in [
        ("GET", "/shop/dropbox".to_owned(), &[][..], 400),
        ("GET", "/shop/dropbox?challenge=".to_owned(), &[], 400),
        ("GET", "/shop/dropbox?challenge=a&challenge=a".to_owned(), &[], 400),
        ("GET", "/shop/dropbox?challenge=a&%63hallenge=b".to_owned(), &[], 400),
        ("GET", format!("/shop/dropbox?challenge={long}"), &[], 400),
        ("GET", "/shop/dropbox?challenge=%C3%A9".to_owned(), &[], 400),
        ("GET", "/shop/dropbox?challenge=%ff".to_owned(), &[], 400),
        ("GET", "/shop/dropbox?challenge=a%0D%0AX-Injected:%201".to_owned(), &[], 400),
        ("GET", "/shop/dropbox?challenge=a%00".to_owned(), &[], 400),
        ("GET", "/shop/dropbox?challenge=%4".to_owned(), &[], 400),
        ("GET", meta("hub.verify_token=wrong&hub.challenge=1"), &[], 403),
        ("GET", meta("hub.verify_token=&hub.challenge=1"), &[], 403),
        ("GET", meta("hub.verify_token=Fake-verify&hub.challenge=1"), &[], 403),
        ("GET", meta("hub.challenge=1"), &[], 400),
        ("GET", meta("hub.verify_token=fake-verify"), &[], 400),
        ("GET", meta("hub.verify_token=fake-verify&hub.verify_token=fake-verify&hub.challenge=1"), &[], 400),
        ("GET", "/shop/meta?hub.mode=unsubscribe&hub.verify_token=fake-verify&hub.challenge=1".to_owned(), &[], 403),
        ("GET", "/shop/meta?hub.verify_token=fake-verify&hub.challenge=1".to_owned(), &[], 400),
        ("GET", format!("{websub}&hub.topic=https://example.com/other"), &[], 403),
        ("GET", websub.to_owned(), &[], 400),
        ("GET", format!("{}&hub.topic=https://example.com/feed", websub.replace("websub", "websub-token")), &[], 400),
        ("GET", "/shop/okta".to_owned(), &[], 400),
        ("GET", "/shop/okta".to_owned(), &[("x-okta-verification-challenge", ""); 1], 400),
        ("GET", "/shop/okta".to_owned(), &[("x-okta-verification-challenge", "a"); 2], 400),
        ("POST", "/shop/msgraph?validationToken=".to_owned(), &[], 400),
        ("POST", "/shop/msgraph?validationToken=a&validationToken=a".to_owned(), &[], 400),
        ("POST", format!("/shop/msgraph?validationToken={long}"), &[], 400),
        ("GET", "/shop/x".to_owned(), &[], 400),
        ("GET", "/shop/x?crc_token=%7B%22a%22%3A1%7D".to_owned(), &[], 400),
        ("GET", "/shop/x?crc_token=a".to_owned(), &[("x-twitter-webhooks-signature", "sha256=AAAA")], 403),
        ("GET", "/shop/x?crc_token=a".to_owned(), &[("x-twitter-webhooks-signature", "a"); 2], 400),
    ] {
        let answer = ask(&receiver, request(method, &path, headers, "")).await;
        let detail = answer.problem(status);
        assert!(!answer.headers.contains_key("x-injected"));
        assert!(!detail.contains("fake-verify") && !detail.contains("wrong"), "{detail}");
    }
    assert_eq!(seen.count(), 0);
}

#[tokio::test]
async fn a_signed_challenge_that_cannot_be_answered_is_no_event_either() {
    let seen = Seen::default();
    let receiver = receiver(&seen).await;
    let (time, signature) = (("x-zm-request-timestamp", "1700000000"), ("x-zm-signature", "v0=00"));
    let zoom = |token: &str| format!(r#"{{"event":"endpoint.url_validation","payload":{{"plainToken":"{token}"}}}}"#);
    let long = format!(r#"{{"type":"url_verification","challenge":"{}"}}"#, "a".repeat(1025));
    for (id, headers, body, status) in [
        ("slack", vec![], r#"{"type":"url_verification"}"#.to_owned(), 400),
        ("slack", vec![], r#"{"type":"url_verification","challenge":1}"#.to_owned(), 400),
        ("slack", vec![], r#"{"type":"url_verification","challenge":"a","challenge":"a"}"#.to_owned(), 400),
        ("slack", vec![], r#"{"type":"url_verification","challenge":"<script>é"}"#.to_owned(), 400),
        ("slack", vec![], long, 400),
        ("twitch", vec![("twitch-eventsub-message-type", "webhook_callback_verification")], "{}".to_owned(), 400),
        ("zoom", vec![], zoom("a"), 400),
        ("zoom", vec![time, signature], zoom("a"), 403),
        ("zoom", vec![time, signature], zoom("v0:1:{}"), 400),
        ("zoom", vec![time, signature, signature], zoom("a"), 400),
    ] {
        let headers = [&headers[..], &[("authorization", GUARD)]].concat();
        ask(&receiver, request("POST", &format!("/shop/{id}"), &headers, &body)).await.problem(status);
    }
    assert_eq!(seen.count(), 0);
}

#[tokio::test]
async fn another_method_is_405_and_told_which_ones_are_right() {
    let receiver = receiver(&Seen::default()).await;
    for (id, allowed) in [
        ("dropbox", "POST, GET"),
        ("trello", "POST, HEAD"),
        ("cloudevents", "POST, OPTIONS"),
        ("msgraph", "POST"),
        ("slack", "POST"),
        ("none", "POST"),
    ] {
        for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
            let answer = ask(&receiver, request(method, &format!("/shop/{id}?challenge=a"), &[], "")).await;
            if !allowed.split(", ").any(|allowed| allowed == method) {
                assert_eq!(answer.problem(405), "Method Not Allowed");
                assert_eq!(answer.header("allow"), allowed, "{method} {id}");
            }
        }
        ask(&receiver, request("GET", &format!("/nowhere/{id}"), &[], "")).await.problem(404);
    }
    assert_eq!(ask(&receiver, request("GET", "/shop/nothing", &[], "")).await.status, 404);
}

#[tokio::test]
async fn a_handshake_that_says_too_little_or_too_much_does_not_compile() {
    for (handshake, reason) in [
        (json!("dropbx"), "handshake.type: unknown handshake `dropbx`, did you mean `dropbox`?"),
        (json!("github"), "handshake.type: unknown handshake `github`; expected one of cloudevents, discord"),
        (json!("meta"), "handshake: the key `verify_token` is missing"),
        (json!({"type": "meta", "verify_token": " "}), "handshake.verify_token"),
        (json!({"type": "meta", "verify_token": []}), "handshake.verify_token"),
        (json!("websub"), "handshake: the key `topics` is missing"),
        (json!({"type": "websub", "topics": []}), "handshake.topics: expected the URLs of topics, found an empty list"),
        (
            json!({"type": "cloudevents", "origins": [" "]}),
            "handshake.origins: expected the names of senders, found a blank",
        ),
        (json!({"type": "cloudevents", "rate": 0}), "handshake.rate"),
        (json!("zoom"), "handshake: the key `secrets` is missing"),
        (
            json!({"type": "dropbox", "verify_token": "a"}),
            "handshake.verify_token: the handshake `dropbox` has no such key",
        ),
        (json!({"type": "slack", "token": "a"}), "handshake: unknown key `token`"),
        (json!({"verify_token": "a"}), "handshake: the key `type` is missing"),
        (json!(true), "handshake: expected the name of a handshake"),
    ] {
        let webhook = json!({"module": "discard", "handshake": handshake}).to_string();
        let store = crate::support::store_of(Registry::builtin(), &[("shop", "a", &webhook)]).await;
        let snapshot = store.snapshot();
        let (_, refusal) = snapshot.refusals().next().unwrap_or_else(|| panic!("{handshake} compiles"));
        assert!(refusal.reason().starts_with(reason), "{handshake}: {}", refusal.reason());
    }
}

#[tokio::test]
async fn the_preset_of_a_signature_brings_its_handshake_and_its_secrets() {
    let signed = |preset: &str, secret: &str, rest: &str| {
        let signature = json!({"preset": preset, "secrets": ["an older secret of 16", secret]});
        format!(r#"{{"module": "capture", "signature": {signature}{rest}}}"#)
    };
    let zoom = signed("zoom", "zoom_secret", "");
    let x = signed("x", "fake_consumer_secret", "");
    let dropbox = signed("dropbox", "secret", "");
    let none = signed("dropbox", "secret", r#", "handshake": "none""#);
    let seen = Seen::default();
    let clock = WallClock::from_fn(|| UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    let webhooks =
        [("shop", "zoom", &*zoom), ("shop", "x", &x), ("shop", "dropbox", &dropbox), ("shop", "none", &none)];
    let receiver = receiver_of(seen.registry().clock(clock), &webhooks, |builder| builder).await;

    let (_, headers, body, _, expected) = self::signed().into_iter().find(|(id, ..)| *id == "zoom").unwrap();
    let answer = ask(&receiver, request("POST", "/shop/zoom", &headers, body)).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, expected));
    let forged = [headers[0], ("x-zm-signature", "v0=00")];
    ask(&receiver, request("POST", "/shop/zoom", &forged, body)).await.problem(401);
    let asked = request(
        "GET",
        "/shop/x?crc_token=fake-token&nonce=fake-nonce",
        &[("x-twitter-webhooks-signature", "sha256=lNGBAqpKeJXoSYsu+4FikD9k4HJCDtjvegJS2BnoVBc=")],
        "",
    );
    let token = ask(&receiver, asked).await.json()["response_token"].clone();
    assert_eq!(token, "sha256=FCAVsOEuGtfFmOiGNH08fPF+8oIVZ0/qUv9xdLO3i6E=");
    assert_eq!(ask(&receiver, request("GET", "/shop/dropbox?challenge=a", &[], "")).await.text(), "a");
    ask(&receiver, request("GET", "/shop/none?challenge=a", &[], "")).await.problem(405);
    assert_eq!(seen.count(), 0);
}
