//! The cost of a change of the configuration: of one key, and of all.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod support;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tower_webhook::Change;
use tower_webhook::config::Key;

use crate::support::{at_once, fill, filled, key, value};

fn reload(c: &mut Criterion) {
    let mut group = c.benchmark_group("reload");
    group.sample_size(10);
    for webhooks in [3, 1_000, 100_000, 1_000_000] {
        let (_store, mut feed) = filled(webhooks);
        let mut stamp = 1;
        group.bench_function(BenchmarkId::new("one key", webhooks), |b| {
            b.iter(|| {
                stamp += 1;
                let key = Key::Webhook(key(stamp % webhooks));
                at_once(feed.apply(stamp as u64, [Change { key, value: Some(value(stamp)) }]));
            });
        });
    }
    for webhooks in [1_000, 25_000] {
        let (_store, mut feed) = filled(webhooks);
        let mut stamp = 1;
        group.bench_function(BenchmarkId::new("all keys, all changed", webhooks), |b| {
            b.iter(|| {
                stamp += 1;
                fill(&mut feed, webhooks, stamp);
            });
        });
        group.bench_function(BenchmarkId::new("all keys, none changed", webhooks), |b| {
            b.iter(|| fill(&mut feed, webhooks, stamp));
        });
    }
    group.finish();
}

criterion_group!(benches, reload);
criterion_main!(benches);
