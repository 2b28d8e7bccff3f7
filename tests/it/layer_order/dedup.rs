//! A webhook with `dedup`, in a stack that is wrongly assembled.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response};
use tower::ServiceBuilder;
use tower::util::BoxCloneSyncService;
use tower_webhook::Capabilities;
use tower_webhook::RejectionKind;
use tower_webhook::RejectionKind::*;
use tower_webhook::Store;
use tower_webhook::dedup::{Claims, DedupRule};
use tower_webhook::event::dispatch_answer;
use tower_webhook::layers::{
    CheckPayloadLayer, CollectBodyLayer, DedupLayer, Dispatch, FinishLayer, LookupWebhookLayer, RequireAuthLayer,
    RouteNamespaceLayer, VerifyBodyLayer,
};
use tower_webhook::request::Collected;
use tower_webhook::request::ResponseBody;

use super::{Boxed, boxed};
use crate::support::modules::{Gate, Seen};
use crate::support::schemes::{Checksum, HeaderKey};
use crate::support::{ask, store_of};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Route,
    Lookup,
    Auth,
    Collect,
    Verify,
    Check,
    Dedup,
    Finish,
}

use Step::*;

/// The recommended order, stated independently.
const RIGHT: [Step; 7] = [Route, Lookup, Auth, Collect, Verify, Check, Dedup];

/// The layers of `steps`, the outermost first, before `Dispatch`; with a new store of earlier events.
fn assemble(steps: &[Step], store: &Store) -> Boxed {
    assemble_with(steps, store, &FinishLayer::new())
}

fn assemble_with(steps: &[Step], store: &Store, finish: &FinishLayer) -> Boxed {
    let claims = Claims::in_memory();
    steps.iter().rev().fold(BoxCloneSyncService::new(Dispatch::new()), |inner, step| match step {
        Route => boxed(RouteNamespaceLayer::from_path(), inner),
        Lookup => boxed(LookupWebhookLayer::new(store.clone()), inner),
        Auth => boxed(RequireAuthLayer::from_webhook().verify_body_follows(), inner),
        Collect => boxed(CollectBodyLayer::new(), inner),
        Verify => boxed(VerifyBodyLayer::new(), inner),
        Check => boxed(CheckPayloadLayer::from_webhook(), inner),
        Dedup => boxed(DedupLayer::new(claims.clone()), inner),
        Finish => boxed(finish.clone(), inner),
    })
}

async fn fixture() -> (Store, Seen) {
    let seen = Seen::default();
    let registry =
        seen.registry().capable_of(Capabilities::none().deduplicating(true)).scheme::<HeaderKey>().scheme::<Checksum>();
    let webhooks = [
        ("shop", "key", r#"{"module": "capture", "header_key": "k", "dedup": {"header": "x-id"}}"#),
        ("shop", "checksum", r#"{"module": "capture", "checksum": 7, "dedup": {"header": "x-id"}}"#),
        ("shop", "other", r#"{"module": "capture", "dedup": {"pointer": "/id"}}"#),
        ("shop", "each", r#"{"module": "capture"}"#),
    ];
    (store_of(registry, &webhooks).await, seen)
}

fn event(path: &str, knows: bool) -> Request<Collected> {
    let body: &[u8] = b"{}";
    let request = Request::post(path)
        .header("x-id", "1")
        .header("x-checksum", Checksum::sign(if knows { 7 } else { 8 }, body))
        .header("x-key", if knows { "k" } else { "wrong" });
    request.body(Collected::new(Bytes::from_static(b"{}"))).unwrap()
}

/// Sends an event without the credential, then the same event twice with it, and checks that the stack makes none of
/// the forbidden mistakes. Returns the refusals of the latter two.
async fn check(steps: &[Step], store: &Store, seen: &Seen, path: &str) -> [Option<RejectionKind>; 2] {
    let service = assemble(steps, store);
    let stranger = ask(&service, event(path, false)).await;
    assert!(stranger.rejection.is_some(), "a stranger got through {steps:?}");
    assert_eq!(seen.take().len(), 0, "{steps:?}");
    let first = ask(&service, event(path, true)).await;
    assert!(!first.headers.contains_key("x-duplicate"), "a stranger has used up the id: {steps:?}");
    let second = ask(&service, event(path, true)).await;
    assert_eq!(seen.take().len(), usize::from(first.status == 200), "{steps:?}");
    assert_eq!(second.status, first.status, "{steps:?}");
    if first.status == 200 {
        assert_eq!(second.header("x-duplicate"), "true", "{steps:?}");
        assert_eq!(second.header("x-event-id"), first.header("x-event-id"));
    }
    [first.rejection, second.rejection]
}

#[tokio::test]
async fn in_the_recommended_order_an_event_is_delivered_once() {
    let (store, seen) = fixture().await;
    for path in ["/shop/key", "/shop/checksum"] {
        assert_eq!(check(&RIGHT, &store, &seen, path).await, [None, None]);
    }
}

#[tokio::test]
async fn no_permutation_delivers_twice_or_to_a_stranger() {
    let (store, seen) = fixture().await;
    let mut permutations = vec![Vec::new()];
    for _ in RIGHT {
        permutations = permutations
            .into_iter()
            .flat_map(|some: Vec<Step>| {
                let rest = RIGHT.into_iter().filter(|step| !some.contains(step)).collect::<Vec<_>>();
                rest.into_iter().map(move |step| [&some[..], &[step]].concat())
            })
            .collect();
    }
    assert_eq!(permutations.len(), 5040);
    for steps in &permutations {
        let at = |step| steps.iter().position(|other| *other == step).unwrap();
        let is_right =
            at(Route) < at(Lookup) && at(Lookup) < at(Auth) && at(Lookup) < at(Check) && at(Auth) < at(Dedup);
        // `Verify` needs a permit, and lets no proof by the body stay open.
        for (path, is_right) in [
            ("/shop/key", is_right && at(Auth) < at(Verify)),
            ("/shop/checksum", is_right && at(Auth) < at(Verify) && at(Verify) < at(Dedup)),
        ] {
            let refused = check(steps, &store, &seen, path).await;
            let expected = if is_right { None } else { Some(Misassembled) };
            assert_eq!(refused, [expected; 2], "{steps:?} {path}");
        }
    }
}

/// If a hang-up of the sender does not end the processing, the id stays claimed; if it does, nothing continues.
#[tokio::test]
async fn wherever_finish_stands_an_event_is_not_processed_twice_at_a_time() {
    for at in 0..=RIGHT.len() {
        let mut steps = RIGHT.to_vec();
        steps.insert(at, Finish);
        let (gate, finish) = (Gate::default(), FinishLayer::new());
        let webhook = r#"{"module": "gate", "dedup": {"header": "x-id"}}"#;
        let registry = gate.registry().capable_of(Capabilities::none().deduplicating(true));
        let service = assemble_with(&steps, &store_of(registry, &[("shop", "key", webhook)]).await, &finish);
        let first = tokio::spawn({
            let service = service.clone();
            async move { ask(&service, event("/shop/key", true)).await }
        });
        gate.was_called(1).await;
        first.abort();
        assert!(first.await.is_err());
        let is_before_dedup = at < RIGHT.len();
        assert_eq!(finish.remainders().count(), usize::from(is_before_dedup), "{steps:?}");
        let second = tokio::spawn(async move { ask(&service, event("/shop/key", true)).await });
        if !is_before_dedup {
            gate.was_called(2).await;
        }
        gate.take_all();
        let second = second.await.unwrap();
        match is_before_dedup {
            true => assert_eq!((second.rejection, gate.calls()), (Some(InProgress), 1), "{steps:?}"),
            false => assert_eq!((second.rejection, gate.calls()), (None, 2), "{steps:?}"),
        }
    }
}

#[tokio::test]
async fn a_layer_that_is_missing_is_named() {
    let (store, seen) = fixture().await;
    for missing in [Route, Lookup, Auth, Check, Dedup] {
        let steps: Vec<_> = RIGHT.into_iter().filter(|step| *step != missing).collect();
        let service = assemble(&steps, &store);
        let answer = ask(&service, event("/shop/key", true)).await;
        assert_eq!(answer.rejection, Some(Misassembled), "without {missing:?}");
    }
    assert_eq!(seen.count(), 0);
    let without = assemble(&RIGHT[..6], &store);
    ask(&without, event("/shop/each", true)).await.assert_accepted();
}

#[tokio::test]
async fn a_proof_that_waits_for_the_body_must_be_given_before() {
    let own = DedupLayer::new(Claims::in_memory()).rule("own", DedupRule::header("x-id").unwrap());
    let auth = RequireAuthLayer::new(Checksum::new(7)).verify_body_follows();
    let inner =
        tower::service_fn(async |_: Request<Collected>| Ok::<_, Infallible>(Response::<ResponseBody>::default()));
    let early =
        ServiceBuilder::new().layer(auth.clone()).layer(own.clone()).layer(VerifyBodyLayer::new()).service(inner);
    assert_eq!(ask(&early, event("/", true)).await.rejection, Some(Misassembled));
    let late = ServiceBuilder::new().layer(auth).layer(VerifyBodyLayer::new()).layer(own).service(inner);
    assert_eq!(ask(&late, event("/", true)).await.rejection, None);
}

#[tokio::test]
async fn twice_is_as_good_as_once() {
    let (store, seen) = fixture().await;
    let steps = [&RIGHT[..], &[Dedup]].concat();
    assert_eq!(check(&steps, &store, &seen, "/shop/key").await, [None, None]);
}

#[tokio::test]
async fn deduplication_by_one_webhooks_rule_does_not_count_for_another() {
    let (store, seen) = fixture().await;
    let fixed = |id| RouteNamespaceLayer::fixed("shop", id).unwrap();
    let guard =
        || ServiceBuilder::new().layer(LookupWebhookLayer::new(store.clone())).layer(RequireAuthLayer::from_webhook());
    let service = ServiceBuilder::new()
        .layer(fixed("key"))
        .layer(guard().into_inner())
        .layer(DedupLayer::new(Claims::in_memory()))
        .layer(fixed("other"))
        .layer(guard().into_inner())
        .layer(CheckPayloadLayer::from_webhook())
        .service(Dispatch::new());
    assert_eq!(ask(&service, event("/", true)).await.rejection, Some(Misassembled));
    assert_eq!(seen.count(), 0);
}

#[tokio::test]
async fn a_rule_of_the_applications_own_is_not_the_webhooks() {
    let (store, seen) = fixture().await;
    let own = DedupLayer::new(Claims::in_memory()).answer_duplicates(dispatch_answer);
    let own = own.rule("own", DedupRule::header("x-id").unwrap());
    let service = boxed(own, BoxCloneSyncService::new(Dispatch::new()));
    let service = [Route, Lookup, Auth, Check].into_iter().rev().fold(service, |inner, step| match step {
        Route => boxed(RouteNamespaceLayer::from_path(), inner),
        Lookup => boxed(LookupWebhookLayer::new(store.clone()), inner),
        Auth => boxed(RequireAuthLayer::from_webhook(), inner),
        _ => boxed(CheckPayloadLayer::from_webhook(), inner),
    });
    assert_eq!(ask(&service, event("/shop/key", true)).await.rejection, Some(Misassembled));
    assert_eq!(seen.count(), 0);
    for duplicate in [false, true] {
        let answer = ask(&service, event("/shop/each", true)).await;
        answer.assert_accepted();
        assert_eq!(answer.headers.contains_key("x-duplicate"), duplicate);
    }
    assert_eq!(seen.count(), 1);
}
