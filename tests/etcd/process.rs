//! The gateway is frozen, killed and shut down.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tower_webhook::source::{EtcdOptions, EtcdSource};
use tower_webhook::store::SourceState;
use tower_webhook::{Registry, reflect};

use crate::support::etcd::{Etcd, Version, free_port};
use crate::support::gateway::Gateway;
use crate::support::proxy::{Mode, Proxy};
use crate::support::{disconnected, follow, live, ready, rounds, stamp, stamped, until};

/// Case 38.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_was_frozen_catches_up() {
    let folder = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(Version::V35).await;
    etcd.put("default/webhooks/gone", stamped(0)).await;
    etcd.put("default/webhooks/a", stamped(0)).await;
    let gateway = Gateway::start(&etcd, folder.path()).await;
    gateway.until("it is not live", |status| status["state"] == "healthy" && status["webhooks"] == 2).await;
    gateway.signal("-STOP");
    etcd.delete("default/webhooks/gone").await;
    let mut revision = 0;
    for n in 0..1500 {
        revision = etcd.put(&format!("default/webhooks/w{}", n % 10), stamped(n)).await;
        if n % 500 == 499 {
            etcd.compact(revision).await;
        }
        sleep(Duration::from_millis(9)).await;
    }
    gateway.signal("-CONT");
    let took = gateway
        .until("it does not catch up", |status| {
            status["revision"].as_u64() >= Some(revision) && status["webhooks"] == 11 && status["state"] == "healthy"
        })
        .await;
    let status = gateway.status().await.unwrap();
    println!("caught up after {took:?}; {}", status["lists"]);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!((&status["epoch"], &status["anomalies"]), (&Value::from(0), &Value::from(0)));
}

/// Case 12: a copy is complete or missing, whenever the gateway dies.
async fn killed_while_saving(rounds: u64) {
    const KEYS: u64 = 4000;
    let folder = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(Version::V35).await;
    let value = |n: u64| format!(r#"{{"module": "discard", "metadata": [{n}, "{}"]}}"#, "x".repeat(2000));
    for chunk in 0..KEYS / 100 {
        etcd.put_all((chunk * 100..chunk * 100 + 100).map(|n| (format!("default/webhooks/w{n}"), value(0)))).await;
    }
    let copies = folder.path().join("tower-webhook");
    let temporary = move || {
        let names = std::fs::read_dir(&copies).into_iter().flatten().flatten();
        names.filter(|entry| entry.file_name().to_string_lossy().starts_with(".etcd.saved")).count()
    };
    let (mut round, mut partial) = (0, 0);
    // Until at least one kill has hit a write.
    while round < rounds || (partial == 0 && round < rounds + 20) {
        round += 1;
        let gateway = Gateway::start(&etcd, folder.path()).await;
        gateway.until("it is not live", |status| status["state"] == "healthy").await;
        let left = temporary();
        let revision = etcd.put("default/webhooks/w0", value(round)).await;
        gateway.until("it does not follow", |status| status["revision"].as_u64() >= Some(revision)).await;
        // A write begins a second after the change. The first copy must exist once before that.
        let file = folder.path().join("tower-webhook/etcd.saved");
        while round == 1 && !file.exists() {
            sleep(Duration::from_millis(5)).await;
        }
        // Half of the kills happen while a file is being written, the others at any time.
        let look = temporary.clone();
        let writing = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            while look() <= left && began.elapsed() < Duration::from_secs(8) {
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        match round % 2 {
            0 => writing.await.unwrap(),
            _ => sleep(Duration::from_millis(round * 370 % 500)).await,
        }
        drop(gateway);
        partial += usize::from(temporary() > left);

        // No server listens there: the copy is served, and it must be complete.
        let nobody = format!("http://127.0.0.1:{}", free_port());
        let check = tempfile::tempdir().unwrap();
        std::fs::create_dir(check.path().join("tower-webhook")).unwrap();
        std::fs::copy(&file, check.path().join("tower-webhook/etcd.saved")).unwrap();
        let (store, _following) = follow(EtcdOptions::new([nobody]).saved_copy(check.path()));
        ready(&store).await;
        let status = store.status();
        assert!(status.report.from_saved_copy && status.report.copy_error.is_none(), "round {round}");
        assert_eq!(status.snapshot.counts().webhooks as u64, KEYS, "round {round}");
    }
    println!("{round} kills, {partial} of them while a file was being written");
    assert!(partial > 0, "none of the kills hit a write");
    let gateway = Gateway::start(&etcd, folder.path()).await;
    gateway.until("it is not live", |status| status["state"] == "healthy").await;
    assert_eq!(temporary(), 0, "a temporary file of a killed gateway stays for ever");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_killed_while_saving_leaves_a_whole_copy() {
    killed_while_saving(6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: make test-faults"]
async fn a_gateway_killed_often_while_saving_leaves_a_whole_copy() {
    killed_while_saving(rounds(40)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_reason_of_a_disconnection_is_logged_and_the_same_one_is_not() {
    let mut etcd = Etcd::stopped(Version::V35);
    let gateway = Gateway::with(&[("ETCD_ENDPOINTS", &etcd.endpoint())]).await;
    let lines = |text: &str| gateway.log("cannot load the configuration").iter().filter(|l| l.contains(text)).count();
    gateway.until("it is not disconnected", |status| status["state"] == "disconnected").await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!((lines("Connection refused"), lines("")), (1, 1), "{:?}", gateway.log(""));
    etcd.run().await;
    gateway.until("it is not live", |status| status["state"] == "healthy").await;
    etcd.kill();
    gateway.until("it is not disconnected", |status| status["state"] == "disconnected").await;
    // Another program has the port now.
    let listener = TcpListener::bind(("127.0.0.1", etcd.port())).await.unwrap();
    let other = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await;
        }
    });
    let lines = |text: &str| gateway.log("cannot follow the configuration").iter().filter(|l| l.contains(text)).count();
    let errors = |status: &Value| status["last_error"]["count"].as_u64();
    let before = errors(&gateway.status().await.unwrap());
    gateway.until("it does not try again", |status| errors(status) > before.map(|before| before + 5)).await;
    assert_eq!(lines("speaks HTTP/1"), 1, "{:?}", gateway.log(""));
    assert!((2..=4).contains(&lines("")), "{:?}", gateway.log(""));
    other.abort();
}

/// Kubernetes sets this variable for a Service `etcd`, in each pod of the namespace.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_link_in_place_of_the_port_is_understood() {
    let etcd = Etcd::start(Version::V35).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    let link = format!("tcp://127.0.0.1:{}", etcd.port());
    for (host, endpoint) in [("", "http://127.0.0.1"), ("localhost", "http://localhost")] {
        let gateway = Gateway::with(&[("ETCD_HOST", host), ("ETCD_PORT", &link)]).await;
        gateway.until("it is not live", |status| status["state"] == "healthy" && status["webhooks"] == 1).await;
        let endpoint = format!("{endpoint}:{}", etcd.port());
        assert_eq!(gateway.status().await.unwrap()["endpoint"], endpoint);
    }
}

/// Case 48.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_at_once_in_every_state() {
    let etcd = Etcd::start(Version::V35).await;
    for chunk in 0..10_u64 {
        let value = |n: u64| format!(r#"{{"module": "discard", "metadata": [{n}, "{}"]}}"#, "x".repeat(1000));
        let entry = |n: u64| (format!("default/webhooks/w{n}"), value(n));
        etcd.put_all((chunk * 100..chunk * 100 + 100).map(entry)).await;
    }
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_endpoint = format!("http://{}", silent.local_addr().unwrap());
    for state in ["new", "connecting", "waiting", "listing", "live", "cut off", "black hole", "trickling"] {
        let folder = tempfile::tempdir().unwrap();
        let proxy = Proxy::before(etcd.port()).await;
        let endpoint = match state {
            "connecting" => silent_endpoint.clone(),
            _ => proxy.endpoint(),
        };
        match state {
            "waiting" => proxy.set(Mode::Cut),
            "listing" => proxy.set(Mode::Trickle(2000, Duration::from_millis(50))),
            "trickling" => proxy.set(Mode::Trickle(1, Duration::from_secs(1))),
            _ => {}
        }
        let source = EtcdSource::new(EtcdOptions::new([endpoint]).saved_copy(folder.path())).unwrap();
        let (store, reflector) = reflect(source, Registry::builtin());
        let task = tokio::spawn(reflector.run());
        match state {
            "new" => {}
            "waiting" => drop(disconnected(&store).await),
            "listing" => until("it does not list", &store, |store| store.status().report.lists.len() == 1).await,
            "connecting" | "trickling" => sleep(Duration::from_millis(300)).await,
            _ => live(&store).await,
        }
        match state {
            "cut off" => {
                proxy.set(Mode::Cut);
                disconnected(&store).await;
            }
            "black hole" => {
                proxy.set(Mode::BlackHole);
                until("it is not noticed", &store, |store| store.status().state != SourceState::Live).await;
            }
            _ => {}
        }
        let began = Instant::now();
        task.abort();
        let ended = timeout(Duration::from_secs(1), task).await;
        assert!(ended.is_ok_and(|ended| ended.unwrap_err().is_cancelled()), "{state}: it does not end");
        while proxy.open() > 0 && !matches!(state, "black hole") {
            assert!(began.elapsed() < Duration::from_secs(2), "{state}: a connection stays open");
            sleep(Duration::from_millis(5)).await;
        }
        // A waiting reader is notified, and the snapshot stays.
        assert!(!timeout(Duration::from_secs(1), store.wait_for_revision(u64::MAX)).await.unwrap(), "{state}");
        let kept = matches!(state, "live" | "cut off" | "black hole");
        assert!(!kept || stamp(&store, "default", "w1").is_none() && store.snapshot().counts().webhooks == 1000);
    }
}
