//! Addresses that a webhook must not reach.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::json;
use tower_webhook::event::DeliverErrorKind;
use tower_webhook::module::Egress;

use super::target::{OK, Target, url};
use super::{Hook, event};

#[tokio::test]
async fn an_address_of_this_machine_is_refused_when_it_is_configured() {
    let target = Target::answering(OK).await;
    for options in [json!({"url": target.url()}), json!({"url": target.url(), "allowed_hosts": ["127.0.0.1"]})] {
        let refusal = Hook::by(Egress::default(), options).await.refusal();
        assert!(refusal.contains("`url` names a loopback address") && refusal.contains("EGRESS_ALLOW"), "{refusal}");
    }
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn a_name_of_this_machine_is_refused_when_it_is_connected_to() {
    let target = Target::answering(OK).await;
    for host in ["localhost", "LocalHost"] {
        for options in [
            json!({"url": url(format!("{host}:{}", target.address.port()))}),
            json!({"url": url(format!("{host}:{}", target.address.port())), "allowed_hosts": ["localhost"]}),
        ] {
            let mut hook = Hook::by(Egress::default(), options).await;
            let error = hook.fail(DeliverErrorKind::Config).await.to_string();
            for part in ["localhost", "is a loopback address", "EGRESS_ALLOW"] {
                assert!(error.contains(part), "{error}");
            }
            // The sender does not learn the reason.
            let answer = crate::support::ask(&hook.service, event("{}")).await;
            for part in ["localhost", "127.0.0.1", "::1", "loopback", "address", "EGRESS_ALLOW"] {
                assert!(!answer.text().contains(part), "{answer:?}");
            }
        }
    }
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn a_tls_target_is_guarded_likewise() {
    let target = Target::answering(OK).await;
    let url = format!("https://localhost:{}/", target.address.port());
    Hook::by(Egress::default(), json!({"url": url})).await.fail(DeliverErrorKind::Config).await;
    assert_eq!(target.connections(), 0);
}

#[tokio::test]
async fn only_what_the_operator_allows_is_reached() {
    let target = Target::answering(OK).await;
    let named = json!({"url": url(format!("localhost:{}", target.address.port()))});
    let allowed = |list: &str| Egress::new(list.parse().unwrap());
    Hook::by(allowed("127.0.0.1"), named.clone()).await.deliver(event("{}")).await;
    Hook::by(allowed("10.0.0.0/8,127.0.0.0/8"), json!({"url": target.url()})).await.deliver(event("{}")).await;
    let before = target.connections();
    Hook::by(allowed("10.0.0.0/8,127.0.0.2"), named).await.fail(DeliverErrorKind::Config).await;
    assert_eq!(target.connections(), before);
}

/// The default registry must be safe.
#[tokio::test]
async fn the_built_in_module_is_guarded() {
    let target = Target::answering(OK).await;
    let port = target.address.port();
    let webhook = |host: &str| {
        json!({"module": "http_webhook", "module-config": {"url": format!("http://{host}:{port}/")}}).to_string()
    };
    let (by_name, by_address) = (webhook("localhost"), webhook("127.0.0.1"));
    let store = crate::support::store_of(
        tower_webhook::Registry::builtin(),
        &[("shop", "hook", &by_name), ("shop", "address", &by_address)],
    )
    .await;
    let service = tower_webhook::receiver(store);
    assert_eq!(crate::support::ask(&service, event("{}")).await.status, 502);
    let request = http::Request::post("/shop/address").body(http_body_util::Full::<bytes::Bytes>::from("{}")).unwrap();
    assert_eq!(crate::support::ask(&service, request).await.status, 503);
    assert_eq!(target.connections(), 0);
    assert_eq!(target.address, SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
}
