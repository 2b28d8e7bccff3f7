//! Options that are refused.

use serde_json::{Value, json};

use super::Hook;

/// The reason why these options are refused.
async fn refusal(mut options: Value) -> String {
    if options.get("url").is_none() {
        options["url"] = "https://example.com/s3cret".into();
    }
    Hook::new(options).await.refusal()
}

#[tokio::test]
async fn an_option_that_cannot_work_is_named() {
    for (options, named) in [
        (json!({"url": "ftp://example.com/s3cret"}), "url"),
        (json!({"url": "https://s3cret@example.com/"}), "url"),
        (json!({"url": "http://127.1/"}), "url"),
        (json!({"url": 1}), "url"),
        (json!({"ulr": "x"}), "did you mean `url`"),
        (json!({"method": "GET"}), "method"),
        (json!({"method": "DELETE"}), "method"),
        (json!({"timeout": 0}), "timeout"),
        (json!({"timeout": -1}), "timeout"),
        (json!({"timeout": 300.5}), "timeout"),
        (json!({"timeout": 1e300}), "timeout"),
        (json!({"timeout": "30"}), "timeout"),
        (json!({"headers": {"host": "s3cret"}}), "headers"),
        (json!({"headers": {"Content-Length": "1"}}), "headers"),
        (json!({"headers": {"Transfer-Encoding": "chunked"}}), "headers"),
        (json!({"headers": {"Connection": "close"}}), "headers"),
        (json!({"headers": {"TE": "trailers"}}), "headers"),
        (json!({"headers": {"Expect": "100-continue"}}), "headers"),
        (json!({"headers": {"X-Event-Id": "1"}}), "headers"),
        (json!({"headers": {"webhook-signature": "s3cret"}}), "webhook-signature"),
        (json!({"headers": {"x y": "1"}}), "headers"),
        (json!({"headers": {"": "1"}}), "headers"),
        (json!({"headers": {"x-a": "s3cret\r\nx-b: 1"}}), "x-a"),
        (json!({"headers": {"x-a": "s3cret\u{7f}"}}), "x-a"),
        (json!({"headers": {"x-a": 1}}), "headers"),
        (json!({"headers": {"x-a": "1", "X-A": "2"}}), "x-a"),
        (json!({"headers": ["x-a"]}), "headers"),
        (json!({"forward_headers": "yes"}), "forward_headers"),
        (json!({"allowed_headers": ["x-a"]}), "forward_headers"),
        (json!({"forward_headers": false, "allowed_headers": []}), "forward_headers"),
        (json!({"forward_headers": true, "allowed_headers": ["s3cret s3cret"]}), "allowed_headers"),
        (json!({"forward_headers": true, "allowed_headers": ["connection"]}), "allowed_headers"),
        (json!({"forward_headers": true, "allowed_headers": ["x-attempt"]}), "allowed_headers"),
        (json!({"forward_headers": true, "allowed_headers": "x-a"}), "allowed_headers"),
        (json!({"allowed_hosts": []}), "allowed_hosts"),
        (json!({"allowed_hosts": ["other.example"]}), "allowed_hosts"),
        (json!({"allowed_hosts": ["example.com:443"]}), "allowed_hosts"),
        (json!({"allowed_hosts": "example.com"}), "allowed_hosts"),
        (json!({"signing_secret": "whsec_s3cret"}), "signing_secret"),
        (json!({"signing_secret": ""}), "signing_secret"),
    ] {
        let reason = refusal(options.clone()).await;
        assert!(reason.contains(named), "{options}: {reason}");
    }
}

#[tokio::test]
async fn without_a_url_there_is_no_target() {
    assert!(Hook::new(json!({})).await.refusal().contains("url"));
}

#[tokio::test]
async fn all_options_together_are_taken() {
    let options = json!({
        "url": "https://Example.com:8443/hook?token=s3cret",
        "method": "PUT",
        "headers": {"Authorization": "Bearer s3cret", "X-Empty": ""},
        "forward_headers": true,
        "allowed_headers": ["X-GitHub-Event", "webhook-id", "authorization"],
        "allowed_hosts": ["example.com"],
        "timeout": 0.5,
        "signing_secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    });
    let hook = Hook::new(options).await;
    let snapshot = hook.store.status().snapshot;
    assert_eq!(snapshot.refusals().count(), 0, "{snapshot:?}");
}
