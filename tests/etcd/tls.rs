//! Certificates that expire, that are of somebody else, and that are replaced under way. Case 30.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use tower_webhook::source::{EtcdOptions, EtcdTls};
use tower_webhook::store::ErrorKind;

use crate::support::etcd::{Etcd, Version};
use crate::support::{against_each_etcd, errors, follow, live, live_within, ready, until};

against_each_etcd!(
    certificates_are_replaced_under_way,
    the_error_names_the_problem_of_a_certificate,
    a_certificate_of_our_own_that_is_refused_is_shown,
);

/// The files of one side.
struct Files {
    folder: PathBuf,
    side: &'static str,
}

impl Files {
    fn path(&self, kind: &str) -> String {
        self.folder.join(format!("{}-{kind}.pem", self.side)).to_str().unwrap().to_owned()
    }

    fn take(&self, authority: &Authority, params: CertificateParams) {
        let key = KeyPair::generate().unwrap();
        let own = params.signed_by(&key, authority).unwrap();
        for (kind, pem) in [("ca", authority.pem()), ("cert", own.pem()), ("key", key.serialize_pem())] {
            std::fs::write(self.path(kind), pem).unwrap();
        }
    }

    fn client(&self) -> EtcdTls {
        EtcdTls {
            ca: Some(self.path("ca").into()),
            cert: Some(self.path("cert").into()),
            key: Some(self.path("key").into()),
        }
    }

    fn server(&self) -> Vec<String> {
        let (ca, cert, key) = (self.path("ca"), self.path("cert"), self.path("key"));
        let arguments = ["--cert-file", &cert, "--key-file", &key, "--trusted-ca-file", &ca, "--client-cert-auth"];
        arguments.map(str::to_owned).to_vec()
    }
}

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn local() -> CertificateParams {
    CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap()
}

fn sides(folder: &Path) -> (Files, Files) {
    (Files { folder: folder.to_owned(), side: "server" }, Files { folder: folder.to_owned(), side: "client" })
}

async fn certificates_are_replaced_under_way(version: Version) {
    let folder = tempfile::tempdir().unwrap();
    let (server, client) = sides(folder.path());
    let old = authority();
    server.take(&old, local());
    client.take(&old, local());
    let mut etcd = Etcd::stopped(version).with_tls(server.server());
    etcd.run().await;
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]).tls(client.client()));
    live(&store).await;

    let new = authority();
    etcd.kill();
    server.take(&new, local());
    etcd.run().await;
    until("the foreign authority is not named", &store, |store| errors(store, ErrorKind::Tls) > 0).await;
    assert!(store.snapshot().is_loaded());
    // The file of the key before the one of the certificate: for a moment they do not fit together.
    client.take(&new, local());
    live_within(&store, std::time::Duration::from_secs(10)).await;
    assert_eq!(store.status().report.epoch, 0);
}

async fn the_error_names_the_problem_of_a_certificate(version: Version) {
    let folder = tempfile::tempdir().unwrap();
    let (server, client) = sides(folder.path());
    let authority = authority();
    server.take(&authority, local());
    client.take(&authority, local());
    let mut expired = local();
    (expired.not_before, expired.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    let other_name = CertificateParams::new(["elsewhere.example".to_owned()]).unwrap();
    for (params, word) in [(expired, "must be renewed"), (other_name, "use an endpoint by a name")] {
        server.take(&authority, params);
        let mut etcd = Etcd::stopped(version).with_tls(server.server());
        etcd.run().await;
        let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]).tls(client.client()));
        until("it is not named", &store, |store| {
            let error = store.status().report.last_error;
            error.is_some_and(|error| error.kind == ErrorKind::Tls && error.reason.to_ascii_lowercase().contains(word))
        })
        .await;
        println!("{version:?}: {}", store.status().report.last_error.unwrap().reason);
        assert!(!store.snapshot().is_loaded());
        // A good one, and nothing else has to be done.
        etcd.kill();
        server.take(&authority, local());
        etcd.run().await;
        ready(&store).await;
    }
}

async fn a_certificate_of_our_own_that_is_refused_is_shown(version: Version) {
    let folder = tempfile::tempdir().unwrap();
    let (server, client) = sides(folder.path());
    let right = authority();
    server.take(&right, local());
    client.take(&authority(), local());
    std::fs::write(client.path("ca"), right.pem()).unwrap();
    let mut etcd = Etcd::stopped(version).with_tls(server.server());
    etcd.run().await;
    let (store, _following) = follow(EtcdOptions::new([etcd.endpoint()]).tls(client.client()));
    let named = |store: &tower_webhook::Store| match version {
        Version::V35 => errors(store, ErrorKind::Tls) > 0,
        // It closes the connection before its alert can be read.
        Version::V34 => store.status().report.last_error.is_some_and(|error| error.reason.contains("certificate")),
    };
    until("it is not named", &store, named).await;
    println!("{version:?}: {}", store.status().report.last_error.unwrap().reason);
    assert!(!store.snapshot().is_loaded());
    // Not there, and not what it should be.
    let key = std::fs::read(client.path("key")).unwrap();
    std::fs::remove_file(client.path("key")).unwrap();
    until("the missing file is not named", &store, |store| errors(store, ErrorKind::File) > 0).await;
    std::fs::write(client.path("key"), "what?").unwrap();
    let before = store.status().report.errors.values().sum::<u64>();
    until("it does not go on", &store, |store| store.status().report.errors.values().sum::<u64>() > before + 1).await;
    std::fs::write(client.path("key"), key).unwrap();
    client.take(&right, local());
    ready(&store).await;
}
