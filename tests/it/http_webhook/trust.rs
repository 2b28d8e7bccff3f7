//! Certificates that the operator trusts in addition to the system's.

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, KeyPair, date_time_ymd};
use serde_json::json;
use tower_webhook::event::DeliverErrorKind::Connect;

use super::connections::Tls;
use super::{Hook, event, loopback};

/// A self-signed certificate for `localhost`.
fn self_signed(change: impl FnOnce(&mut CertificateParams)) -> (Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    change(&mut params);
    (params.self_signed(&key).unwrap(), key)
}

/// Makes it an authority's certificate, as `openssl req -x509` does.
fn of_an_authority(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
}

async fn serving((certificate, key): &(Certificate, KeyPair)) -> Tls {
    Tls::with(certificate, key, certificate.pem()).await
}

#[tokio::test]
async fn a_self_signed_certificate_works_for_its_own_host() {
    let kinds: [fn(&mut CertificateParams); 3] =
        [of_an_authority, |params| params.is_ca = IsCa::ExplicitNoCa, |params| params.is_ca = IsCa::NoCa];
    for kind in kinds {
        let target = serving(&self_signed(kind)).await;
        let mut hook = Hook::by(target.trusted(), json!({"url": target.url("localhost")})).await;
        hook.deliver(event("{}")).await;
    }
}

#[tokio::test]
async fn a_self_signed_certificate_is_refused_for_another_host() {
    let target = serving(&self_signed(of_an_authority)).await;
    let mut hook = Hook::by(target.trusted(), json!({"url": target.url("127.0.0.1")})).await;
    let error = hook.fail(Connect).await.to_string();
    assert!(error.contains("not valid for name"), "{error}");
    target.assert_untouched();
}

#[tokio::test]
async fn a_self_signed_certificate_is_refused_before_and_after_its_time() {
    type Change = fn(&mut CertificateParams);
    let over: Change = |params| params.not_after = date_time_ymd(2020, 1, 1);
    let to_come: Change = |params| params.not_before = date_time_ymd(2999, 1, 1);
    for change in [over, to_come] {
        for kind in [of_an_authority as Change, |params| params.is_ca = IsCa::NoCa] {
            let certificate = self_signed(|params| {
                kind(params);
                params.not_after = date_time_ymd(3000, 1, 1);
                change(params);
            });
            let target = serving(&certificate).await;
            let mut hook = Hook::by(target.trusted(), json!({"url": target.url("localhost")})).await;
            let error = hook.fail(Connect).await.to_string();
            assert!(error.contains("expired") || error.contains("not valid yet"), "{error}");
            target.assert_untouched();
        }
    }
}

/// Anybody can present the certificate, because it is public.
#[tokio::test]
async fn a_server_without_the_key_of_the_certificate_is_refused() {
    let (certificate, _) = self_signed(of_an_authority);
    let target = Tls::with(&certificate, &KeyPair::generate().unwrap(), certificate.pem()).await;
    let mut hook = Hook::by(target.trusted(), json!({"url": target.url("localhost")})).await;
    hook.fail(Connect).await;
    target.assert_untouched();
}

#[tokio::test]
async fn another_self_signed_certificate_for_the_same_host_is_refused() {
    let target = serving(&self_signed(of_an_authority)).await;
    let another = serving(&self_signed(of_an_authority)).await;
    let mut hook = Hook::by(another.trusted(), json!({"url": target.url("localhost")})).await;
    hook.fail(Connect).await;
    target.assert_untouched();
}

#[tokio::test]
async fn certificates_that_are_given_later_replace_the_earlier_ones() {
    let (old, new) = (Tls::new().await, Tls::new().await);
    let egress = old.trusted();
    let mut to_old = Hook::by(egress.clone(), json!({"url": old.url("localhost")})).await;
    let mut to_new = Hook::by(egress.clone(), json!({"url": new.url("localhost")})).await;
    to_old.deliver(event("{}")).await;
    to_new.fail(Connect).await;

    egress.trust_instead(new.authority()).unwrap();
    to_new.deliver(event("{}")).await;
    // Neither the earlier connection nor an earlier TLS session is used for it.
    to_old.fail(Connect).await;

    for wrong in ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        egress.trust_instead(wrong.as_bytes()).unwrap_err();
    }
    to_new.deliver(event("{}")).await;

    egress.trust_instead(&[old.authority(), new.authority()].concat()).unwrap();
    to_old.deliver(event("{}")).await;
    to_new.deliver(event("{}")).await;
    // A clone that trusts additional certificates is separate.
    let apart = loopback().trust(old.authority()).unwrap();
    let more = apart.clone().trust(new.authority()).unwrap();
    apart.trust_instead(new.authority()).unwrap();
    Hook::by(more, json!({"url": old.url("localhost")})).await.deliver(event("{}")).await;
}
