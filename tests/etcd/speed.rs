//! Many writes a second. Case 37.

use std::time::{Duration, Instant};

use tokio::time::{interval, sleep};
use tower_webhook::source::EtcdOptions;

use crate::support::etcd::{Etcd, PREFIX, Version};
use crate::support::oracle::state;
use crate::support::{follow, lists, live, rounds, stamped, until_within};

/// Writes `rate` keys a second, in transactions of ten. Returns how long after the last write all of them are served.
async fn lag(seconds: u64, rate: u64) -> Duration {
    const WRITERS: u64 = 10;
    const BATCH: u64 = 10;
    let etcd = Etcd::start(Version::V35).await;
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]));
    live(&store).await;
    let rounds = seconds * rate / WRITERS / BATCH;
    let began = Instant::now();
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let endpoint = etcd.endpoint();
            tokio::spawn(async move {
                let mut client = etcd_client::Client::connect([endpoint], None).await.unwrap();
                let mut pace = interval(Duration::from_micros(1_000_000 * WRITERS * BATCH / rate));
                let mut revision = 0;
                for round in 0..rounds {
                    pace.tick().await;
                    let puts = (0..BATCH).map(|key| {
                        let key = format!("{PREFIX}default/webhooks/w{writer}-{}", (round * BATCH + key) % 100);
                        etcd_client::TxnOp::put(key, stamped(round), None)
                    });
                    let txn = etcd_client::Txn::new().and_then(puts.collect::<Vec<_>>());
                    revision = client.txn(txn).await.unwrap().header().unwrap().revision();
                }
                revision.unsigned_abs()
            })
        })
        .collect();
    let mut last = 0;
    for writer in writers {
        last = last.max(writer.await.unwrap());
    }
    let took = began.elapsed();
    let began = Instant::now();
    while store.snapshot().revision() < last {
        assert!(began.elapsed() < Duration::from_secs(10), "it lags behind: {:?}", store.status());
        sleep(Duration::from_millis(1)).await;
    }
    let lag = began.elapsed();
    println!("{} writes/s, lag at the end {lag:?}", (rounds * WRITERS * BATCH) as f64 / took.as_secs_f64());
    let state = state(&store.snapshot());
    for round in rounds - 10..rounds {
        for (writer, key) in (0..WRITERS).flat_map(|writer| (0..BATCH).map(move |key| (writer, key))) {
            let key = (round * BATCH + key) % 100;
            assert_eq!(state[&format!("default/w{writer}-{key}")], Some(round));
        }
    }
    let report = store.status().report;
    assert_eq!((lists(&store), report.anomalies, report.connects), (1, 0, 1), "{:?}", report.last_error);
    until_within("it is not live", &store, Duration::from_secs(5), |store| store.status().state.reason().is_none())
        .await;
    lag
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_writes_a_second_are_followed() {
    // Long enough for a proof in the middle of it.
    let lag = lag(12, 5000).await;
    assert!(lag < Duration::from_secs(2), "{lag:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: make test-faults"]
async fn five_thousand_writes_a_second_for_a_minute_are_followed() {
    let lag = lag(rounds(60), 5000).await;
    assert!(lag < Duration::from_secs(2), "{lag:?}");
}
