//! Every sequence of layers is built at run time, and must answer exactly as the evidence allows.

use bytes::Bytes;
use http::Request;
use proptest::prelude::*;
use tower::Service;
use tower::util::BoxCloneSyncService;
use tower_webhook::RejectionKind;
use tower_webhook::RejectionKind::*;
use tower_webhook::Store;
use tower_webhook::layers::{
    CallAuthLayer, CheckPayloadLayer, CollectBodyLayer, Dispatch, FinishLayer, LookupWebhookLayer, RequireAuthLayer,
    RouteNamespaceLayer, VerifyBodyLayer,
};
use tower_webhook::request::Collected;

use super::{Boxed, boxed};
use crate::support::modules::Seen;
use crate::support::schemes::{Call as CallScheme, Checksum, HeaderKey};
use crate::support::{Answer, store_of, within};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Route,
    Lookup,
    Auth,
    /// Like `Auth`, but without the promise that `Call` and `Verify` follow.
    AuthAlone,
    Call,
    Collect,
    Verify,
    Check,
    /// It needs nothing and proves nothing.
    Finish,
}

use Step::*;

/// The recommended order, stated independently.
const RIGHT: [Step; 7] = [Route, Lookup, Auth, Call, Collect, Verify, Check];

const STEPS: [Step; 9] = [Route, Lookup, Auth, AuthAlone, Call, Collect, Verify, Check, Finish];

impl Step {
    fn put_before(self, inner: Boxed, store: &Store) -> Boxed {
        match self {
            Route => boxed(RouteNamespaceLayer::from_path(), inner),
            Lookup => boxed(LookupWebhookLayer::new(store.clone()), inner),
            Auth => boxed(RequireAuthLayer::from_webhook().call_auth_follows().verify_body_follows(), inner),
            AuthAlone => boxed(RequireAuthLayer::from_webhook(), inner),
            Call => boxed(CallAuthLayer::new(), inner),
            Collect => boxed(CollectBodyLayer::new(), inner),
            Verify => boxed(VerifyBodyLayer::new(), inner),
            Check => boxed(CheckPayloadLayer::from_webhook(), inner),
            Finish => boxed(FinishLayer::new(), inner),
        }
    }
}

/// The layers of `steps`, the outermost first, before `Dispatch`.
fn assemble(steps: &[Step], store: &Store) -> Boxed {
    steps.iter().rev().fold(BoxCloneSyncService::new(Dispatch::new()), |inner, step| step.put_before(inner, store))
}

/// A request for one of the five webhooks.
#[derive(Clone, Copy, Debug)]
struct Ask {
    /// Its id: guarded by a header, by the body's checksum, by a call, by a call and then the body, or open.
    webhook: &'static str,
    has_credential: bool,
    json: bool,
}

impl Ask {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for webhook in ["call", "both"] {
            all.extend([true, false].map(|has_credential| Self { webhook, has_credential, json: true }));
        }
        for webhook in ["key", "checksum", "open"] {
            for has_credential in [true, false] {
                all.extend([true, false].map(|json| Self { webhook, has_credential, json }));
            }
        }
        all
    }

    fn request(self) -> Request<Collected> {
        let body: &'static [u8] = if self.json { b"{}" } else { b"{" };
        // A sender without the credential signs with another secret.
        let checksum = Checksum::sign(if self.has_credential { 7 } else { 8 }, body);
        let request = Request::post(format!("/shop/{}", self.webhook)).header("x-checksum", checksum);
        let request = request.header(
            "x-call",
            if !self.has_credential {
                "wrong"
            } else if self.webhook == "both" {
                "body"
            } else {
                "right"
            },
        );
        let request = if self.has_credential { request.header("x-key", "k") } else { request };
        request.body(Collected::new(Bytes::from_static(body))).unwrap()
    }
}

/// The model: computes the answer of a stack from what the request has proved so far.
fn model(steps: &[Step], ask: Ask) -> Result<(), RejectionKind> {
    let (mut target, mut matched, mut permit, mut checked) = (false, false, false, false);
    // Whether a proof by a call or by the body is still owed, and whether it is owed to the guards of the webhook that
    // is matched now.
    let (mut call, mut body, mut for_this) = (false, false, false);
    let need = |evidence: bool| if evidence { Ok(()) } else { Err(Misassembled) };
    for step in steps {
        match step {
            Route => (target, matched, permit, checked, for_this) = (true, false, false, false, false),
            Lookup => {
                need(target)?;
                (matched, permit, checked, for_this) = (true, false, false, false);
            }
            Auth | AuthAlone => {
                need(matched)?;
                match ask.webhook {
                    "key" if !ask.has_credential => return Err(Unauthenticated),
                    "checksum" | "call" | "both" if *step == AuthAlone => return Err(Misassembled),
                    "checksum" => (body, for_this) = (true, true),
                    "call" | "both" => (call, for_this) = (true, true),
                    _ => permit = true,
                }
            }
            Collect | Finish => {}
            Call => {
                need(permit || ((call || body) && for_this))?;
                if call && !ask.has_credential {
                    return Err(Unauthenticated);
                }
                let was_owed = call || body;
                body |= call && ask.webhook == "both";
                call = false;
                if !body {
                    permit |= was_owed && for_this;
                    for_this = false;
                }
            }
            Verify => {
                need(!call)?;
                if body && !ask.has_credential {
                    return Err(Unauthenticated);
                }
                permit |= body && for_this;
                (body, for_this) = (false, false);
                need(permit)?;
            }
            Check => {
                need(matched)?;
                if !ask.json {
                    return Err(MalformedPayload);
                }
                checked = true;
            }
        }
    }
    need(permit && !call && !body && matched && checked)
}

/// States without the model: if this holds, a stack must never deliver an event of a sender without the credential.
fn is_sound(steps: &[Step]) -> bool {
    let last = |step| steps.iter().rposition(|other| *other == step);
    match (last(Route), last(Lookup), last(Auth).max(last(AuthAlone)), last(Check)) {
        (Some(route), Some(lookup), Some(auth), Some(check)) => route < lookup && lookup < auth && lookup < check,
        _ => false,
    }
}

/// The same for webhooks that need a call, and for the one that needs the body after it.
fn is_confirmed(steps: &[Step], webhook: &str) -> bool {
    let behind =
        |steps: &'_ [Step], step| steps.iter().position(|other| *other == step).map(|at| steps[at + 1..].to_vec());
    let last_auth = steps.iter().rposition(|step| *step == Auth);
    let behind_call = last_auth.and_then(|auth| behind(&steps[auth..], Call));
    match webhook {
        "call" => behind_call.is_some(),
        "both" => behind_call.is_some_and(|steps| steps.contains(&Verify)),
        _ => true,
    }
}

async fn check(steps: &[Step], store: &Store, seen: &Seen) {
    let service = assemble(steps, store);
    for ask in Ask::all() {
        let mut service = service.clone();
        std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
        let answer = Answer::of(within("an answer", service.call(ask.request())).await.unwrap()).await;
        let delivered = seen.take().len();
        assert_eq!(delivered, usize::from(answer.status == 200), "{steps:?} {ask:?}");

        if delivered == 1 {
            assert!(is_sound(steps), "delivered through {steps:?}: {ask:?}");
            assert!(is_confirmed(steps, ask.webhook), "delivered through {steps:?}: {ask:?}");
            assert!(ask.has_credential || ask.webhook == "open", "a stranger got through {steps:?}: {ask:?}");
        }
        match model(steps, ask) {
            Ok(()) => assert_eq!(answer.status, 200, "{steps:?} {ask:?}"),
            Err(kind) => {
                assert_eq!(answer.rejection, Some(kind), "{steps:?} {ask:?}");
                assert_eq!(answer.status, kind.status());
            }
        }
    }
}

async fn fixture() -> (Store, Seen) {
    let seen = Seen::default();
    let registry = seen.registry().scheme::<HeaderKey>().scheme::<Checksum>().scheme::<CallScheme>();
    let webhooks = [
        ("shop", "key", r#"{"module": "capture", "header_key": "k"}"#),
        ("shop", "checksum", r#"{"module": "capture", "checksum": 7}"#),
        ("shop", "call", r#"{"module": "capture", "call": true}"#),
        ("shop", "both", r#"{"module": "capture", "call": true}"#),
        ("shop", "open", r#"{"module": "capture"}"#),
    ];
    (store_of(registry, &webhooks).await, seen)
}

#[tokio::test]
async fn the_recommended_order_delivers_for_senders_with_the_credential() {
    let (store, seen) = fixture().await;
    let service = assemble(&RIGHT, &store);
    for ask in Ask::all() {
        let answer = crate::support::ask(&service, ask.request()).await;
        let expected = match ask {
            Ask { has_credential: false, webhook: "key" | "checksum" | "call" | "both", .. } => 401,
            Ask { json: false, .. } => 400,
            _ => 200,
        };
        assert_eq!(answer.status, expected, "{ask:?}");
    }
    assert_eq!(seen.count(), 6);
}

/// Omissions, permutations and repetitions of layers.
#[tokio::test]
async fn every_sequence_of_up_to_four_layers_refuses_or_is_right() {
    let (store, seen) = fixture().await;
    let mut sequences = vec![Vec::new()];
    let mut from = 0;
    for _ in 0..=4 {
        let until = sequences.len();
        for at in from..until {
            check(&sequences[at], &store, &seen).await;
            if sequences[at].len() < 4 {
                let longer = STEPS.map(|step| [&sequences[at][..], &[step]].concat());
                sequences.extend(longer);
            }
        }
        from = until;
    }
    assert_eq!(sequences.len(), 1 + 9 + 81 + 729 + 6561);
}

#[tokio::test]
async fn every_permutation_of_all_layers_refuses_or_is_right() {
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
        check(steps, &store, &seen).await;
    }
}

/// All layers that can come between the three whose order matters.
#[tokio::test]
async fn the_right_order_with_anything_added_refuses_or_is_right() {
    let (store, seen) = fixture().await;
    for first in STEPS {
        for second in STEPS {
            for third in STEPS {
                check(&[Route, first, Lookup, second, Auth, third, Check], &store, &seen).await;
                check(&[Route, Lookup, Auth, first, Call, second, third, Check], &store, &seen).await;
                check(&[Route, Lookup, Auth, first, second, third, Check], &store, &seen).await;
                check(&[Route, Lookup, first, second, third, Check], &store, &seen).await;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_long_sequence_refuses_or_is_right(steps in prop::collection::vec(prop::sample::select(&STEPS[..]), 5..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (store, seen) = fixture().await;
            check(&steps, &store, &seen).await;
        });
    }
}
