//! The guards of a webhook, from its configuration.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower_webhook::request::Peer;
use tower_webhook::{Receiver, Registry};

use crate::support::body::Unread;
use crate::support::{Answer, ask, receiver_of, store_of, target};

async fn receiver(json: &str) -> Receiver {
    receiver_of(Registry::builtin(), &[("shop", "guarded", json)], |settings| settings).await
}

/// A request from 192.0.2.7.
fn request(query: &str, headers: &[(&str, &str)]) -> http::request::Builder {
    let mut request = Request::post(format!("/shop/guarded{query}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.extension(Peer::new(SocketAddr::from(([192, 0, 2, 7], 4711))))
}

async fn send(receiver: &Receiver, query: &str, headers: &[(&str, &str)]) -> Answer {
    ask(receiver, request(query, headers).body(Full::<Bytes>::from("{}")).unwrap()).await
}

/// Refused before a byte of the body is read.
async fn refuses(receiver: &Receiver, query: &str, headers: &[(&str, &str)], status: u16) {
    let answer = ask(receiver, request(query, headers).body(Unread { announced: None }).unwrap()).await;
    let detail = if status == 403 { "Forbidden" } else { "Unauthorized" };
    assert_eq!(answer.problem(status), detail, "{query} {headers:?}");
}

#[tokio::test]
async fn header_auth() {
    let json = r#"{"module": "discard", "header_auth": {"header_name": "X-Acme", "api_keys": ["one", "two"]}}"#;
    let receiver = receiver(json).await;
    send(&receiver, "", &[("x-acme", "one")]).await.assert_accepted();
    send(&receiver, "", &[("x-acme", "two")]).await.assert_accepted();
    for headers in [&[][..], &[("x-acme", "three")], &[("x-acme", "one"), ("x-acme", "two")], &[("x-api-key", "one")]] {
        refuses(&receiver, "", headers, 401).await;
    }
}

#[tokio::test]
async fn query_auth() {
    let receiver =
        receiver(r#"{"module": "discard", "query_auth": {"api_key": "one", "case_sensitive": false}}"#).await;
    send(&receiver, "?api_key=one", &[]).await.assert_accepted();
    send(&receiver, "?a=b&api_key=ONE", &[]).await.assert_accepted();
    for query in ["", "?", "?api_key=", "?api_key=two", "?api_key=one&api_key=one", "?API_KEY=one"] {
        refuses(&receiver, query, &[], 401).await;
    }
}

#[tokio::test]
async fn hmac() {
    let json = r#"{"module": "discard", "hmac": {"secrets": ["other", "hmac_secret"], "header": "X-Code"}}"#;
    let receiver = receiver(json).await;
    let code = [("x-code", "55b556180c2df7ecfeaea8a9597275a64bf7c59655948011c001e19824d0e564")];
    let with_body = |body: &'static str| ask(&receiver, request("", &code).body(Full::<Bytes>::from(body)).unwrap());
    with_body(r#"{"a":1}"#).await.assert_accepted();
    assert_eq!(with_body(r#"{"a": 1}"#).await.problem(401), "Unauthorized");
    refuses(&receiver, "", &[("x-code", "55b5")], 401).await;
    refuses(&receiver, "", &[], 401).await;
}

#[tokio::test]
async fn ip_allow_by_both_of_its_names() {
    for (json, is_allowed) in [
        (r#""ip_allow": ["192.0.2.0/24"]"#, true),
        (r#""ip_allow": ["::ffff:192.0.2.0/120"]"#, true),
        (r#""ip_whitelist": ["192.0.2.7"]"#, true),
        (r#""ip_whitelist": ["192.0.2.8"]"#, false),
        (r#""ip_whitelist": ["198.51.100.1"]"#, false),
        (r#""ip_whitelist": ["198.51.100.1"], "trusted_proxies": ["192.0.2.7"]"#, true),
        (r#""ip_whitelist": ["198.51.100.1"], "trusted_proxies": ["192.0.2.8"]"#, false),
    ] {
        let receiver = receiver(&format!(r#"{{"module": "discard", {json}}}"#)).await;
        let forwarded = [("x-forwarded-for", "198.51.100.1")];
        match is_allowed {
            true => send(&receiver, "", &forwarded).await.assert_accepted(),
            false => refuses(&receiver, "", &forwarded, 403).await,
        }
    }
}

#[tokio::test]
async fn several_guards_must_all_agree() {
    let json = r#"{"module": "discard", "header_auth": {"api_key": "one"}, "query_auth": {"api_key": "two"},
        "ip_allow": ["192.0.2.7"], "authorization": ["Bearer three", "Bearer four"]}"#;
    let receiver = receiver(json).await;
    let (key, token) = (("x-api-key", "one"), ("authorization", "Bearer four"));
    send(&receiver, "?api_key=two", &[key, token]).await.assert_accepted();
    refuses(&receiver, "?api_key=two", &[key], 401).await;
    refuses(&receiver, "?api_key=two", &[token], 401).await;
    refuses(&receiver, "", &[key, token], 401).await;
}

/// Of `hunter2`, made with argon2-cffi and bcrypt of Python.
const ARGON2: &str = "$argon2id$v=19$m=64,t=1,p=1$DjA2W7z6q1McXH6VNTyifw$GBAmlrc3lOCQhvsKvhlRzACM7SDDVv33vqcSD3o5Fj4";
const BCRYPT: &str = "$2b$04$HTjZAQWvQus73sumvr2P5e6XMFHn1RmKQFLTxwUBAm3KNnidZ0kXW";

#[tokio::test]
async fn basic_auth() {
    for password in ["hunter2", ARGON2, BCRYPT] {
        let json = format!(r#"{{"module": "discard", "basic_auth": {{"username": "ci", "password": "{password}"}}}}"#);
        let receiver = receiver(&json).await;
        for _ in 0..2 {
            send(&receiver, "", &[("authorization", "basic Y2k6aHVudGVyMg==")]).await.assert_accepted();
            for wrong in ["Basic Y2k6aHVudGVyMw==", "Basic Y2o6aHVudGVyMg==", "Basic Y2k6", "Basic Og==", "Basic x"] {
                refuses(&receiver, "", &[("authorization", wrong)], 401).await;
            }
            refuses(&receiver, "", &[], 401).await;
        }
    }
}

#[tokio::test]
async fn many_senders_with_one_password_wait_for_one_check() {
    let json = format!(r#"{{"module": "discard", "basic_auth": {{"username": "ci", "password": "{ARGON2}"}}}}"#);
    let receiver = receiver(&json).await;
    let right = [("authorization", "Basic Y2k6aHVudGVyMg==")];
    let answers = (0..100).map(|_| send(&receiver, "", &right));
    for answer in futures_util::future::join_all(answers).await {
        answer.assert_accepted();
    }
}

#[tokio::test]
async fn any_of() {
    let json = format!(
        r#"{{"module": "discard", "ip_allow": ["192.0.2.0/24"], "any_of": [
            {{"basic_auth": {{"username": "ci", "password": "{BCRYPT}"}}}},
            {{"hmac": {{"secret": "hmac_secret"}}, "header_auth": {{"api_key": "one"}}}},
            {{"any_of": [{{"query_auth": {{"api_key": "two"}}}}], "ip_whitelist": ["192.0.2.7"]}},
            {{"ip_whitelist": ["192.0.2.8"]}}
        ]}}"#
    );
    let receiver = receiver(&json).await;
    let basic = ("authorization", "Basic Y2k6aHVudGVyMg==");
    let wrong = ("authorization", "Basic Y2k6aHVudGVyMw==");
    // Of `{}`.
    let code = ("x-hmac-signature", "d740b210726e5aa01e577885700b4df3b71775c6c3d68508fad6dac57eba32a5");
    let key = ("x-api-key", "one");
    send(&receiver, "", &[basic]).await.assert_accepted();
    send(&receiver, "", &[code, key]).await.assert_accepted();
    send(&receiver, "", &[wrong, code, key]).await.assert_accepted();
    send(&receiver, "?api_key=two", &[wrong]).await.assert_accepted();
    for headers in [&[][..], &[wrong], &[key], &[code], &[wrong, key]] {
        refuses(&receiver, "", headers, 401).await;
    }
    let forged = ask(&receiver, request("", &[code, key]).body(Full::<Bytes>::from("{ }")).unwrap()).await;
    assert_eq!(forged.problem(401), "Unauthorized");
}

#[tokio::test]
async fn alternatives_that_would_let_in_everybody_do_not_compile() {
    let webhook = |any_of: &str| format!(r#"{{"module": "discard", "any_of": {any_of}}}"#);
    let nested = |depth| format!("{}[]{}", r#"[{"any_of": "#.repeat(depth), "}]".repeat(depth));
    let many = |count| format!("[{}]", vec![r#"{"ip_allow": ["::1"]}"#; count].join(","));
    for (any_of, error) in [
        ("[]", "any_of: expected at least one alternative, found none"),
        ("{}", "any_of: expected an array of objects with keys of guards, found an object"),
        ("null", "any_of: expected an array of objects with keys of guards, found null"),
        ("[{}]", "any_of.0: expected at least one guard, found none: it would let in everybody"),
        (r#"["Bearer a"]"#, "any_of.0: expected an object with keys of guards, found a string"),
        (
            r#"[{"ip_allow": ["::1"]}, {"ip_alow": ["::1"]}]"#,
            "any_of.1: unknown key `ip_alow`, did you mean `ip_allow`?",
        ),
        (r#"[{"module": "log"}]"#, "any_of.0: unknown key `module`"),
        (r#"[{"authorization": ""}]"#, "any_of.0.authorization: the secret is empty"),
        (r#"[{"authorization": "$TOKEN"}]"#, "any_of.0.authorization: the secret is a placeholder"),
        (r#"[{"ip_whitelist": ["::/0"]}]"#, "any_of.0.ip_whitelist: expected some networks, found all addresses"),
        (r#"[{"ip_allow": ["::1"], "ip_whitelist": ["::2"]}]"#, "any_of.0: expected `ip_allow` or `ip_whitelist`"),
        (r#"[{"any_of": []}]"#, "any_of.0.any_of: expected at least one alternative, found none"),
        (&nested(3), "any_of.0.any_of.0.any_of.0.any_of: expected at least one alternative, found none"),
        (&nested(5), "any_of.0.any_of.0.any_of.0.any_of.0.any_of: expected at most 4 levels of `any_of`, found more"),
        (&many(65), "any_of: expected at most 64 alternatives in all, found more"),
    ] {
        let store = store_of(Registry::builtin(), &[("shop", "guarded", &webhook(any_of))]).await;
        let snapshot = store.snapshot();
        let (_, refusal) = snapshot.refusals().next().unwrap_or_else(|| panic!("{any_of} compiles"));
        assert!(refusal.reason().starts_with(error), "{any_of}: {}", refusal.reason());
    }
    for any_of in [many(64), r#"[{"any_of": [{"ip_allow": ["::1"]}]}]"#.to_owned()] {
        let store = store_of(Registry::builtin(), &[("shop", "guarded", &webhook(&any_of))]).await;
        assert_eq!(store.snapshot().counts().refused, 0, "{any_of}");
    }
}

#[tokio::test]
async fn a_guard_by_both_of_its_names_does_not_compile() {
    let json = r#"{"module": "discard", "ip_allow": ["::1"], "ip_whitelist": ["::2"]}"#;
    let store = store_of(Registry::builtin(), &[("shop", "guarded", json)]).await;
    let snapshot = store.snapshot();
    let (_, refusal) = snapshot.refusals().next().unwrap();
    assert_eq!(refusal.reason(), "expected `ip_allow` or `ip_whitelist`, found both");
}

#[tokio::test]
async fn what_is_odd_about_a_guard_is_a_warning() {
    for (json, warnings) in [
        (r#""trusted_proxies": ["192.0.2.7"]"#, &["trusted_proxies: has no effect: there is no `ip_allow`"][..]),
        (r#""trusted_proxies": ["192.0.2.7"], "ip_whitelist": ["::1"]"#, &[]),
        (
            r#""any_of": [{"header_auth": {"api_key": "short"}}]"#,
            &["any_of.0.header_auth: the secret has 5 bytes, expected at least 16: a longer one is safer"],
        ),
    ] {
        let json = format!(r#"{{"module": "discard", {json}}}"#);
        let store = store_of(Registry::builtin(), &[("shop", "guarded", &json)]).await;
        let webhook = store.snapshot().webhook(&target("shop", "guarded")).unwrap().clone();
        assert_eq!(webhook.warnings().collect::<Vec<_>>(), warnings, "{json}");
    }
}
