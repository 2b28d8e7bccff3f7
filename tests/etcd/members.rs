//! Members that leave, that are cut off from the others, and that were never usable.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tower_webhook::Store;
use tower_webhook::source::EtcdOptions;
use tower_webhook::store::{ErrorKind, SourceState};

use crate::support::etcd::{Etcd, Version, free_port};
use crate::support::oracle::Observer;
use crate::support::proxy::{Mode, Proxy};
use crate::support::{
    against_each_etcd, disconnected, errors, follow, lists, live, reached, rounds, stamp, stamped, until, until_within,
};

against_each_etcd!(
    a_member_cut_off_from_the_others_is_left,
    a_member_that_is_behind_is_not_another_history,
    a_member_that_catches_up_by_a_snapshot_takes_nothing_back,
    a_rolling_restart_costs_nothing,
    a_killed_or_removed_member_is_left,
    one_usable_endpoint_of_four_is_enough,
);

fn endpoints(members: &[Etcd]) -> EtcdOptions {
    EtcdOptions::new(members.iter().map(Etcd::endpoint))
}

fn connected_to(store: &Store, members: &[Etcd]) -> usize {
    let endpoint = store.status().report.endpoint;
    members.iter().position(|member| Some(member.endpoint()) == endpoint).unwrap()
}

/// Writes until it is stopped, through any member that accepts the write.
fn writer(members: &[Etcd]) -> (watch::Sender<bool>, JoinHandle<u64>) {
    let (stop, stopped) = watch::channel(false);
    let endpoints: Vec<_> = members.iter().map(Etcd::endpoint).collect();
    let task = tokio::spawn(async move {
        let (mut n, mut revision) = (0, 0);
        let mut at = 0;
        while !*stopped.borrow() {
            let client = etcd_client::Client::connect([&endpoints[at % endpoints.len()]], None).await;
            let mut client = client.unwrap();
            while !*stopped.borrow() {
                let put = client.put(format!("/cwm/default/webhooks/w{}", n % 10), stamped(n), None);
                let Ok(Ok(put)) = timeout(Duration::from_secs(1), put).await else { break };
                revision = put.header().unwrap().revision().unsigned_abs();
                n += 1;
                sleep(Duration::from_millis(5)).await;
            }
            at += 1;
        }
        revision
    });
    (stop, task)
}

/// Case 22.
async fn a_member_cut_off_from_the_others_is_left(version: Version) {
    let (members, peers) = Etcd::three_apart(version, &[]).await;
    let ids = [members[0].id().await, members[1].id().await, members[2].id().await];
    let (store, _following) = follow(endpoints(&members));
    live(&store).await;
    let isolated = connected_to(&store, &members);
    peers.isolate(isolated, ids[isolated]);
    let took = until_within("it stays with a member without a leader", &store, Duration::from_secs(12), |store| {
        connected_to(store, &members) != isolated && store.status().state == SourceState::Live
    });
    println!("{version:?}: left and live elsewhere after {:?}", took.await);
    let revision = members[(isolated + 1) % 3].put("default/webhooks/a", stamped(1)).await;
    reached(&store, revision).await;
    peers.heal();
    let report = store.status().report;
    assert_eq!((lists(&store), report.epoch, report.anomalies), (1, 0, 0));

    // A reader that only knows this member gets its error and no proof.
    peers.isolate(isolated, ids[isolated]);
    let (alone, _following) = follow(EtcdOptions::new([members[isolated].endpoint()]));
    sleep(Duration::from_secs(7)).await;
    assert!(alone.status().staleness().is_none() && !alone.snapshot().is_loaded());
    let named = errors(&alone, ErrorKind::NoLeader) + errors(&alone, ErrorKind::Timeout);
    assert!(named > 0, "{:?}", alone.status().report.errors);
    peers.heal();
    live(&alone).await;
    assert_eq!(stamp(&alone, "default", "a"), Some(1));
}

/// Case 25.
async fn a_member_that_is_behind_is_not_another_history(version: Version) {
    let (members, peers) = Etcd::three_apart(version, &[]).await;
    let proxy = Proxy::before(members[0].port()).await;
    let mut leader = 0;
    for (n, member) in members.iter().enumerate() {
        if member.is_leader().await {
            leader = n;
        }
    }
    if leader == 0 {
        let other = members[1].id().await;
        members[0].client().await.move_leader(other).await.unwrap();
    }
    let id = members[0].id().await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]));
    live(&store).await;
    let observer = Observer::of(&store);
    peers.delay(0, id, Duration::from_millis(250));
    let (stop, writer) = writer(&members[1..]);
    for _ in 0..4 {
        sleep(Duration::from_secs(1)).await;
        proxy.set(Mode::Cut);
        disconnected(&store).await;
        proxy.set(Mode::Pass);
    }
    stop.send_replace(true);
    let revision = writer.await.unwrap();
    reached(&store, revision).await;
    live(&store).await;
    peers.heal();
    let report = store.status().report;
    assert_eq!((lists(&store), report.epoch, report.anomalies), (1, 0, 0));
    observer.compare(&members[1]).await;
}

/// Case 24.
async fn a_member_that_catches_up_by_a_snapshot_takes_nothing_back(version: Version) {
    let (members, peers) = Etcd::three_apart(version, &["--snapshot-count", "10"]).await;
    let id = members[0].id().await;
    members[1].put("default/webhooks/a", stamped(0)).await;
    let (store, _following) = follow(endpoints(&members));
    live(&store).await;
    let observer = Observer::of(&store);
    peers.isolate(0, id);
    until("it stays with the member", &store, |store| {
        connected_to(store, &members) != 0 && store.status().state == SourceState::Live
    })
    .await;
    // etcd keeps 5000 entries for members that are behind: after more than that, only a snapshot helps.
    let client = members[1].client().await;
    let writers = (0..20_u64).map(|writer| {
        let mut client = client.clone();
        tokio::spawn(async move {
            for n in 0..300 {
                // If the isolated member was the leader, there is none at first.
                let key = format!("/cwm/default/webhooks/w{writer}");
                while client.put(key.as_str(), stamped(n), None).await.is_err() {
                    sleep(Duration::from_millis(100)).await;
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    peers.heal();
    let (rejoining, _following) = follow(EtcdOptions::new([members[0].endpoint()]));
    let revision = members[1].put("default/webhooks/a", stamped(1)).await;
    reached(&store, revision).await;
    reached(&rejoining, revision).await;
    assert_eq!(stamp(&rejoining, "default", "w9"), Some(299));
    for store in [&store, &rejoining] {
        let report = store.status().report;
        assert_eq!((lists(store), report.epoch, report.anomalies), (1, 0, 0));
    }
    observer.compare(&members[1]).await;
}

/// Case 20, for longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: make test-faults"]
async fn twenty_killed_leaders_cost_nothing() {
    let mut members = Etcd::three(Version::V35).await;
    let (store, _following) = follow(endpoints(&members));
    live(&store).await;
    let observer = Observer::of(&store);
    let (stop, writer) = writer(&members);
    for round in 0..rounds(20) {
        sleep(Duration::from_millis(500)).await;
        let leader = loop {
            let mut leaders = Vec::new();
            for (n, member) in members.iter().enumerate() {
                if member.is_leader().await {
                    leaders.push(n);
                }
            }
            if let [leader] = leaders[..] {
                break leader;
            }
        };
        let before = store.snapshot().revision();
        members[leader].kill();
        let gap = until_within("nothing is followed", &store, Duration::from_secs(12), |store| {
            store.snapshot().revision() > before + 20
        });
        println!("round {round}: followed again after {:?}", gap.await);
        members[leader].run().await;
        live(&store).await;
    }
    stop.send_replace(true);
    reached(&store, writer.await.unwrap()).await;
    let report = store.status().report;
    assert_eq!((lists(&store), report.epoch, report.anomalies), (1, 0, 0));
    observer.compare(&members[0]).await;
}

/// Case 42.
async fn a_rolling_restart_costs_nothing(version: Version) {
    let mut members = Etcd::three(version).await;
    let (store, _following) = follow(endpoints(&members));
    live(&store).await;
    let observer = Observer::of(&store);
    let (stop, writer) = writer(&members);
    for member in &mut members {
        sleep(Duration::from_millis(500)).await;
        member.terminate().await;
        sleep(Duration::from_millis(500)).await;
        member.run().await;
        live(&store).await;
    }
    stop.send_replace(true);
    reached(&store, writer.await.unwrap()).await;
    live(&store).await;
    let report = store.status().report;
    assert_eq!((lists(&store), report.epoch, report.anomalies), (1, 0, 0));
    observer.compare(&members[0]).await;
}

/// Case 21.
async fn a_killed_or_removed_member_is_left(version: Version) {
    let mut members = Etcd::three(version).await;
    let (store, _following) = follow(endpoints(&members));
    live(&store).await;
    let killed = connected_to(&store, &members);
    members[killed].kill();
    let moved = |store: &Store, members: &[Etcd], from: usize| {
        connected_to(store, members) != from && store.status().state == SourceState::Live
    };
    // If the member was the leader, the others elect one first.
    let took = until_within("it stays", &store, Duration::from_secs(5), |store| moved(store, &members, killed)).await;
    println!("{version:?}: left the killed one after {took:?}");
    members[killed].run().await;

    let removed = connected_to(&store, &members);
    let id = members[removed].id().await;
    // etcd refuses this until all members have been connected for a while.
    while members[killed].client().await.member_remove(id).await.is_err() {
        sleep(Duration::from_millis(500)).await;
    }
    let took = until_within("it stays", &store, Duration::from_secs(8), |store| moved(store, &members, removed)).await;
    println!("{version:?}: left the removed one after {took:?}");
    reached(&store, members[killed].put("default/webhooks/a", stamped(1)).await).await;
    assert_eq!((lists(&store), store.status().report.epoch), (1, 0));
}

/// Case 26: an unused port, a server that speaks HTTP/1, a learner, and a working member.
async fn one_usable_endpoint_of_four_is_enough(version: Version) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http_1 = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await;
        }
    });
    let etcd = Etcd::start(version).await;
    let learner = etcd.add_learner().await;
    let proxy = Proxy::before(etcd.port()).await;
    let dead = format!("http://127.0.0.1:{}", free_port());

    let (alone, _following) = follow(EtcdOptions::new([learner.endpoint()]));
    until("the learner is not named", &alone, |store| errors(store, ErrorKind::Learner) > 0).await;
    println!("{version:?}: a learner alone: {:?}", alone.status().report.last_error);
    assert!(!alone.snapshot().is_loaded());

    let (store, _following) = follow(EtcdOptions::new([dead, http_1, learner.endpoint(), proxy.endpoint()]));
    live(&store).await;
    let calm = store.status().report.errors;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(store.status().report.errors, calm, "an endpoint that is not needed is asked");
    for n in 0..3 {
        proxy.set(Mode::Cut);
        disconnected(&store).await;
        proxy.set(Mode::Pass);
        reached(&store, etcd.put("default/webhooks/a", stamped(n)).await).await;
        live(&store).await;
        assert_eq!(store.status().report.endpoint, Some(proxy.endpoint()));
    }
    assert_eq!((lists(&store), store.status().report.epoch), (1, 0));
    server.abort();
}
