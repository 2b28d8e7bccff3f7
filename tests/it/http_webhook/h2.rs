//! A target that speaks HTTP/2 by hand: a mock, because no real server does these things on demand.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::server::TlsStream;
use tower_webhook::module::Egress;

use super::connections::acceptor;
use super::loopback;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub(super) const NO_ERROR: u32 = 0;
pub(super) const INTERNAL_ERROR: u32 = 2;
pub(super) const REFUSED_STREAM: u32 = 7;

pub(super) const MAX_CONCURRENT_STREAMS: (u16, u32) = (3, 1);

pub(super) struct H2 {
    address: SocketAddr,
    certificate: String,
    /// The bodies of the requests that were answered.
    taken: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl H2 {
    /// Serves each connection with `serve`, then closes it. The connections are counted from 0.
    pub(super) async fn serving<F, S>(settings: &'static [(u16, u32)], serve: S) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
        S: Fn(usize, Peer) -> F + Send + Sync + 'static,
    {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let tls = acceptor(&certificate, &key, &["h2"]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Self {
            address: listener.local_addr().unwrap(),
            certificate: certificate.pem(),
            taken: Arc::default(),
            connections: Arc::default(),
        };
        let (taken, connections) = (Arc::clone(&target.taken), Arc::clone(&target.connections));
        let serve = Arc::new(serve);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, taken, connections) = (tls.clone(), Arc::clone(&taken), Arc::clone(&connections));
                let serve = Arc::clone(&serve);
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let peer = Peer::new(stream, settings, taken).await;
                    serve(connections.fetch_add(1, Ordering::SeqCst), peer).await;
                });
            }
        });
        target
    }

    pub(super) fn url(&self) -> String {
        format!("https://localhost:{}/s3cret", self.address.port())
    }

    pub(super) fn trusted(&self) -> Egress {
        loopback().trust(self.certificate.as_bytes()).unwrap()
    }

    /// The bodies of the requests that were answered, sorted.
    pub(super) fn taken(&self) -> Vec<String> {
        let mut taken = self.taken.lock().unwrap().clone();
        taken.sort_unstable();
        taken
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// One connection.
pub(super) struct Peer {
    frames: mpsc::UnboundedReceiver<Frame>,
    sink: WriteHalf<TlsStream<TcpStream>>,
    bodies: HashMap<u32, Vec<u8>>,
    taken: Arc<Mutex<Vec<String>>>,
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Peer {
    async fn new(stream: TlsStream<TcpStream>, settings: &[(u16, u32)], taken: Arc<Mutex<Vec<String>>>) -> Self {
        let (source, sink) = split(stream);
        let (sender, frames) = mpsc::unbounded_channel();
        tokio::spawn(read_frames(source, sender));
        let mut peer = Self { frames, sink, bodies: HashMap::new(), taken };
        let payload: Vec<u8> =
            settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        peer.send(SETTINGS, 0, 0, &payload).await;
        peer
    }

    /// The next complete request: its stream and its body. Safe to cancel.
    pub(super) async fn request(&mut self) -> Option<(u32, String)> {
        loop {
            let frame = self.frames.recv().await?;
            match frame.kind {
                SETTINGS | PING if frame.flags & ACK == 0 => {
                    let payload = if frame.kind == PING { &frame.payload[..] } else { &[] };
                    self.send(frame.kind, ACK, 0, payload).await;
                }
                HEADERS => {
                    self.bodies.insert(frame.stream, Vec::new());
                }
                DATA => self.bodies.entry(frame.stream).or_default().extend(&frame.payload),
                _ => continue,
            }
            if matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0 {
                let body = self.bodies.remove(&frame.stream).unwrap_or_default();
                return Some((frame.stream, String::from_utf8(body).unwrap()));
            }
        }
    }

    /// Answers 200.
    pub(super) async fn answer(&mut self, (stream, body): (u32, String)) {
        self.taken.lock().unwrap().push(body);
        // `:status: 200` is row 8 of the static table (RFC 7541).
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &[0x88]).await;
    }

    /// Answers 102; `false` if the peer has hung up.
    pub(super) async fn interim(&mut self, stream: u32) -> bool {
        // A literal for the name in row 8 of the static table.
        self.send(HEADERS, END_HEADERS, stream, b"\x08\x03102").await
    }

    pub(super) async fn answer_all(&mut self) {
        while let Some(request) = self.request().await {
            self.answer(request).await;
        }
    }

    pub(super) async fn reset(&mut self, stream: u32, code: u32) {
        self.send(RST_STREAM, 0, stream, &code.to_be_bytes()).await;
    }

    pub(super) async fn go_away(&mut self, last: u32, code: u32) {
        self.send(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat()).await;
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let frame = [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat();
        // The peer may have hung up.
        self.sink.write_all(&frame).await.is_ok() && self.sink.flush().await.is_ok()
    }
}

async fn read_frames(mut source: ReadHalf<TlsStream<TcpStream>>, sink: mpsc::UnboundedSender<Frame>) {
    let mut preface = [0; 24];
    if source.read_exact(&mut preface).await.is_err() {
        return;
    }
    let mut head = [0; 9];
    while source.read_exact(&mut head).await.is_ok() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length as usize];
        if source.read_exact(&mut payload).await.is_err() {
            return;
        }
        let _ = sink.send(Frame { kind: head[3], flags: head[4], stream, payload });
    }
}
