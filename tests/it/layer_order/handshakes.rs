//! A webhook with a handshake, in a stack that is wrongly assembled: no challenge is delivered as an event, and no stranger
//! gets the answer to a signed challenge.

use bytes::Bytes;
use http::Request;
use tower::util::BoxCloneSyncService;
use tower_webhook::RejectionKind::*;
use tower_webhook::Store;
use tower_webhook::layers::{
    ChallengeLayer, CheckPayloadLayer, CollectBodyLayer, Dispatch, HandshakeLayer, LookupWebhookLayer,
    RequireAuthLayer, RouteNamespaceLayer, VerifyBodyLayer,
};
use tower_webhook::request::Collected;

use super::{Boxed, boxed};
use crate::support::modules::Seen;
use crate::support::schemes::Checksum;
use crate::support::{Answer, ask, store_of};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Route,
    Lookup,
    Handshake,
    Auth,
    Collect,
    Verify,
    Challenge,
    Check,
}

use Step::*;

/// The right order, written once more.
const RIGHT: [Step; 8] = [Route, Lookup, Handshake, Auth, Collect, Verify, Challenge, Check];

fn assemble(steps: &[Step], store: &Store) -> Boxed {
    steps.iter().rev().fold(BoxCloneSyncService::new(Dispatch::new()), |inner, step| match step {
        Route => boxed(RouteNamespaceLayer::from_path(), inner),
        Lookup => boxed(LookupWebhookLayer::new(store.clone()), inner),
        Handshake => boxed(HandshakeLayer::from_webhook(), inner),
        Auth => boxed(RequireAuthLayer::from_webhook().verify_body_follows(), inner),
        Collect => boxed(CollectBodyLayer::new(), inner),
        Verify => boxed(VerifyBodyLayer::new(), inner),
        Challenge => boxed(ChallengeLayer::from_webhook(), inner),
        Check => boxed(CheckPayloadLayer::from_webhook(), inner),
    })
}

const SIGNED: &str = r#"{"type": "url_verification", "challenge": "abc"}"#;

async fn fixture() -> (Store, Seen) {
    let seen = Seen::default();
    let webhook = |handshake: &str| format!(r#"{{"module": "capture", "checksum": 7{handshake}}}"#);
    let [signed, get, post, none] =
        [r#", "handshake": "slack""#, r#", "handshake": "dropbox""#, r#", "handshake": "msgraph""#, ""].map(webhook);
    let webhooks =
        [("shop", "signed", signed.as_str()), ("shop", "get", &get), ("shop", "post", &post), ("shop", "none", &none)];
    (store_of(seen.registry().scheme::<Checksum>(), &webhooks).await, seen)
}

fn request(method: &str, path: &str, body: &'static str, knows: bool) -> Request<Collected> {
    let checksum = Checksum::sign(if knows { 7 } else { 8 }, body.as_bytes());
    let request = Request::builder().method(method).uri(path).header("x-checksum", checksum);
    request.body(Collected::new(Bytes::from_static(body.as_bytes()))).unwrap()
}

fn is_answered(answer: &Answer) -> bool {
    answer.status == 200 && answer.headers.contains_key("x-content-type-options")
}

/// Checks what no stack may do. Returns, for each webhook, whether its event was delivered and its challenge answered.
async fn check(steps: &[Step], store: &Store, seen: &Seen) -> Vec<(bool, bool)> {
    let service = assemble(steps, store);
    let mut outcomes = Vec::new();
    for (path, method, asked, body) in [
        ("/shop/signed", "POST", "/shop/signed", SIGNED),
        ("/shop/get", "GET", "/shop/get?challenge=abc", ""),
        ("/shop/post", "POST", "/shop/post?validationToken=abc", "{}"),
        ("/shop/none", "POST", "/shop/none", SIGNED),
    ] {
        let is_event = path == "/shop/none";
        let stranger = ask(&service, request("POST", path, "{}", false)).await;
        assert!(stranger.rejection.is_some() && seen.take().is_empty(), "a stranger got through {steps:?}");
        let by_stranger = ask(&service, request(method, asked, body, false)).await;
        assert!(seen.take().is_empty(), "a stranger's challenge was delivered through {steps:?}");
        assert!(path != "/shop/signed" || !is_answered(&by_stranger), "{steps:?}");
        let answer = ask(&service, request(method, asked, body, true)).await;
        let delivered = seen.take().len();
        assert!(is_event || delivered == 0, "a challenge was delivered through {steps:?}: {path}");
        let event = ask(&service, request("POST", path, "{}", true)).await;
        assert_eq!(seen.take().len(), usize::from(event.status == 200), "{steps:?}");
        assert!(event.status == 200 || event.rejection.is_some());
        outcomes.push((event.status == 200, is_answered(&answer)));
    }
    outcomes
}

#[tokio::test]
async fn in_the_recommended_order_challenges_are_answered_and_events_delivered() {
    let (store, seen) = fixture().await;
    let expected = [(true, true), (true, true), (true, true), (true, false)];
    assert_eq!(check(&RIGHT, &store, &seen).await, expected);
}

#[tokio::test]
async fn without_a_layer_that_answers_challenges_no_event_is_delivered() {
    let (store, seen) = fixture().await;
    for (missing, refused) in [(Handshake, &["get", "post"][..]), (Challenge, &["signed"])] {
        let steps: Vec<_> = RIGHT.into_iter().filter(|step| *step != missing).collect();
        check(&steps, &store, &seen).await;
        for id in ["signed", "get", "post", "none"] {
            let answer = ask(&assemble(&steps, &store), request("POST", &format!("/shop/{id}"), "{}", true)).await;
            let expected = refused.contains(&id).then_some(Misassembled);
            assert_eq!(answer.rejection, expected, "{id} without {missing:?}");
        }
        seen.take();
    }
}

#[tokio::test]
async fn no_permutation_delivers_a_challenge_or_answers_a_stranger() {
    let (store, seen) = fixture().await;
    let mut permutations = vec![vec![]];
    for _ in 0..6 {
        permutations = permutations
            .into_iter()
            .flat_map(|some: Vec<Step>| {
                let inner = RIGHT.into_iter().filter(|step| !matches!(step, Route | Collect));
                let rest = inner.filter(|step| !some.contains(step)).collect::<Vec<_>>();
                rest.into_iter().map(move |step| [&some[..], &[step]].concat())
            })
            .collect();
    }
    assert_eq!(permutations.len(), 720);
    for steps in permutations {
        check(&[&[Route, Collect], &steps[..]].concat(), &store, &seen).await;
    }
}
