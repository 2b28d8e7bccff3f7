//! Compile-time errors: layers that need the collected body, where it has not been collected.

use std::marker::PhantomData;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::{Layer, Service};
use tower_webhook::dedup::Claims;
use tower_webhook::layers::{
    CallAuthLayer, CheckPayloadLayer, CollectBodyLayer, DedupLayer, Dispatch, LookupWebhookLayer, RequireAuthLayer,
    RouteNamespaceLayer, VerifyBodyLayer,
};
use tower_webhook::request::Collected;

use crate::support::store;

struct Probe<S, R>(PhantomData<(S, R)>);

trait Otherwise {
    const SERVES: bool = false;
}

impl<S, R> Otherwise for Probe<S, R> {}

// An inherent item takes precedence over one of a trait if its bounds hold.
impl<S: Service<R>, R> Probe<S, R> {
    const SERVES: bool = true;
}

/// Whether a concrete service accepts a request with this body.
macro_rules! serves {
    ($service:ty, $body:ty) => {
        <Probe<$service, Request<$body>>>::SERVES
    };
}

type After<L, S> = <L as Layer<S>>::Service;
type Checked = After<CheckPayloadLayer, Dispatch>;
type Verified = After<VerifyBodyLayer, Dispatch>;
type Gathered<S> = After<CollectBodyLayer, S>;
type Raw = Full<Bytes>;

#[test]
fn layers_that_need_the_body_do_not_compile_without_it() {
    assert!(!serves!(Dispatch, Raw));
    assert!(!serves!(Checked, Raw));
    assert!(!serves!(Verified, Raw));
    assert!(!serves!(After<RequireAuthLayer, Dispatch>, Raw));
    assert!(!serves!(After<LookupWebhookLayer, After<RequireAuthLayer, Verified>>, Raw));
    assert!(!serves!(After<RouteNamespaceLayer, After<LookupWebhookLayer, Dispatch>>, Raw));
    assert!(!serves!(After<DedupLayer, Dispatch>, Raw));
    // The body is collected too late.
    assert!(!serves!(After<VerifyBodyLayer, Gathered<Dispatch>>, Raw));
    assert!(!serves!(After<CheckPayloadLayer, Gathered<Dispatch>>, Raw));
    assert!(!serves!(After<CheckPayloadLayer, After<RequireAuthLayer, Gathered<Verified>>>, Raw));
}

#[test]
fn the_same_layers_compile_behind_collect_body() {
    assert!(serves!(Gathered<Dispatch>, Raw));
    assert!(serves!(Gathered<Checked>, Raw));
    assert!(serves!(Gathered<Verified>, Raw));
    assert!(serves!(Gathered<After<DedupLayer, Dispatch>>, Raw));
    assert!(serves!(After<RequireAuthLayer, Gathered<Verified>>, Raw));
    assert!(serves!(After<CheckPayloadLayer, Gathered<Dispatch>>, Collected));
    assert!(serves!(tower_webhook::Receiver, Raw));
}

#[tokio::test]
async fn every_service_can_be_cloned_sent_and_shared() {
    fn check<T: Clone + Send + Sync + std::fmt::Debug + 'static>(_: T) {}
    let store = store().await;
    check(tower_webhook::receiver(store.clone()));
    check(LookupWebhookLayer::new(store.clone()));
    check(RequireAuthLayer::from_webhook().layer(Dispatch::new()));
    check(CallAuthLayer::new().layer(Dispatch::new()));
    check(DedupLayer::new(Claims::in_memory()).layer(Dispatch::new()));
    check(store);
}
