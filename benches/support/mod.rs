//! Stores and requests for the benchmarks.

#![allow(dead_code)] // each benchmark uses its own part

use bytes::Bytes;
use futures_util::FutureExt;
use http::Request;
use http_body_util::Full;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tower_webhook::config::{Key, WebhookKey};
use tower_webhook::source::{Feed, Source};
use tower_webhook::{Registry, Store, reflect};

pub const TOKEN: &str = "Bearer test_token_123";

/// A source that hands out its feed, so that a benchmark can drive it.
struct Handed(oneshot::Sender<Feed>);

impl Source for Handed {
    const NAME: &'static str = "benchmark";

    async fn run(self, feed: Feed) {
        let _ = self.0.send(feed);
    }
}

pub fn feed() -> (Store, Feed) {
    let (sender, mut receiver) = oneshot::channel();
    let (store, reflector) = reflect(Handed(sender), Registry::builtin());
    reflector.run().now_or_never().unwrap();
    (store, receiver.try_recv().unwrap())
}

/// A store with `webhooks` webhooks, a hundred in each namespace.
pub fn filled(webhooks: usize) -> (Store, Feed) {
    let (store, mut feed) = feed();
    // On a new thread, outside of the caller's runtime.
    std::thread::scope(|scope| scope.spawn(|| fill(&mut feed, webhooks, 0)).join().unwrap());
    (store, feed)
}

/// Replaces all values; with another stamp every value differs.
pub fn fill(feed: &mut Feed, webhooks: usize, stamp: usize) {
    let mut replacement = at_once(feed.replace());
    for n in 0..webhooks {
        at_once(replacement.put(Key::Webhook(key(n)), 1, value(stamp)));
    }
    at_once(feed.commit(replacement, 1));
}

/// Outside of a runtime nothing is compiled on another thread, and nothing waits.
pub fn at_once<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().unwrap()
}

pub fn key(n: usize) -> WebhookKey {
    WebhookKey::new(&format!("ns{}", n / 100), &format!("hook{n}")).unwrap()
}

pub fn path(n: usize) -> String {
    format!("/ns{}/hook{n}", n / 100)
}

pub fn value(stamp: usize) -> Bytes {
    format!(r#"{{"data_type":"json","module":"discard","authorization":"{TOKEN}","metadata":{stamp}}}"#).into()
}

pub fn request(path: &str, body: Bytes) -> Request<Full<Bytes>> {
    Request::post(path)
        .header("host", "localhost:8000")
        .header("authorization", TOKEN)
        .header("content-type", "application/json")
        .header("content-length", body.len())
        .header("user-agent", "GitHub-Hookshot/044aadd")
        .body(Full::new(body))
        .unwrap()
}

/// A JSON body of about `size` bytes that resembles a sender's.
pub fn json(bytes: usize) -> Bytes {
    let mut body = String::from(r#"{"action":"opened","items":["#);
    let mut n = 0;
    while body.len() + 60 < bytes {
        body.push_str(&format!(r#"{{"id":{n},"name":"item \"{n}\"","open":true}},"#));
        n += 1;
    }
    body.push_str(&format!(r#"{{"end":"{}"}}]}}"#, "x".repeat(bytes.saturating_sub(body.len() + 12))));
    body.into()
}

/// A runtime for timers. The measured work never waits for one.
pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}
