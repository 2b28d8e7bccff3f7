//! Authentication and permissions that change while etcd is followed.

use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Permission, PermissionType, RoleRevokePermissionOptions};
use tokio::time::{sleep, timeout};
use tower_webhook::Store;
use tower_webhook::source::EtcdOptions;
use tower_webhook::store::ErrorKind;

use crate::access::enable_auth;
use crate::support::etcd::{Etcd, PREFIX, Version};
use crate::support::proxy::{Mode, Proxy};
use crate::support::{
    against_each_etcd, disconnected, errors, follow, lists, live, live_within, reached, stamp, stamped, until,
    until_within,
};

against_each_etcd!(
    switched_on_while_live_and_without_credentials,
    a_permission_is_taken_and_given_back,
    a_user_is_deleted_and_made_again,
    a_changed_password_ends_no_watch,
    credentials_that_etcd_does_not_ask_for_do_no_harm,
    authentication_is_switched_on_and_off_while_live,
);

async fn root(etcd: &Etcd) -> Client {
    let options = ConnectOptions::new().with_user("root", "rootpw");
    Client::connect([etcd.endpoint()], Some(options)).await.unwrap()
}

async fn put(client: &mut Client, key: &str, value: String) -> u64 {
    let put = client.put(format!("{PREFIX}{key}"), value, None).await.unwrap();
    put.header().unwrap().revision().unsigned_abs()
}

/// Case 27.
async fn switched_on_while_live_and_without_credentials(version: Version) {
    let etcd = Etcd::start(version).await;
    let proxy = Proxy::before(etcd.port()).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]));
    live(&store).await;
    enable_auth(&etcd).await;
    let mut root = root(&etcd).await;
    let revision = put(&mut root, "default/webhooks/a", stamped(2)).await;
    // The watch still delivers events, although etcd no longer answers requests.
    until("the watch does not go on", &store, |store| store.snapshot().revision() >= revision).await;
    assert_eq!(stamp(&store, "default", "a"), Some(2));

    proxy.set(Mode::Cut);
    disconnected(&store).await;
    proxy.set(Mode::Pass);
    until_within("the refusal is not shown", &store, Duration::from_secs(10), |store| {
        errors(store, ErrorKind::Unauthenticated) > 0
    })
    .await;
    let (connections, refusals) = (proxy.accepted(), errors(&store, ErrorKind::Unauthenticated));
    sleep(Duration::from_secs(6)).await;
    let (connections, refusals) =
        (proxy.accepted() - connections, errors(&store, ErrorKind::Unauthenticated) - refusals);
    println!("in 6 s: {connections} connections, {refusals} refusals");
    assert!(connections <= 16 && refusals <= 8, "a tight loop: {connections} connections, {refusals} refusals");
    assert_eq!(stamp(&store, "default", "a"), Some(2), "the last configuration is served");

    root.auth_disable().await.unwrap();
    reached(&store, etcd.put("default/webhooks/a", stamped(3)).await).await;
    assert_eq!((stamp(&store, "default", "a"), lists(&store)), (Some(3), 1));
}

/// Case 28. `--auth-token-ttl` came with 3.5.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_token_is_renewed() {
    let mut etcd = Etcd::stopped(Version::V35).with_arguments(&["--auth-token-ttl", "2"]);
    etcd.run().await;
    let proxy = Proxy::before(etcd.port()).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    enable_auth(&etcd).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]).user("gateway", "hunter2"));
    live(&store).await;
    sleep(Duration::from_secs(4)).await;
    let before = store.status().report;
    proxy.set(Mode::Cut);
    disconnected(&store).await;
    proxy.set(Mode::Pass);
    let took = live_within(&store, Duration::from_secs(5)).await;
    let after = store.status().report;
    let refused = after.errors.get(&ErrorKind::Unauthenticated).copied().unwrap_or(0);
    println!("back after {took:?}, {refused} refusals, {} connections", after.connects - before.connects);
    assert!(refused <= 2 && lists(&store) == 1);
    let revision = put(&mut root(&etcd).await, "default/webhooks/a", stamped(2)).await;
    reached(&store, revision).await;
}

/// Case 28 too: an expired token does not interrupt the watch, however long no request was sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_expires_between_proofs_costs_no_break() {
    let mut etcd = Etcd::stopped(Version::V35).with_arguments(&["--auth-token-ttl", "2"]);
    etcd.run().await;
    enable_auth(&etcd).await;
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]).user("gateway", "hunter2"));
    live(&store).await;
    sleep(Duration::from_secs(25)).await;
    live(&store).await;
    let report = store.status().report;
    println!("{} connections, {:?}", report.connects, report.errors);
    assert!(store.status().staleness().unwrap() < Duration::from_secs(20));
    assert!(report.connects <= 4, "{} connections in 25 s", report.connects);
}

/// Case 29.
async fn a_permission_is_taken_and_given_back(version: Version) {
    let etcd = Etcd::start(version).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    enable_auth(&etcd).await;
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]).user("gateway", "hunter2"));
    live(&store).await;
    let mut root = root(&etcd).await;
    let range = RoleRevokePermissionOptions::new().with_prefix();
    root.role_revoke_permission("reader", PREFIX, Some(range)).await.unwrap();
    let shown = until_within("it is not shown", &store, Duration::from_secs(20), |store| {
        errors(store, ErrorKind::PermissionDenied) > 0
    });
    println!("{version:?}: shown after {:?}", shown.await);
    assert_eq!(stamp(&store, "default", "a"), Some(1), "the last configuration is served");

    let range = Permission::new(PermissionType::Read, PREFIX).with_prefix();
    root.role_grant_permission("reader", range).await.unwrap();
    let revision = put(&mut root, "default/webhooks/a", stamped(2)).await;
    let back = until_within("it does not recover", &store, Duration::from_secs(60), |store| {
        store.snapshot().revision() >= revision
    });
    println!("{version:?}: back after {:?}", back.await);
    assert_eq!((stamp(&store, "default", "a"), lists(&store)), (Some(2), 1));
}

/// Case 29.
async fn a_user_is_deleted_and_made_again(version: Version) {
    let etcd = Etcd::start(version).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    enable_auth(&etcd).await;
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]).user("gateway", "hunter2"));
    live(&store).await;
    let mut root = root(&etcd).await;
    root.user_delete("gateway").await.unwrap();
    until_within("it is not shown", &store, Duration::from_secs(20), |store| {
        errors(store, ErrorKind::Unauthenticated) + errors(store, ErrorKind::PermissionDenied) > 0
    })
    .await;
    assert_eq!(stamp(&store, "default", "a"), Some(1));
    root.user_add("gateway", "hunter2", None).await.unwrap();
    root.user_grant_role("gateway", "reader").await.unwrap();
    let revision = put(&mut root, "default/webhooks/a", stamped(2)).await;
    until_within("it does not recover", &store, Duration::from_secs(60), |store| {
        store.snapshot().revision() >= revision
    })
    .await;
    assert_eq!((stamp(&store, "default", "a"), lists(&store)), (Some(2), 1));
}

/// Case 29: the old password is refused at the next connection, with an error that says so.
async fn a_changed_password_ends_no_watch(version: Version) {
    let etcd = Etcd::start(version).await;
    let proxy = Proxy::before(etcd.port()).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    enable_auth(&etcd).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]).user("gateway", "hunter2"));
    live(&store).await;
    let mut root = root(&etcd).await;
    root.user_change_password("gateway", "another").await.unwrap();
    let revision = put(&mut root, "default/webhooks/a", stamped(2)).await;
    until("the watch does not go on", &store, |store| store.snapshot().revision() >= revision).await;
    proxy.set(Mode::Cut);
    disconnected(&store).await;
    proxy.set(Mode::Pass);
    until("the refusal is not named", &store, |store| {
        store.status().state.reason().is_some_and(|reason| reason.contains("authentication failed"))
    })
    .await;
    root.user_change_password("gateway", "hunter2").await.unwrap();
    live_within(&store, Duration::from_secs(60)).await;
    assert_eq!((stamp(&store, "default", "a"), lists(&store)), (Some(2), 1));
}

fn warned(store: &Store) -> bool {
    store.status().report.warnings.iter().any(|warning| warning.contains("authentication is off"))
}

/// The user may or may not exist already.
async fn credentials_that_etcd_does_not_ask_for_do_no_harm(version: Version) {
    let etcd = Etcd::start(version).await;
    let proxy = Proxy::before(etcd.port()).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]).user("gateway", "hunter2"));
    live(&store).await;
    assert!(warned(&store), "{:?}", store.status());
    reached(&store, etcd.put("default/webhooks/a", stamped(2)).await).await;
    // After authentication is switched on: with a new connection, and with the open one.
    enable_auth(&etcd).await;
    let revision = put(&mut root(&etcd).await, "default/webhooks/a", stamped(3)).await;
    assert!(timeout(Duration::from_secs(20), store.wait_fresh()).await.unwrap());
    reached(&store, revision).await;
    let report = store.status().report;
    assert!(!warned(&store) && report.connects == 1 && report.errors.is_empty(), "{report:?}");
    proxy.set(Mode::Cut);
    disconnected(&store).await;
    proxy.set(Mode::Pass);
    live(&store).await;
    assert_eq!((stamp(&store, "default", "a"), lists(&store), warned(&store)), (Some(3), 1, false));
}

async fn authentication_is_switched_on_and_off_while_live(version: Version) {
    let etcd = Etcd::start(version).await;
    let proxy = Proxy::before(etcd.port()).await;
    etcd.put("default/webhooks/a", stamped(0)).await;
    enable_auth(&etcd).await;
    let (store, _following) = follow(EtcdOptions::new([proxy.endpoint()]).user("gateway", "hunter2"));
    live(&store).await;
    for n in 0..3 {
        assert!(!warned(&store));
        root(&etcd).await.auth_disable().await.unwrap();
        reached(&store, etcd.put("default/webhooks/a", stamped(2 * n + 1)).await).await;
        assert!(timeout(Duration::from_secs(20), store.wait_fresh()).await.unwrap());
        assert!(warned(&store));
        if n == 1 {
            proxy.set(Mode::Cut);
            disconnected(&store).await;
            proxy.set(Mode::Pass);
            live(&store).await;
        }
        etcd.client().await.auth_enable().await.unwrap();
        let revision = put(&mut root(&etcd).await, "default/webhooks/a", stamped(2 * n + 2)).await;
        reached(&store, revision).await;
        assert!(timeout(Duration::from_secs(20), store.wait_fresh()).await.unwrap());
        assert_eq!(stamp(&store, "default", "a"), Some(2 * n + 2));
    }
    // Longer than the time between two proofs: the configuration stays proven.
    root(&etcd).await.auth_disable().await.unwrap();
    sleep(Duration::from_secs(13)).await;
    let report = store.status().report;
    assert!(store.status().staleness().unwrap() < Duration::from_secs(12), "{:?}", store.status());
    assert_eq!((report.connects, lists(&store), errors(&store, ErrorKind::Unauthenticated)), (2, 1, 0), "{report:?}");
}
