//! Access to etcd, and the errors when it is missing.

use std::path::Path;

use etcd_client::{Permission, PermissionType};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::AsyncWriteExt;
use tower_webhook::source::{EtcdOptions, EtcdTls};
use tower_webhook::store::ErrorKind;

use crate::support::etcd::{Etcd, PREFIX, Version};
use crate::support::gateway::Gateway;
use crate::support::{against_each_etcd, disconnected, follow, live, ready, stamp, stamped};

against_each_etcd!(
    a_user_reads_with_its_password,
    a_refused_connection_is_retried,
    a_server_that_speaks_http_1_is_named,
    tls_needs_the_right_authority,
    an_endpoint_of_the_wrong_scheme_is_named,
    a_certificate_file_that_cannot_be_used_is_named,
);

pub async fn enable_auth(etcd: &Etcd) {
    let mut client = etcd.client().await;
    client.user_add("root", "rootpw", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.role_add("reader").await.unwrap();
    let range = Permission::new(PermissionType::Read, PREFIX).with_prefix();
    client.role_grant_permission("reader", range).await.unwrap();
    client.user_add("gateway", "hunter2", None).await.unwrap();
    client.user_grant_role("gateway", "reader").await.unwrap();
    client.auth_enable().await.unwrap();
}

async fn a_user_reads_with_its_password(version: Version) {
    let etcd = Etcd::start(version).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    enable_auth(&etcd).await;
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]).user("gateway", "hunter2"));
    ready(&store).await;
    assert_eq!(stamp(&store, "default", "a"), Some(1));
    live(&store).await;
}

async fn a_refused_connection_is_retried(version: Version) {
    let etcd = Etcd::start(version).await;
    enable_auth(&etcd).await;
    let wrong = "swordfish";
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]).user("gateway", wrong));
    let reason = disconnected(&store).await;
    assert!(reason.contains("authentication failed"), "{reason}");
    assert!(!reason.contains(wrong), "{reason}");

    let root = etcd_client::ConnectOptions::new().with_user("root", "rootpw");
    let mut client = etcd_client::Client::connect([etcd.endpoint()], Some(root)).await.unwrap();
    client.user_change_password("gateway", wrong).await.unwrap();
    ready(&store).await;
}

async fn a_server_that_speaks_http_1_is_named(_: Version) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await;
        }
    });
    let (store, _following) = follow(EtcdOptions::new([endpoint.clone()]));
    let reason = disconnected(&store).await;
    assert!(reason.starts_with(&endpoint) && reason.contains("speaks HTTP/1"), "{reason}");
    assert!(!store.snapshot().is_loaded());
    server.abort();
}

/// In both directions.
async fn an_endpoint_of_the_wrong_scheme_is_named(version: Version) {
    let folder = tempfile::tempdir().unwrap();
    let (ca, cert, key) = certificates(folder.path(), "right");
    let plain = Etcd::start(version).await;
    let mut secure =
        Etcd::stopped(version).with_tls(["--cert-file", &cert, "--key-file", &key].map(str::to_owned).to_vec());
    secure.run().await;
    let tls = || EtcdTls { ca: Some((&ca).into()), ..EtcdTls::default() };
    for (options, kind, words) in [
        (EtcdOptions::new([format!("http://127.0.0.1:{}", secure.port())]), ErrorKind::Tls, "use https://"),
        (EtcdOptions::new([format!("http://localhost:{}/", secure.port())]), ErrorKind::Tls, "use https://"),
        (EtcdOptions::new([format!("https://127.0.0.1:{}", plain.port())]).tls(tls()), ErrorKind::Tls, "use http://"),
    ] {
        let (store, _following) = follow(options);
        disconnected(&store).await;
        let error = store.status().report.last_error.unwrap();
        println!("{version:?}: {}", error.reason);
        assert!(error.kind == kind && error.reason.contains(words), "{error:?}");
    }
    // With a user the source waits less long for the first answer.
    let (store, _following) = follow(EtcdOptions::new([format!("http://127.0.0.1:{}", secure.port())]).user("a", "b"));
    assert!(disconnected(&store).await.contains("use https://"));
}

/// A file that becomes unusable while the gateway runs is named. At the start, such a file stops the start.
async fn a_certificate_file_that_cannot_be_used_is_named(version: Version) {
    let folder = tempfile::tempdir().unwrap();
    let (ca, cert, key) = certificates(folder.path(), "right");
    let (_, _, other_key) = certificates(folder.path(), "other");
    let arguments = ["--cert-file", &cert, "--key-file", &key, "--trusted-ca-file", &ca, "--client-cert-auth"];
    let mut etcd = Etcd::stopped(version).with_tls(arguments.map(str::to_owned).to_vec());
    etcd.run().await;
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let encrypted =
        file("encrypted.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n");
    let old = file(
        "old.pem",
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nMIIB\n-----END RSA PRIVATE KEY-----\n",
    );
    let (empty, missing) = (file("empty.pem", ""), folder.path().join("missing.pem").to_str().unwrap().to_owned());
    for (wrong, words, variables) in [
        (&encrypted, "found an encrypted key", [&ca, &cert, &encrypted]),
        (&old, "found an encrypted key", [&ca, &cert, &old]),
        (&missing, "No such file", [&ca, &cert, &missing]),
        (&empty, "no private key", [&ca, &cert, &empty]),
        (&cert, "but a certificate", [&ca, &cert, &cert]),
        (&other_key, "does not belong to the certificate", [&ca, &cert, &other_key]),
        (&missing, "No such file", [&ca, &missing, &key]),
        (&key, "but a private key", [&ca, &key, &key]),
        (&empty, "no certificate", [&ca, &empty, &key]),
        (&empty, "no certificate", [&empty, &cert, &key]),
        (&key, "but a private key", [&key, &cert, &key]),
    ] {
        let [ca, cert, key] = variables;
        let tls = EtcdTls { ca: Some(ca.into()), cert: Some(cert.into()), key: Some(key.into()) };
        let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]).tls(tls));
        let reason = disconnected(&store).await;
        assert!(reason.contains(wrong.as_str()) && reason.contains(words), "{reason}");
        assert_eq!(store.status().report.last_error.unwrap().kind, ErrorKind::File);
        let mut gateway = Gateway::with(&[
            ("ETCD_ENDPOINTS", &etcd.endpoint()),
            ("ETCD_CA_CERT", ca),
            ("ETCD_CLIENT_CERT", cert),
            ("ETCD_CLIENT_KEY", key),
        ])
        .await;
        assert_eq!(gateway.ended().await, Some(1), "{variables:?}");
        let variable = match wrong {
            _ if wrong == ca => "ETCD_CA_CERT: ",
            _ if wrong == cert && !words.contains("but a certificate") => "ETCD_CLIENT_CERT: ",
            _ => "ETCD_CLIENT_KEY: ",
        };
        let log = gateway.log("");
        assert!(gateway.log(words).iter().any(|line| line.contains(variable) && line.contains(wrong)), "{log:?}");
    }
}

/// An authority and a certificate of it for this machine, as PEM files.
fn certificates(folder: &Path, name: &str) -> (String, String, String) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let own = own.signed_by(&key, &authority).unwrap();
    let write = |kind: &str, pem: String| {
        let path = folder.join(format!("{name}-{kind}.pem"));
        std::fs::write(&path, pem).unwrap();
        path.to_str().unwrap().to_owned()
    };
    (write("ca", authority.pem()), write("cert", own.pem()), write("key", key.serialize_pem()))
}

async fn tls_needs_the_right_authority(version: Version) {
    let folder = tempfile::tempdir().unwrap();
    let (ca, cert, key) = certificates(folder.path(), "right");
    let (other_ca, ..) = certificates(folder.path(), "other");
    let arguments = ["--cert-file", &cert, "--key-file", &key, "--trusted-ca-file", &ca, "--client-cert-auth"];
    let mut etcd = Etcd::stopped(version).with_tls(arguments.map(str::to_owned).to_vec());
    etcd.run().await;

    let own = |ca: &str| EtcdTls { ca: Some(ca.into()), cert: Some((&cert).into()), key: Some((&key).into()) };
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]).tls(own(&ca)));
    ready(&store).await;
    live(&store).await;

    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]).tls(own(&other_ca)));
    let reason = disconnected(&store).await;
    assert!(reason.contains("certificate"), "{reason}");
    // Without a client certificate it is etcd that refuses.
    let without = EtcdTls { ca: Some((&ca).into()), ..EtcdTls::default() };
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]).tls(without));
    disconnected(&store).await;
    assert!(!store.snapshot().is_loaded());
}
