//! A network that loses, delays and cuts. The version of etcd makes no difference here, so one is enough.

use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::time::sleep;
use tower_webhook::source::EtcdOptions;
use tower_webhook::store::{ErrorKind, SourceState};

use crate::support::etcd::{Etcd, Version};
use crate::support::oracle::Observer;
use crate::support::proxy::{Mode, Proxy};
use crate::support::{
    disconnected, errors, follow, lists, live, live_within, reached, ready, stamp, stamped, until_within,
};

/// Case 4, in both directions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_in_one_direction_is_noticed() {
    let etcd = Etcd::start(Version::V35).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    tokio::join!(black_hole(&etcd, Mode::Mute), black_hole(&etcd, Mode::Deaf));
}

async fn black_hole(etcd: &Etcd, mode: Mode) {
    let proxy = Proxy::before(etcd.port()).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]));
    live(&store).await;
    proxy.set(mode);
    let took = until_within("it is not noticed", &store, Duration::from_secs(15), |store| {
        store.status().state != SourceState::Live
    });
    println!("{mode:?}: noticed after {:?}", took.await);
    assert!(disconnected(&store).await.len() > 1);
    assert_eq!(stamp(&store, "default", "a"), Some(1), "the last configuration is served");
    let staleness = store.status().staleness().unwrap();
    sleep(Duration::from_millis(300)).await;
    assert!(store.status().staleness().unwrap() >= staleness + Duration::from_millis(300), "silence was believed");
    let revision = etcd.put("default/webhooks/b", stamped(2)).await;
    proxy.set(Mode::Pass);
    reached(&store, revision).await;
    assert_eq!(lists(&store), 1);
}

/// Case 5. A packet that is lost below TCP arrives late above it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_network_is_no_break() {
    let etcd = Etcd::start(Version::V35).await;
    let proxy = Proxy::before(etcd.port()).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]));
    live(&store).await;
    proxy.set(Mode::Late(Duration::from_millis(300)));
    let began = Instant::now();
    let mut n = 0;
    while began.elapsed() < Duration::from_secs(25) {
        n += 1;
        reached(&store, etcd.put("default/webhooks/a", stamped(n)).await).await;
        assert_eq!(stamp(&store, "default", "a"), Some(n));
        let status = store.status();
        assert!(status.staleness().unwrap() <= Duration::from_secs(20), "too long without a proof");
        assert_eq!((status.state, status.report.connects), (SourceState::Live, 1), "{:?}", status.report.last_error);
        sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(lists(&store), 1);
}

/// Case 6.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_every_200_ms_lose_and_double_nothing() {
    const WRITES: u64 = 1600;
    let etcd = Etcd::start(Version::V35).await;
    let proxy = Proxy::before(etcd.port()).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]));
    ready(&store).await;
    let observer = Observer::of(&store);
    let mut client = etcd.client().await;
    let writer = tokio::spawn(async move {
        for n in 0..WRITES {
            let key = format!("/cwm/default/webhooks/w{}", n % 10);
            match n % 7 {
                6 => drop(client.delete(key, None).await.unwrap()),
                _ => drop(client.put(key, stamped(n), None).await.unwrap()),
            }
            sleep(Duration::from_millis(5)).await;
        }
    });
    let mut cuts = 0;
    while !writer.is_finished() {
        sleep(Duration::from_millis(200)).await;
        proxy.set(Mode::Cut);
        sleep(Duration::from_millis(20)).await;
        proxy.set(Mode::Pass);
        cuts += 1;
    }
    writer.await.unwrap();
    reached(&store, etcd.put("default/webhooks/last", stamped(WRITES)).await).await;
    observer.compare(&etcd).await;
    let report = store.status().report;
    assert_eq!((lists(&store), report.anomalies, report.epoch), (1, 0, 0));
    println!("{cuts} cuts, {} connections", report.connects);
    assert!(cuts >= 20 && report.connects >= 5);
}

/// Case 7.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_only_trickles_is_left() {
    let etcd = Etcd::start(Version::V35).await;
    for chunk in 0..20_u64 {
        let entry = |n: u64| (format!("default/webhooks/w{n}"), large(n, 1000));
        etcd.put_all((chunk * 50..chunk * 50 + 50).map(entry)).await;
    }
    // Byte by byte not even the connection is completed; a little faster, the list never ends.
    for (bytes, every) in [(1, 1000), (2000, 100)] {
        let proxy = Proxy::before(etcd.port()).await;
        proxy.set(Mode::Trickle(bytes, Duration::from_millis(every)));
        let (store, _following) = follow(EtcdOptions::new([proxy.endpoint(), etcd.endpoint()]));
        let took = live_within(&store, Duration::from_secs(25)).await;
        println!("{bytes} bytes every {every} ms: live after {took:?}");
        assert_eq!(store.snapshot().counts().webhooks, 1000);
        assert_eq!(store.status().report.endpoint, Some(etcd.endpoint()));
    }
}

fn large(stamp: u64, bytes: usize) -> String {
    format!(r#"{{"module": "discard", "metadata": [{stamp}, "{}"]}}"#, "x".repeat(bytes))
}

/// Case 8.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_never_answers_is_left() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            open.push(stream);
        }
    });
    let secure = endpoint.replace("http:", "https:");
    let options = [
        EtcdOptions::new([endpoint.clone()]),
        EtcdOptions::new([endpoint.clone()]).user("gateway", "hunter2"),
        EtcdOptions::new([secure]),
    ];
    let waiting = options.map(|options| {
        tokio::spawn(async move {
            let (store, _following) = follow(options);
            until_within("it is not given up", &store, Duration::from_secs(8), |store| {
                errors(store, ErrorKind::Timeout) + errors(store, ErrorKind::Unreachable) > 0
            })
            .await;
            assert!(!store.snapshot().is_loaded());
        })
    });
    for waiting in waiting {
        waiting.await.unwrap();
    }
    let etcd = Etcd::start(Version::V35).await;
    for _ in 0..3 {
        let (store, _following) = follow(EtcdOptions::new([endpoint.clone(), etcd.endpoint()]));
        live_within(&store, Duration::from_secs(8)).await;
    }
    server.abort();
}
