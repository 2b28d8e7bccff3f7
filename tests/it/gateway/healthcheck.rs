//! `gateway healthcheck`, in the way that a container runtime starts it.

use std::net::SocketAddr;

use rcgen::{CertificateParams, KeyPair};

use crate::support::process::{Gateway, command, webhooks};
use crate::support::{eventually, within};

const TLS: [(&str, &str); 2] = [("TLS_CERT", "cert.pem"), ("TLS_KEY", "key.pem")];

/// Starts a gateway with an expired and untrusted certificate for another name.
async fn start_with_tls() -> Gateway {
    let directory = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["hooks.example.com".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let cert = params.self_signed(&key).unwrap();
    for (name, text) in
        [("webhooks.json", webhooks().to_string()), ("cert.pem", cert.pem()), ("key.pem", key.serialize_pem())]
    {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    Gateway::start_in(directory, &TLS).await
}

async fn check(address: SocketAddr, variables: &[(&str, &str)]) -> Result<(), String> {
    let directory = tempfile::tempdir().unwrap();
    let mut command = command(directory.path());
    command.arg("healthcheck").env("PORT", address.port().to_string()).envs(variables.iter().copied());
    let output = within("the health check", command.output()).await.unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

#[tokio::test]
async fn the_health_check_asks_over_tls_whatever_name_the_certificate_has() {
    let gateway = start_with_tls().await;
    eventually("the check to pass", async || check(gateway.address, &TLS).await.is_ok()).await;
    // The gateway really speaks TLS.
    assert!(check(gateway.address, &[]).await.is_err());
    let plain = Gateway::start(&[]).await;
    let error = check(plain.address, &TLS).await.unwrap_err();
    assert!(error.contains("no answer from 127.0.0.1:"), "{error}");
}

#[tokio::test]
async fn a_process_that_is_stopped_does_not_pass_the_health_check() {
    for (gateway, variables) in [(start_with_tls().await, &TLS[..]), (Gateway::start(&[]).await, &[])] {
        check(gateway.address, variables).await.unwrap();
        gateway.signal("STOP").await;
        let error = check(gateway.address, variables).await.unwrap_err();
        assert!(error.contains("no answer from 127.0.0.1:"), "{error}");
        gateway.signal("CONT").await;
        eventually("the check to pass again", async || check(gateway.address, variables).await.is_ok()).await;
    }
}
