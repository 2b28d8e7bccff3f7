//! A real Tansu 0.6, which speaks Kafka's protocol and keeps its data in a real SeaweedFS: so they outlive a kill.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::certificates::Certificates;
use crate::support::server::{Directory, Ready, Server, free_port, local, take};
use crate::support::{eventually, tool};

pub(crate) struct Tansu {
    // Dropped in this order.
    pub(crate) server: Server,
    _storage: Option<Server>,
    pub(crate) port: u16,
    /// Where TLS is spoken, by a proxy of the test: Tansu speaks none.
    pub(crate) tls_port: u16,
    _directories: Vec<Directory>,
}

/// The options of a start.
#[derive(Default)]
pub(crate) struct Options<'a> {
    /// Whether the data outlive a kill.
    pub(crate) is_durable: bool,
    /// Whether clients must authenticate themselves. There are no users.
    pub(crate) wants_users: bool,
    /// The port that clients are told to use, instead of the server's own.
    pub(crate) announced: Option<u16>,
    /// With these it announces the port of TLS.
    pub(crate) certificates: Option<&'a Certificates>,
}

impl Tansu {
    pub(crate) async fn start(options: Options<'_>) -> Self {
        let (port, tls_port) = (free_port(), free_port());
        let directory = Directory::new("tansu");
        let (storage, place, s3_port) = match options.is_durable {
            true => {
                let (storage, place, s3_port) = storage().await;
                (Some(storage), Some(place), Some(s3_port))
            }
            false => (None, None, None),
        };
        let tls = options.certificates.map(|certificates| tls(certificates, tls_port, port));
        let announced = options.announced.unwrap_or(if tls.is_some() { tls_port } else { port });
        let command = move || {
            let mut command = Command::new(tool("bin/tansu"));
            command
                .arg("broker")
                .args(["--cluster-id", "tests"])
                .args(["--listener-url", &format!("tcp://127.0.0.1:{port}")])
                .args(["--advertised-listener-url", &format!("tcp://127.0.0.1:{announced}")])
                .args(["--storage-engine", if s3_port.is_some() { "s3://tansu/" } else { "memory://tansu/" }]);
            if options.wants_users {
                command.arg("--authentication");
            }
            if let Some(s3_port) = s3_port {
                command
                    .env("AWS_ENDPOINT", format!("http://127.0.0.1:{s3_port}"))
                    .env("AWS_ALLOW_HTTP", "true")
                    .env("AWS_ACCESS_KEY_ID", "tests")
                    .env("AWS_SECRET_ACCESS_KEY", "tests")
                    .env("AWS_DEFAULT_REGION", "us-east-1");
            }
            command
        };
        let server = Server::start(&directory, Ready::Output("ready in".to_owned()), command).await;
        let directories = std::iter::once(directory).chain(place).collect();
        Self { server, _storage: storage, port, tls_port, _directories: directories }
    }
}

/// A SeaweedFS, and its port for S3.
async fn storage() -> (Server, Directory, u16) {
    let directory = Directory::new("seaweedfs");
    let identities = r#"{"identities": [{"name": "tests", "actions": ["Admin"],
        "credentials": [{"accessKey": "tests", "secretKey": "tests"}]}]}"#;
    let identities = directory.write("s3.json", identities);
    std::fs::create_dir(directory.path().join("data")).unwrap();
    // Each of them also takes the port 10,000 above for gRPC, which must stay below 32,768.
    let draw = || fastrand::u16(20_000..22_000);
    let port = || std::iter::repeat_with(draw).find(|port| take(*port) && take(port + 10_000)).unwrap();
    let ports = [port(), port(), port(), port()];
    let data = directory.path().join("data");
    let command = move || {
        let [master, volume, filer, s3] = ports;
        let mut command = Command::new(tool("bin/weed"));
        command
            .args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3"])
            .arg(format!("-dir={}", data.display()))
            .arg(format!("-s3.config={}", identities.display()))
            .args([format!("-master.port={master}"), format!("-volume.port={volume}")])
            .args([format!("-filer.port={filer}"), format!("-s3.port={s3}")])
            .args(["-master.volumeSizeLimitMB=64", "-volume.max=8", "-master.telemetry=false"])
            // Two servers at a time would listen at the same ports for these.
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0"]);
        command
    };
    let server = Server::start(&directory, Ready::Port(ports[3]), command).await;
    // It answers before it has a volume to write to.
    eventually("SeaweedFS to write", async || put(ports[2]).await.is_ok_and(|answer| answer.contains(" 201 "))).await;
    (server, directory, ports[3])
}

/// Writes a file over HTTP, and returns the answer.
async fn put(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(local(port)).await?;
    let request = b"PUT /tests/ready HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx";
    stream.write_all(request).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Speaks TLS at `at` and passes everything on to `to`.
pub(super) fn tls(certificates: &Certificates, at: u16, to: u16) {
    let chain = CertificateDer::pem_slice_iter(certificates.server.certificate.as_bytes()).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(certificates.server.key.as_bytes()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain.unwrap(), key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), at)).await.unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let Ok(mut server) = TcpStream::connect(local(to)).await else { return };
                let _ = copy_bidirectional(&mut stream, &mut server).await;
            });
        }
    });
}
