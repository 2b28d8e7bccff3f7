//! Certificates of a test: an authority with a server and a client, and an authority that nobody trusts.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::server::Directory;

/// A certificate and its key, in PEM.
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Made anew for each test.
pub(crate) struct Certificates {
    directory: Directory,
    /// The authority, in PEM.
    pub(crate) ca: String,
    /// Of `localhost` and 127.0.0.1.
    pub(crate) server: Pair,
    /// Of a client with the common name `tester`.
    pub(crate) client: Pair,
    /// Another authority, which has signed nothing here.
    pub(crate) foreign_ca: String,
    /// Of a client, by the other authority.
    pub(crate) foreign_client: Pair,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let (own, foreign) = (authority("the test's own"), authority("somebody else's"));
        let (server, client, foreign_client) =
            (signed(&own, "localhost"), signed(&own, "tester"), signed(&foreign, "tester"));
        let directory = Directory::new("certificates");
        let certificates = Self { ca: own.pem(), server, client, foreign_ca: foreign.pem(), foreign_client, directory };
        for (name, text) in [
            ("ca.pem", &certificates.ca),
            ("server.pem", &certificates.server.certificate),
            ("server.key", &certificates.server.key),
            ("client.pem", &certificates.client.certificate),
            ("client.key", &certificates.client.key),
            ("foreign-ca.pem", &certificates.foreign_ca),
        ] {
            certificates.directory.write(name, text);
        }
        certificates
    }

    /// The path of `ca.pem`, `server.pem`, `server.key`, `client.pem`, `client.key` or `foreign-ca.pem`.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn signed(by: &CertifiedIssuer<'static, KeyPair>, name: &str) -> Pair {
    let names = match name {
        "localhost" => vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
        _ => Vec::new(),
    };
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, by).unwrap().pem();
    Pair { certificate, key: key.serialize_pem() }
}
