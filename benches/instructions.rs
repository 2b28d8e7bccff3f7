//! `instructions CASE COUNT` repeats one kind of work COUNT times. `instructions.py` counts its instructions with callgrind.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod support;

use std::convert::Infallible;
use std::hint::black_box;
use std::process::ExitCode;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::Full;
use tower::Service;
use tower_webhook::config::{DataType, Key, Target, WebhookInfo};
use tower_webhook::event::Delivery;
use tower_webhook::module::{Lines, Log, LogConfig, Module};
use tower_webhook::{Change, receiver};

use crate::support::{at_once, feed, filled, json, key, path, request, runtime};

const WEBHOOKS: usize = 1_000;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    // Cargo calls it with flags and without a case.
    let [_, case, count] = args.as_slice() else { return ExitCode::SUCCESS };
    if case.starts_with("--") {
        return ExitCode::SUCCESS;
    }
    let count: usize = count.parse().unwrap();
    let runtime = runtime();
    let _context = runtime.enter();
    let (store, _feed) = filled(WEBHOOKS);
    let (small, large) = (json(250), json(4096));
    match case.as_str() {
        // Its count is subtracted from the others: it only makes a request and drops it.
        "request" => (0..count).for_each(|_| drop(black_box(request(&path(7), small.clone())))),
        "accepted" => answer(count, receiver(store), 200, || request(&path(7), small.clone())),
        "accepted-4KiB" => answer(count, receiver(store), 200, || request(&path(7), large.clone())),
        "refused-401" => answer(count, receiver(store), 401, || {
            let mut request = request(&path(7), small.clone());
            request.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static("Bearer wrong"));
            request
        }),
        "refused-404" => answer(count, receiver(store), 404, || request(&path(WEBHOOKS), small.clone())),
        // With its writing thread, which is woken for each line.
        "log" => {
            let log = Log::new(LogConfig::default(), Lines::new(std::io::sink()));
            for _ in 0..count {
                let info = WebhookInfo::new(key(7), DataType::Json);
                runtime.block_on(log.deliver(Delivery::new(info, HeaderMap::new(), small.clone()))).unwrap();
            }
        }
        // All keys in turn: their places in the map depend on a random seed.
        "lookup" => {
            let targets: Vec<_> = (0..WEBHOOKS).map(key).map(|key| Target::from(&key)).collect();
            for target in targets.iter().cycle().take(count) {
                assert!(store.read(|snapshot| snapshot.webhook(black_box(target)).is_some()));
            }
        }
        // The values within the limits that take longest to compile.
        "compile-names" => compile(count, &names()),
        "compile-fields" => compile(count, &fields()),
        unknown => {
            eprintln!("found the case {unknown:?}, expected one of those in instructions.py");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn answer<S, B>(count: usize, mut service: S, status: u16, make: impl Fn() -> Request<Full<Bytes>>)
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible>,
{
    for _ in 0..count {
        let answer = service.call(make()).now_or_never().unwrap().unwrap();
        assert_eq!(answer.status(), status);
    }
}

/// Compiles the value, each time with another number instead of `STAMP`.
fn compile(count: usize, value: &str) {
    // On a thread outside of the runtime, so that compiling does not move to a blocking thread.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (_store, mut feed) = feed();
            for revision in 1..=count {
                let value = Bytes::from(value.replace("STAMP", &revision.to_string()));
                assert!((490_000..512 << 10).contains(&value.len()));
                at_once(feed.apply(revision as u64, [Change { key: Key::Webhook(key(0)), value: Some(value) }]));
            }
        });
    });
}

/// Blank texts whose names have many words, each of which could mean a secret.
fn names() -> String {
    let names: Vec<_> = (0..490).map(|n| format!(r#""{}a{n}b":" ""#, "s_k_e_y_p_".repeat(100))).collect();
    format!(r#"{{"module":"discard","module-config":{{{}}},"metadata":STAMP}}"#, names.join(","))
}

/// As many fields as a value may hold.
fn fields() -> String {
    let fields: Vec<_> = (0..19_900).map(|n| format!(r#""x-{n}":"{:013}""#, 0)).collect();
    format!(r#"{{"module":"discard","metadata":{{{},"stamp":STAMP}}}}"#, fields.join(","))
}
