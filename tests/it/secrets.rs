//! No secret is in an answer or in the output of `Debug`.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use tower_webhook::auth::{Authorization, Bearer, ConfigScheme, SecretDigest};
use tower_webhook::config::{Key, WebhookKey};
use tower_webhook::layers::RequireAuthLayer;
use tower_webhook::request::{Collected, Head};
use tower_webhook::source::FixedSource;
use tower_webhook::source::{Feed, Source};
use tower_webhook::{Change, OnInvalid, Registry, receiver, reflect};

use crate::support::modules::Seen;
use crate::support::{ask, reflected, store_of};

/// A text that every secret of this file contains.
const SECRET: &str = "hunter2swordfish";

fn assert_hidden(what: &str, shown: impl AsRef<[u8]>) {
    let shown = String::from_utf8_lossy(shown.as_ref()).into_owned();
    assert!(!shown.contains(SECRET), "{what} shows the secret: {shown}");
    // The same text as a list of bytes.
    let bytes = SECRET.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    assert!(!shown.contains(&bytes), "{what} shows the secret's bytes: {shown}");
}

fn assert_debug_hides(what: &str, value: &impl Debug) {
    assert_hidden(what, format!("{value:?}"));
    assert_hidden(what, format!("{value:#?}"));
}

fn config() -> String {
    format!(
        r#"{{"module": "capture", "data_type": "json", "authorization": "Bearer {SECRET}", "metadata": "{SECRET}"}}"#
    )
}

#[tokio::test]
async fn no_answer_shows_a_secret() {
    let literal = format!(r#"{{"module": "discard", "authorization": "{SECRET} {SECRET}"}}"#);
    let broken = format!(r#"{{"module": "discard", "authorization": ["{SECRET}", 1]}}"#);
    let seen = Seen::default();
    let store = store_of(
        seen.registry(),
        &[("shop", "bearer", &config()), ("shop", "literal", &literal), ("shop", "broken", &broken)],
    )
    .await;
    let receiver = receiver(store);
    let right = format!("Bearer {SECRET}");
    let wrong = format!("Basic {SECRET}");
    for path in ["/shop/bearer", "/shop/literal", "/shop/broken", "/shop/nothing", "/shop/-"] {
        for credential in [None, Some(&right), Some(&wrong)] {
            for body in ["{}", "{", SECRET, "\"hunter2swordfish"] {
                let mut request = Request::post(path);
                if let Some(credential) = credential {
                    request = request.header("authorization", credential);
                }
                let answer = ask(&receiver, request.body(Full::<Bytes>::from(body)).unwrap()).await;
                assert_hidden(path, &answer.body);
                assert_hidden(path, format!("{:?}", answer.headers));
            }
        }
    }
    assert!(seen.count() > 0, "some were taken, else this proves little");
}

#[tokio::test]
async fn no_refused_configuration_shows_a_value() {
    let mut source = FixedSource::new();
    let values = [
        format!(r#"{{"module": "discard", "authorization": {{"{SECRET}": 1}}"#),
        format!(r#"{{"module": "discard", "authorization": ["{SECRET}", ["{SECRET}"]]}}"#),
        format!(r#"{{"module": "discard", "authorization": {{"value": "{SECRET}", "not_after": "{SECRET}"}}}}"#),
        format!(r#"{{"module": "discard", "header_auth": {{"header_name": "{SECRET} x", "api_key": "{SECRET}"}}}}"#),
        format!(r#"{{"module": "discard", "query_auth": {{"parameter_name": "", "api_key": "{SECRET}"}}}}"#),
        format!(r#"{{"module": "discard", "basic_auth": {{"username": "u", "password": ["{SECRET}", 1]}}}}"#),
        format!(r#"{{"module": "discard", "basic_auth": {{"users": {{"u": "$argon2id$v=19$m=9,t=9$ {SECRET}"}}}}}}"#),
        format!(r#"{{"module": "discard", "signature": {{"preset": "svix", "secrets": "whsec_{SECRET}!"}}}}"#),
        format!(r#"{{"module": "discard", "ip_allow": ["{SECRET}"]}}"#),
        format!(r#"{{"module": "discard", "any_of": [{{"authorization": "Bearer {SECRET}"}}, {{}}]}}"#),
        format!(r#"{{"module": "discard", "handshake": {{"type": "meta", "verify_token": ["{SECRET}", 1]}}}}"#),
        format!(r#"{{"module": "discard", "authorization": {{"x": "{SECRET}"}}}}"#),
        format!(r#"{{"module": "discard", "authorization": "{{$NOT_SET_ANYWHERE}} {SECRET}"}}"#),
        format!(r#"{{"module": "discard", "data_type": "{SECRET}"}}"#),
        format!(r#"{{"module": "log", "module-config": {{"pretty_print": "{SECRET}"}}}}"#),
        format!(r#"{{"module": "log", "module-config": "{SECRET}"}}"#),
        format!(r#"{{"module": "save_to_disk", "module-config": {{"path": "/{SECRET}"}}}}"#),
        format!(r#"{{"module": "save_to_disk", "module-config": {{"filename_template": "{SECRET}"}}}}"#),
        format!(r#"{{"module": "discard", "hmac": "{SECRET}"}}"#),
        format!(r#""{SECRET}"#),
        SECRET.to_string(),
    ];
    for (n, value) in values.iter().enumerate() {
        source = source.webhook("shop", &format!("a{n}"), value.clone()).unwrap();
    }
    source = source.connection("c", format!(r#"{{"password": "{SECRET}"}}"#)).unwrap();
    let store = reflected(source, Registry::builtin()).await;
    let snapshot = store.snapshot();
    assert_eq!(snapshot.counts().refused, values.len() + 1);
    for (key, refusal) in snapshot.refusals() {
        assert_hidden(&key.to_string(), refusal.reason());
        assert_debug_hides("a refusal", refusal);
    }
}

#[tokio::test]
async fn no_part_of_a_store_shows_a_secret() {
    let seen = Seen::default();
    let store = store_of(seen.registry(), &[("shop", "a", &config())]).await;
    assert_debug_hides("a receiver", &receiver(store.clone()));
    assert_debug_hides("a snapshot", &store.snapshot());
    assert_debug_hides("a webhook", &store.snapshot().webhooks().next().unwrap());
    assert_debug_hides("a status", &store.status());
    assert_debug_hides("a store", &store);
    assert_debug_hides("a registry", &seen.registry());
}

#[test]
fn no_scheme_shows_its_secret() {
    let bearer = Bearer::new(SECRET).unwrap();
    assert_debug_hides("a bearer", &bearer);
    assert_debug_hides("a layer", &RequireAuthLayer::new(bearer));
    assert_debug_hides("a digest", &SecretDigest::new(SECRET).unwrap());
    let _: &str = Authorization::KEY;
}

#[tokio::test]
async fn no_delivery_shows_a_credential_or_a_payload() {
    let seen = Seen::default();
    let receiver = receiver(store_of(seen.registry(), &[("shop", "a", &config())]).await);
    let body = format!(r#"{{"password": "{SECRET}"}}"#);
    let request = Request::post("/shop/a").header("authorization", format!("Bearer {SECRET}"));
    ask(&receiver, request.body(Full::<Bytes>::from(body)).unwrap()).await.assert_accepted();
    assert_debug_hides("a delivery", &seen.take()[0]);
}

#[test]
fn no_head_shows_a_credential() {
    let request = Request::post("/a?token=x").header(header::AUTHORIZATION, format!("Bearer {SECRET}"));
    assert_debug_hides("a head", &Head::of(&request.body(()).unwrap()));
}

#[test]
fn no_collected_body_shows_itself() {
    assert_debug_hides("a body", &Collected::new(Bytes::from(format!(r#"{{"password": "{SECRET}"}}"#))));
}

#[test]
fn no_source_shows_what_it_brings() {
    let source = FixedSource::new()
        .webhook("shop", "a", config())
        .unwrap()
        .connection(
            "c",
            format!(r#"{{"type": "http", "url": "http://example.com/", "headers": {{"Authorization": "{SECRET}"}}}}"#),
        )
        .unwrap();
    assert_debug_hides("a fixed source", &source);
    let (_, reflector) = reflect(source, Registry::builtin());
    assert_debug_hides("a reflector", &reflector.on_invalid(OnInvalid::Keep));
}

#[cfg(feature = "etcd")]
#[test]
fn no_etcd_source_shows_its_password() {
    use tower_webhook::source::{EtcdOptions, EtcdSource};
    let options = EtcdOptions::new(["http://localhost:2379"]).user("root", SECRET);
    assert_debug_hides("options", &options);
    assert_debug_hides("a source", &EtcdSource::new(options).unwrap());
}

#[test]
fn no_change_shows_its_value() {
    let key = Key::Webhook(WebhookKey::new("shop", "a").unwrap());
    assert_debug_hides("a change", &Change { key, value: Some(Bytes::from(config())) });
}

/// The `Debug` output of a feed while it is being filled.
#[derive(Clone, Default)]
struct Shown(Arc<Mutex<Vec<String>>>);

impl Source for Shown {
    const NAME: &'static str = "shown";

    async fn run(self, mut feed: Feed) {
        let connected = format!(r#"{{"module": "discard", "connection": "c", "authorization": "Bearer {SECRET}"}}"#);
        let mut replacement = feed.replace().await;
        for (id, json) in [("a", config()), ("b", connected)] {
            let key = Key::Webhook(WebhookKey::new("shop", id).unwrap());
            replacement.put(key, 1, Bytes::from(json)).await;
        }
        let connection =
            format!(r#"{{"type": "http", "url": "http://example.com/", "headers": {{"Authorization": "{SECRET}"}}}}"#);
        replacement.put(Key::Connection("c".into()), 1, Bytes::from(connection)).await;
        self.0.lock().unwrap().push(format!("{replacement:?}"));
        feed.commit(replacement, 1).await;
        self.0.lock().unwrap().push(format!("{feed:?}"));
    }
}

#[tokio::test]
async fn no_feed_shows_what_is_poured_into_it() {
    let shown = Shown::default();
    let (store, reflector) = reflect(shown.clone(), Registry::builtin());
    crate::support::within("the source", reflector.run()).await;
    assert_eq!(store.snapshot().counts().connections, 1);
    let shown = shown.0.lock().unwrap();
    assert_hidden("a replacement", &shown[0]);
    assert_hidden("a feed", &shown[1]);
}
