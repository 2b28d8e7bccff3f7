//! Each layer alone, and the whole receiver, without a network.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod support;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::net::SocketAddr;

use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{BatchSize, Bencher, BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::FutureExt;
use http::{Request, Response};
use tower::{Service, ServiceBuilder};
use tower_webhook::auth::{BasicAuth, Bearer, HeaderAuth, IpAllow, Proof, QueryAuth, Scheme};
use tower_webhook::config::DataType;
use tower_webhook::layers::{
    CheckPayloadLayer, CollectBodyLayer, LookupWebhookLayer, ProblemJsonLayer, RequireAuthLayer, RouteNamespaceLayer,
};
use tower_webhook::receiver;
use tower_webhook::request::{Collected, Head, Peer};

use crate::support::{filled, json, path, request, runtime};

#[derive(Clone)]
struct Inner;

impl<B> Service<Request<B>> for Inner {
    type Response = Response<()>;
    type Error = Infallible;
    type Future = Ready<Result<Response<()>, Infallible>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, req: Request<B>) -> Self::Future {
        drop(req);
        ready(Ok(Response::new(())))
    }
}

fn measure<S, B, R>(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, mut service: S, make: impl Fn() -> Request<B>)
where
    S: Service<Request<B>, Response = Response<R>, Error = Infallible>,
{
    group.bench_function(name, |b| {
        b.iter_batched(
            &make,
            |req| black_box(service.call(req).now_or_never().unwrap().unwrap().status()),
            BatchSize::SmallInput,
        );
    });
}

fn layers(c: &mut Criterion) {
    let runtime = runtime();
    let _context = runtime.enter();
    let (store, _feed) = filled(1_000);
    let head = || request(&path(7), Bytes::new());
    let mut group = c.benchmark_group("layer");

    measure(&mut group, "none", Inner, head);
    let route = RouteNamespaceLayer::from_path();
    measure(&mut group, "route", ServiceBuilder::new().layer(route.clone()).service(Inner), head);
    let lookup = LookupWebhookLayer::new(store);
    measure(&mut group, "route, lookup", ServiceBuilder::new().layer(route).layer(lookup).service(Inner), head);
    let bearer = RequireAuthLayer::new(Bearer::new("test_token_123").unwrap());
    measure(&mut group, "bearer", ServiceBuilder::new().layer(bearer.clone()).service(Inner), head);
    let refusing = || Request::post("/").body(()).unwrap();
    measure(&mut group, "bearer, refused", ServiceBuilder::new().layer(bearer).service(Inner), refusing);
    let body = json(4096);
    let collect = ServiceBuilder::new().layer(CollectBodyLayer::new()).service(Inner);
    measure(&mut group, "collect 4 KiB in one frame", collect, || request("/", body.clone()));
    signatures(&mut group);
    let check = ServiceBuilder::new().layer(CheckPayloadLayer::new(DataType::Json)).service(Inner);
    measure(&mut group, "check 4 KiB of JSON", check, || Request::new(Collected::new(body.clone())));
    group.finish();
}

/// The time that a guard takes for the head of a request that it lets in.
fn guards(c: &mut Criterion) {
    let runtime = runtime();
    let mut group = c.benchmark_group("guard");
    let from = |address: [u8; 4]| Peer::new(SocketAddr::from((address, 4711)));
    let mut request = Request::post("/?api_key=a%20key")
        .header("authorization", "Basic Y2k6czNjcmV0LXBhc3N3b3Jk")
        .header("x-api-key", "a key")
        .extension(from([10, 39, 15, 7]))
        .body(())
        .unwrap();
    let networks = (0..10_000_u32).map(|n| format!("10.{}.{}.0/28", n / 256, n % 256).parse().unwrap());
    let ip_allow = IpAllow::new(networks).unwrap();
    // Of `s3cret-password`, made with argon2-cffi of Python.
    let hash = "$argon2id$v=19$m=65536,t=3,p=4$ajWUR+o+MypLTjrX94uCuQ$AmmpoHnNGP79RNNy+zTm+XHbAvZYBTbtydvJXIR/ScE";
    let basic_auth = BasicAuth::new("ci", hash).unwrap();
    let check = |b: &mut Bencher<'_>, scheme: &dyn Fn(Head<'_>) -> bool, request: &Request<()>| {
        b.iter(|| assert!(scheme(black_box(Head::of(request)))));
    };
    let header = HeaderAuth::new("x-api-key", "a key").unwrap();
    group.bench_function("header_auth", |b| check(b, &|head| header.check_head(head).is_ok(), &request));
    let query = QueryAuth::new("api_key", "a key").unwrap();
    group.bench_function("query_auth", |b| check(b, &|head| query.check_head(head).is_ok(), &request));
    group.bench_function("ip_allow of 10,000 networks", |b| {
        check(b, &|head| ip_allow.check_head(head) == Ok(Proof::Complete), &request);
    });
    request.extensions_mut().insert(from([10, 39, 15, 16]));
    group.bench_function("ip_allow of 10,000 networks, refused", |b| {
        check(b, &|head| ip_allow.check_head(head).is_err(), &request);
    });
    runtime.block_on(basic_auth.check_call(Head::of(&request))).unwrap();
    group.bench_function("basic_auth by argon2id, known", |b| {
        check(b, &|head| matches!(basic_auth.check_head(head), Ok(Proof::Secret(_))), &request);
    });
    group.finish();
}

/// A signature of HMAC-SHA256 over the body: the layers that judge it, and one that collects the body.
#[cfg(feature = "signature")]
fn signatures(group: &mut BenchmarkGroup<'_, WallTime>) {
    use tower_webhook::auth::Signature;
    use tower_webhook::layers::VerifyBodyLayer;

    for (name, size) in [("signature, 250 B", 250), ("signature, 4 KiB", 4096)] {
        let body = json(size);
        let secret = "a secret of thirty-two characters";
        let mac = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
        let mac = aws_lc_rs::hmac::sign(&mac, &body);
        let hex: String = mac.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let github = Signature::preset("github", secret).unwrap();
        let service = ServiceBuilder::new()
            .layer(RequireAuthLayer::new(github).verify_body_follows())
            .layer(CollectBodyLayer::new())
            .layer(VerifyBodyLayer::new())
            .service(Inner);
        let make = || {
            let mut req = request("/", body.clone());
            req.headers_mut().insert("x-hub-signature-256", format!("sha256={hex}").parse().unwrap());
            req
        };
        assert_eq!(service.clone().call(make()).now_or_never().unwrap().unwrap().status(), 200);
        measure(group, name, service, make);
    }
}

#[cfg(not(feature = "signature"))]
fn signatures(_: &mut BenchmarkGroup<'_, WallTime>) {}

fn whole(c: &mut Criterion) {
    let runtime = runtime();
    let _context = runtime.enter();
    let mut group = c.benchmark_group("receiver");
    for webhooks in [3, 1_000_000] {
        let (store, _feed) = filled(webhooks);
        for (name, size) in [("250 B", 250), ("4 KiB", 4096)] {
            let body = json(size);
            group.throughput(Throughput::Bytes(size as u64));
            let make = || request(&path(webhooks / 2), body.clone());
            measure(&mut group, &format!("{name}, {webhooks} webhooks"), receiver(store.clone()), make);
        }
        let refused = || Request::post(path(0)).body(http_body_util::Full::new(Bytes::new())).unwrap();
        measure(&mut group, &format!("401, {webhooks} webhooks"), receiver(store.clone()), refused);
    }
    let problem = ServiceBuilder::new().layer(ProblemJsonLayer::new()).service(receiver(filled(3).0));
    measure(&mut group, "404", problem, || request("/nothing/there", Bytes::new()));
    group.finish();
}

criterion_group!(benches, layers, guards, whole);
criterion_main!(benches);
