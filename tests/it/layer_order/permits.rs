//! A permit is valid for one webhook and one set of guards.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::{Layer, ServiceBuilder};
use tower_webhook::RejectionKind;
use tower_webhook::RejectionKind::*;
use tower_webhook::auth::Bearer;
use tower_webhook::config::DataType;
use tower_webhook::layers::{
    CallAuthLayer, CheckPayloadLayer, CollectBodyLayer, Dispatch, LookupWebhookLayer, ProblemJsonLayer,
    RequireAuthLayer, RouteNamespaceLayer, VerifyBodyLayer,
};
use tower_webhook::{Matched, Store};

use crate::support::modules::Seen;
use crate::support::schemes::{Call, Checksum, Forgetful, HeaderKey};
use crate::support::{CREDENTIAL, ask, store_of};

async fn store(seen: &Seen) -> Store {
    let registry = seen.registry().scheme::<HeaderKey>().scheme::<Checksum>().scheme::<Forgetful>();
    let guarded = format!(r#"{{"module": "capture", "authorization": "{CREDENTIAL}"}}"#);
    let webhooks = [
        ("shop", "open", r#"{"module": "capture"}"#),
        ("shop", "guarded", &guarded),
        ("shop", "checksum", r#"{"module": "capture", "checksum": 7, "data_type": "blob"}"#),
        ("shop", "both", r#"{"module": "capture", "checksum": 7, "header_key": "k"}"#),
        ("shop", "forgetful", r#"{"module": "capture", "forgetful": true}"#),
    ];
    store_of(registry, &webhooks).await
}

fn request(path: &str, headers: &[(&str, &str)], body: &'static [u8]) -> Request<Full<Bytes>> {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::from(body)).unwrap()
}

/// Asserts that `stack`, followed by the last layers, answers `expected`; `None` is 200.
macro_rules! assert_answers {
    ($stack:expr, $request:expr, $expected:expr) => {
        let stack = $stack
            .layer(CollectBodyLayer::new())
            .layer(VerifyBodyLayer::new())
            .layer(CheckPayloadLayer::new(DataType::Blob))
            .service(Dispatch::new());
        let answer = ask(&stack, $request).await;
        let expected: Option<RejectionKind> = $expected;
        assert_eq!(answer.rejection, expected, "{answer:?}");
        assert_eq!(answer.status == 200, expected.is_none());
    };
}

#[tokio::test]
async fn a_permit_for_one_webhook_does_not_serve_another() {
    let seen = Seen::default();
    let store = store(&seen).await;
    let lookup = LookupWebhookLayer::new(store.clone());
    let fixed = |id| RouteNamespaceLayer::fixed("shop", id).unwrap();
    let permitted =
        ServiceBuilder::new().layer(fixed("open")).layer(lookup.clone()).layer(RequireAuthLayer::from_webhook());

    let rerouted = permitted.clone().layer(fixed("guarded")).layer(lookup.clone());
    assert_answers!(rerouted.clone(), request("/", &[], b"{}"), Some(Misassembled));
    let asked_again = rerouted.layer(RequireAuthLayer::from_webhook());
    assert_answers!(asked_again.clone(), request("/", &[], b"{}"), Some(Unauthenticated));
    assert_answers!(asked_again, request("/", &[("authorization", CREDENTIAL)], b"{}"), None);
    assert_answers!(permitted.clone().layer(fixed("guarded")), request("/", &[], b"{}"), Some(Misassembled));
    assert_answers!(permitted.clone().layer(lookup), request("/", &[], b"{}"), Some(Misassembled));
    assert_answers!(permitted, request("/", &[], b"{}"), None);
    assert_eq!(seen.count(), 2);
}

/// Between the guards and the body, the application's own middleware inserts the webhook of an earlier request.
#[tokio::test]
async fn a_webhook_of_another_request_behind_a_permit_gets_nothing() {
    let seen = Seen::default();
    let store = store(&seen).await;
    let found = std::sync::Arc::new(std::sync::Mutex::new(None));
    let lookup = ServiceBuilder::new().layer(RouteNamespaceLayer::from_path()).layer(LookupWebhookLayer::new(store));
    let keep = {
        let found = found.clone();
        lookup.clone().map_request(move |request: Request<Full<Bytes>>| {
            *found.lock().unwrap() = request.extensions().get::<Matched>().cloned();
            request
        })
    };
    assert_answers!(keep, request("/shop/guarded", &[], b"{}"), Some(Misassembled));
    assert!(found.lock().unwrap().is_some());

    let swap = move |mut request: Request<Full<Bytes>>| {
        request.extensions_mut().insert(found.lock().unwrap().clone().unwrap());
        request
    };
    let behind = lookup.clone().layer(RequireAuthLayer::from_webhook()).map_request(swap.clone());
    assert_answers!(behind, request("/shop/open", &[], b"{}"), Some(Misassembled));
    assert_eq!(seen.count(), 0);
    // Before the guards the insertion has no effect either: only the webhook that was looked up counts.
    let before = lookup.map_request(swap).layer(RequireAuthLayer::from_webhook());
    assert_answers!(before, request("/shop/open", &[], b"{}"), Some(Misassembled));
    assert_eq!(seen.count(), 0);
}

#[tokio::test]
async fn a_permit_given_before_the_webhook_was_known_is_not_enough() {
    let seen = Seen::default();
    let stack = ServiceBuilder::new()
        .layer(RequireAuthLayer::new(HeaderKey::new("k")))
        .layer(RouteNamespaceLayer::from_path())
        .layer(LookupWebhookLayer::new(store(&seen).await));
    assert_answers!(stack, request("/shop/guarded", &[("x-key", "k")], b"{}"), Some(Misassembled));
}

#[tokio::test]
async fn both_of_two_auth_layers_must_agree() {
    let seen = Seen::default();
    let store = store(&seen).await;
    let known = ServiceBuilder::new().layer(RouteNamespaceLayer::from_path()).layer(LookupWebhookLayer::new(store));
    let own = RequireAuthLayer::new(HeaderKey::new("k"));
    let (key, credential) = (("x-key", "k"), ("authorization", CREDENTIAL));

    macro_rules! assert_both {
        ($stack:expr) => {
            assert_answers!($stack, request("/shop/guarded", &[key, credential], b"{}"), None);
            assert_answers!($stack, request("/shop/guarded", &[key], b"{}"), Some(Unauthenticated));
            assert_answers!($stack, request("/shop/guarded", &[credential], b"{}"), Some(Unauthenticated));
            assert_answers!($stack, request("/shop/guarded", &[], b"{}"), Some(Unauthenticated));
        };
    }
    assert_both!(known.clone().layer(own.clone()).layer(RequireAuthLayer::from_webhook()));
    assert_both!(known.clone().layer(RequireAuthLayer::from_webhook()).layer(own.clone()));
    // Also if one of them comes before the lookup.
    let first = ServiceBuilder::new().layer(own).layer(known.into_inner());
    assert_both!(first.clone().layer(RequireAuthLayer::from_webhook()));
}

#[tokio::test]
async fn both_of_two_auth_layers_must_agree_also_when_one_needs_the_body() {
    let seen = Seen::default();
    let store = store(&seen).await;
    let known = ServiceBuilder::new().layer(RouteNamespaceLayer::from_path()).layer(LookupWebhookLayer::new(store));
    let own = RequireAuthLayer::new(Checksum::new(7)).verify_body_follows();
    let (right, wrong) = (Checksum::sign(7, b"{}"), Checksum::sign(8, b"{}"));
    let (right, wrong) = (("x-checksum", right.as_str()), ("x-checksum", wrong.as_str()));

    macro_rules! assert_both {
        ($stack:expr) => {
            assert_answers!($stack, request("/shop/open", &[right], b"{}"), None);
            assert_answers!($stack, request("/shop/open", &[wrong], b"{}"), Some(Unauthenticated));
            assert_answers!($stack, request("/shop/open", &[], b"{}"), Some(Unauthenticated));
        };
    }
    assert_both!(known.clone().layer(own.clone()).layer(RequireAuthLayer::from_webhook()));
    assert_both!(known.clone().layer(RequireAuthLayer::from_webhook()).layer(own.clone()));
}

#[tokio::test]
async fn both_of_two_auth_layers_must_agree_also_when_one_needs_a_call() {
    let seen = Seen::default();
    let store = store(&seen).await;
    let known = ServiceBuilder::new().layer(RouteNamespaceLayer::from_path()).layer(LookupWebhookLayer::new(store));
    let own = RequireAuthLayer::new(Call).call_auth_follows();
    let of_webhook = RequireAuthLayer::from_webhook().verify_body_follows();
    let checksum = Checksum::sign(7, b"{}");
    let body = ("x-checksum", checksum.as_str());

    macro_rules! assert_both {
        ($stack:expr) => {
            assert_answers!($stack, request("/shop/open", &[("x-call", "right")], b"{}"), None);
            assert_answers!($stack, request("/shop/open", &[("x-call", "wrong")], b"{}"), Some(Unauthenticated));
            assert_answers!($stack, request("/shop/open", &[], b"{}"), Some(Unauthenticated));
            assert_answers!($stack, request("/shop/checksum", &[("x-call", "right"), body], b"{}"), None);
            assert_answers!($stack, request("/shop/checksum", &[("x-call", "right")], b"{}"), Some(Unauthenticated));
            assert_answers!(
                $stack,
                request("/shop/checksum", &[("x-call", "wrong"), body], b"{}"),
                Some(Unauthenticated)
            );
        };
    }
    let call = CallAuthLayer::new();
    assert_both!(known.clone().layer(own.clone()).layer(of_webhook.clone()).layer(call.clone()));
    assert_both!(known.clone().layer(of_webhook.clone()).layer(own.clone()).layer(call.clone()));
    assert_both!(known.clone().layer(own.clone()).layer(call.clone()).layer(of_webhook.clone()));
    // Without the layer that makes the call.
    let missing = known.clone().layer(own.clone()).layer(of_webhook.clone());
    assert_answers!(missing, request("/shop/open", &[("x-call", "right")], b"{}"), Some(Misassembled));
    // A call that was requested before the lookup is made, but does not satisfy the webhook's guards.
    let first = ServiceBuilder::new().layer(own).layer(known.into_inner());
    assert_answers!(
        first.clone().layer(call.clone()),
        request("/shop/open", &[("x-call", "right")], b"{}"),
        Some(Misassembled)
    );
    assert_both!(first.clone().layer(of_webhook.clone()).layer(call.clone()));
}

/// A guard that still waits for the body at the lookup must not be forgotten: its proof is missing. It may be checked
/// later, or the stack may be refused, but the answer must not be 200.
#[tokio::test]
async fn a_guard_that_waits_for_the_body_is_not_forgotten_when_the_webhook_becomes_known() {
    let seen = Seen::default();
    let stack = ServiceBuilder::new()
        .layer(RequireAuthLayer::new(Checksum::new(7)).verify_body_follows())
        .layer(RouteNamespaceLayer::from_path())
        .layer(LookupWebhookLayer::new(store(&seen).await))
        .layer(RequireAuthLayer::from_webhook())
        .layer(CollectBodyLayer::new())
        .layer(VerifyBodyLayer::new())
        .layer(CheckPayloadLayer::from_webhook())
        .service(Dispatch::new());
    let wrong = Checksum::sign(8, b"{}");
    let answer = ask(&stack, request("/shop/open", &[("x-checksum", &wrong)], b"{}")).await;
    assert_ne!(answer.status, 200, "nobody has checked the signature that the outermost layer asks for");
    assert_eq!(seen.count(), 0);
}

/// A proof that was requested before the lookup does not satisfy the webhook's guards, whenever it succeeds.
#[tokio::test]
async fn a_proof_by_the_body_that_was_asked_for_before_the_webhook_was_known_is_not_enough() {
    let seen = Seen::default();
    let stack = ServiceBuilder::new()
        .layer(RequireAuthLayer::new(Checksum::new(7)).verify_body_follows())
        .layer(RouteNamespaceLayer::from_path())
        .layer(LookupWebhookLayer::new(store(&seen).await));
    let right = Checksum::sign(7, b"{}");
    assert_answers!(stack, request("/shop/guarded", &[("x-checksum", &right)], b"{}"), Some(Misassembled));
    assert_eq!(seen.count(), 0);
}

#[tokio::test]
async fn a_proof_by_the_body_for_one_webhook_does_not_serve_another() {
    let seen = Seen::default();
    let store = store(&seen).await;
    let lookup = LookupWebhookLayer::new(store);
    let stack = ServiceBuilder::new()
        .layer(RouteNamespaceLayer::fixed("shop", "checksum").unwrap())
        .layer(lookup.clone())
        .layer(RequireAuthLayer::from_webhook().verify_body_follows())
        .layer(RouteNamespaceLayer::fixed("shop", "guarded").unwrap())
        .layer(lookup);
    let right = Checksum::sign(7, b"{}");
    assert_answers!(stack, request("/", &[("x-checksum", &right)], b"{}"), Some(Misassembled));
    assert_eq!(seen.count(), 0);
}

#[tokio::test]
async fn a_guard_that_needs_the_body_refuses_while_verify_body_is_missing() {
    let seen = Seen::default();
    let store = store(&seen).await;
    let stack = ServiceBuilder::new()
        .layer(RouteNamespaceLayer::from_path())
        .layer(LookupWebhookLayer::new(store))
        .layer(RequireAuthLayer::from_webhook().verify_body_follows())
        .layer(CollectBodyLayer::new());
    let right = Checksum::sign(7, b"{}");
    let request = || request("/shop/checksum", &[("x-checksum", &right)], b"{}");
    let last = CheckPayloadLayer::from_webhook().layer(Dispatch::new());
    let answer = ask(&stack.clone().service(last.clone()), request()).await;
    assert_eq!(answer.rejection, Some(Misassembled));
    assert_eq!(seen.count(), 0);
    ask(&stack.layer(VerifyBodyLayer::new()).service(last), request()).await.assert_accepted();
}

#[tokio::test]
async fn the_raw_bytes_are_verified() {
    let seen = Seen::default();
    let receiver = tower_webhook::receiver(store(&seen).await);
    for body in [&b"\xff\x00 {\r\n"[..], b"", b" { } "] {
        let right = Checksum::sign(7, body);
        ask(&receiver, request("/shop/checksum", &[("x-checksum", &right)], body)).await.assert_accepted();
        assert_eq!(seen.take()[0].body(), body);
        let wrong = Checksum::sign(8, body);
        let answer = ask(&receiver, request("/shop/checksum", &[("x-checksum", &wrong)], body)).await;
        assert_eq!(answer.problem(401), "Unauthorized");
        assert_eq!(answer.header("www-authenticate"), "Checksum");
    }
}

#[tokio::test]
async fn all_guards_of_a_webhook_must_agree() {
    let seen = Seen::default();
    let receiver = tower_webhook::receiver(store(&seen).await);
    let (right, wrong) = (Checksum::sign(7, b"{}"), Checksum::sign(8, b"{}"));
    for (headers, status) in [
        (vec![("x-key", "k"), ("x-checksum", right.as_str())], 200),
        (vec![("x-key", "k"), ("x-checksum", wrong.as_str())], 401),
        (vec![("x-key", "x"), ("x-checksum", right.as_str())], 401),
        (vec![("x-key", "k")], 401),
        (vec![("x-checksum", right.as_str())], 401),
        (vec![], 401),
    ] {
        assert_eq!(ask(&receiver, request("/shop/both", &headers, b"{}")).await.status, status, "{headers:?}");
    }
}

#[tokio::test]
async fn a_scheme_that_forgot_to_check_the_body_admits_nobody() {
    let seen = Seen::default();
    let receiver = tower_webhook::receiver(store(&seen).await);
    let answer = ask(&receiver, request("/shop/forgetful", &[("x-key", "k")], b"{}")).await;
    assert_eq!(answer.problem(401), "Unauthorized");
    assert_eq!(seen.count(), 0);
}

#[tokio::test]
async fn a_misassembled_stack_reveals_nothing() {
    let seen = Seen::default();
    let stack = ServiceBuilder::new()
        .layer(ProblemJsonLayer::new())
        .layer(LookupWebhookLayer::new(store(&seen).await))
        .layer(RequireAuthLayer::new(Bearer::new("s3cret-token").unwrap()))
        .layer(CollectBodyLayer::new())
        .layer(CheckPayloadLayer::from_webhook())
        .service(Dispatch::new());
    let answer = ask(&stack, request("/shop/open", &[("authorization", CREDENTIAL)], b"{}")).await;
    assert_eq!(answer.problem(500), "Internal Server Error");
    assert!(!answer.text().contains("RouteNamespace"));
}
