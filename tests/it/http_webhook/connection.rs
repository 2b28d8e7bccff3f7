//! Webhooks that send through a connection of type `http`.

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tower_webhook::module::Egress;
use tower_webhook::source::FixedSource;
use tower_webhook::{Receiver, Registry, Store, receiver};

use super::connections::Tls;
use super::target::{OK, Target};
use super::{SECRET, event_with, loopback};
use crate::support::{ask, post, reflected};

/// Webhooks with these options, all of which use one connection.
pub(super) async fn serving(connection: Value, options: &[Value]) -> (Store, Receiver) {
    serving_by(&loopback(), connection, options).await
}

async fn serving_by(egress: &Egress, connection: Value, options: &[Value]) -> (Store, Receiver) {
    let mut source = FixedSource::new().connection("crm", connection.to_string()).unwrap();
    for (nth, options) in options.iter().enumerate() {
        let webhook = json!({"module": "http_webhook", "connection": "crm", "module-config": options});
        source = source.webhook("shop", &format!("w{nth}"), webhook.to_string()).unwrap();
    }
    let store = reflected(source, Registry::builtin().egress(egress)).await;
    (store.clone(), receiver(store))
}

fn reasons(store: &Store) -> Vec<String> {
    let snapshot = store.snapshot();
    let reasons: Vec<_> = snapshot.refusals().map(|(_, refusal)| refusal.reason().to_owned()).collect();
    assert!(reasons.iter().all(|reason| !reason.contains(SECRET)), "{reasons:?}");
    reasons
}

#[tokio::test]
async fn webhooks_share_an_origin_a_credential_and_one_network_connection() {
    let mut target = Target::answering(OK).await;
    let base = format!("http://{}/api/", target.address);
    let connection = json!({"type": "http", "url": base, "headers": {"Authorization": SECRET, "X-From": "crm"}});
    let mut options = vec![json!({}), json!({"url": "/orders?new=1", "headers": {"X-Own": "1"}})];
    options.extend((2..50).map(|_| json!({"forward_headers": true, "allowed_headers": ["authorization"]})));
    let (store, receiver) = serving(connection, &options).await;
    assert_eq!(reasons(&store), [""; 0]);
    for nth in 0..50 {
        ask(&receiver, post(&format!("/shop/w{nth}"), "{}")).await.assert_accepted();
        let received = target.received().await;
        assert_eq!((received.one("authorization"), received.one("x-from")), (SECRET, "crm"));
        match nth {
            1 => assert_eq!((received.line.as_str(), received.one("x-own")), ("POST /api/orders?new=1 HTTP/1.1", "1")),
            _ => assert_eq!(received.line, "POST /api/ HTTP/1.1"),
        }
    }
    assert_eq!(target.connections(), 1);

    let mut request = event_with(&[("authorization", "Bearer of-the-sender")], "{}");
    *request.uri_mut() = "/shop/w9".parse().unwrap();
    ask(&receiver, request).await.assert_accepted();
    assert_eq!(target.received().await.one("authorization"), SECRET, "the connection's wins");
}

#[tokio::test]
async fn a_webhook_does_not_leave_its_connection() {
    let connection = json!({"type": "http", "url": "http://127.0.0.1:9/api", "headers": {"Authorization": SECRET}});
    for (options, words) in [
        (json!({"url": "http://127.0.0.1:8/"}), "`url` must be a path"),
        (json!({"url": "/../admin"}), "must have no `.` or `..`"),
        (json!({"url": "/..%2f..%2fadmin"}), "must have no `%2f`, `%5c` or `%25`"),
        (json!({"headers": {"authorization": "x"}}), "is set by the connection"),
        (json!({"allowed_hosts": ["example.com"]}), "not one of `allowed_hosts`"),
    ] {
        let (store, _) = serving(connection.clone(), &[options]).await;
        let [reason] = &reasons(&store)[..] else { panic!("{words}") };
        assert!(reason.starts_with("module-config: ") && reason.contains(words), "{reason}");
    }
    let refused = json!({"type": "http", "url": "http://10.0.0.1/"});
    let (store, receiver) = serving(refused, &[json!({})]).await;
    assert_eq!(reasons(&store).len(), 2, "the connection, and the webhook that names it");
    assert_eq!(ask(&receiver, post("/shop/w0", "{}")).await.status, 503);
}

#[tokio::test]
async fn a_connection_trusts_its_own_authority() {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let target = Tls::with(&certificate, &key, certificate.pem()).await;
    for (ca, status) in [(None, 502), (Some(certificate.pem()), 200)] {
        let connection = json!({"type": "http", "url": target.url("localhost").split('?').next(), "ca": ca});
        let (store, receiver) = serving(connection, &[json!({})]).await;
        assert_eq!(reasons(&store), [""; 0]);
        assert_eq!(ask(&receiver, post("/shop/w0", "{}")).await.status, status);
    }
}

#[tokio::test]
async fn a_connection_with_its_own_authority_trusts_what_the_egress_trusts_later() {
    let (own, old, new) = (Tls::new().await, Tls::new().await, Tls::new().await);
    let egress = old.trusted();
    let ca = std::str::from_utf8(own.authority()).unwrap();
    let mut receivers = Vec::new();
    for target in [&own, &old, &new] {
        let connection = json!({"type": "http", "url": target.url("localhost"), "ca": ca});
        receivers.push(serving_by(&egress, connection, &[json!({})]).await.1);
    }
    let statuses = async || {
        let mut statuses = Vec::new();
        for receiver in &receivers {
            statuses.push(ask(receiver, post("/shop/w0", "{}")).await.status.as_u16());
        }
        statuses
    };
    assert_eq!(statuses().await, [200, 200, 502]);
    egress.trust_instead(new.authority()).unwrap();
    assert_eq!(statuses().await, [200, 502, 200], "the connection to the old one is not used again either");
    egress.trust_instead(&[old.authority(), new.authority()].concat()).unwrap();
    assert_eq!(statuses().await, [200; 3]);
}

#[tokio::test]
async fn a_connection_has_the_time_limit_of_webhooks_that_have_none() {
    let target = Target::serving(|mut connection| async move { while connection.request().await {} }).await;
    let connection = json!({"type": "http", "url": target.url().split('?').next(), "timeout": 0.2});
    let (_, receiver) = serving(connection, &[json!({})]).await;
    assert_eq!(ask(&receiver, post("/shop/w0", "{}")).await.status, 504);
}
