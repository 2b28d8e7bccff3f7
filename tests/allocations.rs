//! Counts the allocations of a request.
//!
//! The numbers are a promise: a change that allocates more must change them here.

#![allow(missing_docs, unsafe_code, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use futures_util::FutureExt;
use http::Request;
use http_body_util::Full;
use tower::Service;
use tower_webhook::config::Target;
use tower_webhook::source::FixedSource;
use tower_webhook::{Registry, Store, receiver, reflect};

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn counted<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = COUNT.with(Cell::get);
    let result = work();
    (COUNT.with(Cell::get) - before, result)
}

fn store() -> Store {
    let json = r#"{"module": "discard", "authorization": "Bearer test_token_123"}"#;
    let source = FixedSource::new().webhook("default", "test", json).unwrap();
    let (store, reflector) = reflect(source, Registry::builtin());
    reflector.run().now_or_never().unwrap();
    store
}

fn request(path: &str, authorization: &str, body: &'static str) -> Request<Full<Bytes>> {
    Request::post(path).header("authorization", authorization).body(Full::new(Bytes::from(body))).unwrap()
}

/// The allocations of the second request: the first one fills caches of the thread.
fn allocations(path: &str, authorization: &str, body: &'static str, status: u16) -> usize {
    let mut receiver = receiver(store());
    let mut last = 0;
    for _ in 0..2 {
        let request = request(path, authorization, body);
        let (count, answer) = counted(|| receiver.call(request).now_or_never().unwrap().unwrap());
        assert_eq!(answer.status(), status);
        last = count;
    }
    last
}

#[test]
fn a_lookup_allocates_nothing() {
    let snapshot = store().snapshot();
    let (count, found) = counted(|| {
        let target = Target::new("default", "test").unwrap();
        snapshot.webhook(&target).is_some()
    });
    assert!(found);
    assert_eq!(count, 0);
}

#[test]
fn a_request_allocates_so_often() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _context = runtime.enter();
    assert_eq!(allocations("/test", "Bearer test_token_123", r#"{"hello": "world"}"#, 200), 10);
    assert_eq!(allocations("/test", "Bearer wrong", "{}", 401), 9);
    assert_eq!(allocations("/nothing", "Bearer wrong", "{}", 404), 9);
}

#[test]
fn an_accepted_request_allocates_no_more_while_refused_ones_are_logged() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _context = runtime.enter();
    let subscriber = tracing_subscriber::fmt().with_writer(std::io::sink).finish();
    tracing::subscriber::with_default(subscriber, || {
        assert_eq!(allocations("/test", "Bearer test_token_123", r#"{"hello": "world"}"#, 200), 10);
    });
}
