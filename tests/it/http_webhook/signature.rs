//! Signatures of Standard Webhooks, verified independently.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::target::{OK, Target};
use super::{Hook, event_with};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// HMAC, written after the text of RFC 2104.
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    assert!(key.len() <= 64);
    let pad = |byte: u8| -> Vec<u8> { (0..64).map(|at| key.get(at).unwrap_or(&0) ^ byte).collect() };
    let inner = Sha256::digest([pad(0x36), text.to_vec()].concat());
    Sha256::digest([pad(0x5c), inner.to_vec()].concat()).to_vec()
}

fn signature(id: &str, timestamp: &str, body: &[u8]) -> String {
    let key = STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
    format!("v1,{}", STANDARD.encode(hmac(&key, &signed)))
}

/// The published vector, which shows that the verification itself is right.
#[test]
fn the_check_meets_the_vector() {
    let signature = signature("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", br#"{"test": 2432232314}"#);
    assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
}

#[tokio::test]
async fn a_request_is_signed_over_what_is_sent() {
    let mut target = Target::answering(OK).await;
    for secret in [SECRET, &SECRET["whsec_".len()..]] {
        let options = json!({"url": target.url(), "signing_secret": secret, "forward_headers": true});
        let mut hook = Hook::new(options).await;
        for body in [&b"{\"a\": 1}"[..], b"\0\xff binary", b""] {
            // The sender's own signature, made with its own id and key.
            let forged = [("webhook-id", "x"), ("webhook-timestamp", "1"), ("webhook-signature", "v1,AAAA")];
            let answer = hook.deliver(event_with(&forged, body)).await;
            let received = target.received().await;
            let (id, timestamp) = (received.one("webhook-id"), received.one("webhook-timestamp"));
            assert_eq!(id, answer.header("x-event-id"));
            assert_eq!(received.one("webhook-signature"), signature(id, timestamp, &received.body));
            assert_eq!(received.body, body);
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
            assert!((now - 60..=now).contains(&timestamp.parse().unwrap()), "{timestamp}");
        }
    }
}

#[tokio::test]
async fn the_senders_signature_is_not_sent_beside_ours() {
    let mut target = Target::answering(OK).await;
    let foreign = [("svix-id", "x"), ("svix-timestamp", "1"), ("svix-signature", "v1,AAAA"), ("webhook-version", "1")];
    let named: Vec<_> = foreign.iter().map(|(name, _)| *name).chain(["webhook-id"]).collect();
    for allowed in [json!(null), json!(named)] {
        for (signing_secret, expected) in [(json!(SECRET), 0), (json!(null), foreign.len())] {
            let options = json!({
                "url": target.url(), "forward_headers": true, "allowed_headers": allowed, "signing_secret": signing_secret,
            });
            Hook::new(options).await.deliver(event_with(&foreign, "{}")).await;
            let received = target.received().await;
            let passed = foreign.iter().filter(|(name, _)| !received.all(name).is_empty()).count();
            assert_eq!(passed, expected, "{received:?}");
        }
    }
}

#[tokio::test]
async fn without_a_secret_there_is_no_signature() {
    let mut target = Target::answering(OK).await;
    Hook::new(json!({"url": target.url()})).await.deliver(event_with(&[("webhook-id", "x")], "{}")).await;
    let received = target.received().await;
    assert!(!received.names().iter().any(|name| name.starts_with("webhook-")), "{received:?}");
}
