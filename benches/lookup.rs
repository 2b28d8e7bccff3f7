//! The lookup of one webhook among a thousand and among a million, with and without changes meanwhile.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod support;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tower_webhook::Change;
use tower_webhook::config::{Key, Target};

use crate::support::{at_once, filled, key, value};

fn lookup(c: &mut Criterion) {
    let mut group = c.benchmark_group("lookup");
    for webhooks in [1_000, 100_000, 1_000_000] {
        let (store, mut feed) = filled(webhooks);
        let targets: Vec<_> = (0..1024)
            .map(|n| {
                let key = key(n * 7919 % webhooks);
                Target::new(key.namespace(), key.id()).unwrap()
            })
            .collect();

        let mut at = 0;
        let snapshot = store.snapshot();
        group.bench_function(BenchmarkId::new("hit", webhooks), |b| {
            b.iter(|| {
                at = (at + 1) % targets.len();
                black_box(snapshot.webhook(black_box(&targets[at])).is_some())
            });
        });
        let missing = Target::new("nowhere", "nothing").unwrap();
        group.bench_function(BenchmarkId::new("miss", webhooks), |b| {
            b.iter(|| black_box(snapshot.webhook(black_box(&missing)).is_none()));
        });

        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut revision = 2;
                while !stop.load(Ordering::Relaxed) {
                    let key = Key::Webhook(key(revision as usize % webhooks));
                    let value = Some(value(revision as usize));
                    at_once(feed.apply(revision, [Change { key, value }]));
                    revision += 1;
                    std::thread::sleep(Duration::from_micros(200));
                }
            });
            group.bench_function(BenchmarkId::new("hit under 5,000 updates/s, as a request reads", webhooks), |b| {
                b.iter(|| {
                    at = (at + 1) % targets.len();
                    black_box(store.read(|snapshot| snapshot.webhook(black_box(&targets[at])).is_some()))
                });
            });
            stop.store(true, Ordering::Relaxed);
        });

        // With enough cores, two threads take no longer than one.
        for threads in [1, 2] {
            let name = format!("hit, as a request reads, {threads} threads");
            group.bench_function(BenchmarkId::new(name, webhooks), |b| {
                b.iter_custom(|count| {
                    let began = Instant::now();
                    std::thread::scope(|scope| {
                        for _ in 0..threads {
                            scope.spawn(|| {
                                for n in 0..count as usize {
                                    let target = black_box(&targets[n % targets.len()]);
                                    black_box(store.read(|snapshot| snapshot.webhook(target).is_some()));
                                }
                            });
                        }
                    });
                    began.elapsed()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, lookup);
criterion_main!(benches);
