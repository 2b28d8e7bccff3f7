//! Three members, some of them in trouble.

use std::time::Duration;

use tokio::time::sleep;
use tower_webhook::Store;
use tower_webhook::source::EtcdOptions;
use tower_webhook::store::SourceState;

use crate::support::etcd::{Etcd, Version};
use crate::support::{against_each_etcd, disconnected, follow, lists, live, reached, stamp, stamped, until};

against_each_etcd!(a_killed_leader_costs_nothing, a_frozen_member_is_left, without_a_quorum_the_last_is_served);

fn endpoints(members: &[Etcd]) -> EtcdOptions {
    EtcdOptions::new(members.iter().map(Etcd::endpoint))
}

/// The member that the store is connected to.
fn connected_to(store: &Store, members: &[Etcd]) -> usize {
    let endpoint = store.status().report.endpoint;
    members.iter().position(|member| Some(member.endpoint()) == endpoint).unwrap()
}

async fn a_killed_leader_costs_nothing(version: Version) {
    let mut members = Etcd::three(version).await;
    let (store, _following) = follow(endpoints(&members));
    live(&store).await;
    for round in 0..3 {
        let mut leader = 0;
        for (n, member) in members.iter().enumerate() {
            if member.is_leader().await {
                leader = n;
            }
        }
        members[leader].kill();
        let other = (leader + 1) % 3;
        // Writes fail until there is a new leader.
        let revision = loop {
            let mut client = members[other].client().await;
            let put = client.put("/cwm/default/webhooks/a", stamped(round), None);
            match tokio::time::timeout(Duration::from_secs(2), put).await {
                Ok(Ok(put)) => break put.header().unwrap().revision().unsigned_abs(),
                _ => sleep(Duration::from_millis(100)).await,
            }
        };
        reached(&store, revision).await;
        assert_eq!(stamp(&store, "default", "a"), Some(round));
        members[leader].run().await;
    }
    live(&store).await;
    assert_eq!((lists(&store), store.status().report.anomalies, store.status().report.epoch), (1, 0, 0));
}

async fn a_frozen_member_is_left(version: Version) {
    let members = Etcd::three(version).await;
    let (store, _following) = follow(endpoints(&members));
    live(&store).await;
    let frozen = connected_to(&store, &members);
    members[frozen].signal("-STOP");
    until("it stays with the frozen member", &store, |store| {
        connected_to(store, &members) != frozen && store.status().state == SourceState::Live
    })
    .await;
    let revision = members[(frozen + 1) % 3].put("default/webhooks/a", stamped(1)).await;
    reached(&store, revision).await;
    members[frozen].signal("-CONT");
    assert_eq!(lists(&store), 1);
}

async fn without_a_quorum_the_last_is_served(version: Version) {
    let mut members = Etcd::three(version).await;
    members[0].put("default/webhooks/a", stamped(1)).await;
    let (store, _following) = follow(endpoints(&members));
    live(&store).await;
    members[1].kill();
    members[2].kill();
    disconnected(&store).await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(stamp(&store, "default", "a"), Some(1));
    assert!(store.status().state != SourceState::Live);
    members[1].run_unawaited();
    members[2].run_unawaited();
    live(&store).await;
    let revision = members[1].put("default/webhooks/a", stamped(2)).await;
    reached(&store, revision).await;
    assert_eq!((stamp(&store, "default", "a"), store.status().report.epoch), (Some(2), 0));
}
