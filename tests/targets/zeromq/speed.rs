//! The rates of the module beside those of bare sockets that carry the same bytes, to a peer that does the least.

use std::io::{BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tower_webhook::event::Delivery;
use tower_webhook::module::ZeroMq;

use super::{connection, to};
use crate::support::alone;
use crate::support::speed::Subject;

/// The module has as many connections for requests.
const REQUESTS: usize = 8;

/// The reply to a request: an empty part, and a text.
const REPLY: &[u8] = b"\x01\0\0\x05taken";

/// The greeting and the command READY of a socket of this type (ZMTP 3.0), which may be sent at once.
fn handshake(kind: &str) -> Vec<u8> {
    let greeting = [&[0xff][..], &[0; 8], &[0x7f, 3, 0], b"NULL", &[0; 48]].concat();
    let property = [b"\x0bSocket-Type\0\0\0", &[kind.len() as u8][..], kind.as_bytes()].concat();
    [greeting, vec![4, (6 + property.len()) as u8], b"\x05READY".to_vec(), property].concat()
}

/// Reads the handshake of the other side, whose type is `kind`, with further properties or none.
fn shake(stream: &mut impl Read) {
    let mut greeting = [0; 64 + 2];
    stream.read_exact(&mut greeting).unwrap();
    stream.read_exact(&mut vec![0; greeting[65].into()]).unwrap();
}

/// A peer with a thread for each connection. Returns its port.
fn peer(kind: &'static str, serve: impl Fn(BufReader<TcpStream>) + Clone + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, serve) = (stream.unwrap(), serve.clone());
            stream.set_nodelay(true).unwrap();
            std::thread::spawn(move || {
                stream.write_all(&handshake(kind)).unwrap();
                let mut stream = BufReader::with_capacity(64 << 10, stream);
                shake(&mut stream);
                serve(stream);
            });
        }
    });
    port
}

/// Reads a message after the other, and replies to each, until the connection ends.
fn reply(mut stream: BufReader<TcpStream>) {
    // The empty part, and the flags of the next one.
    let (mut head, mut body) = ([0; 3], Vec::new());
    while stream.read_exact(&mut head).is_ok() {
        let length = if head[2] & 2 == 0 {
            let mut length = [0; 1];
            stream.read_exact(&mut length).unwrap();
            length[0].into()
        } else {
            let mut length = [0; 8];
            stream.read_exact(&mut length).unwrap();
            u64::from_be_bytes(length) as usize
        };
        body.resize(length, 0);
        stream.read_exact(&mut body).unwrap();
        stream.get_mut().write_all(REPLY).unwrap();
    }
}

/// A connection after the handshake.
async fn connect(kind: &str, port: u16) -> tokio::net::TcpStream {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(&handshake(kind)).await.unwrap();
    let mut greeting = [0; 64 + 2];
    stream.read_exact(&mut greeting).await.unwrap();
    stream.read_exact(&mut vec![0; greeting[65].into()]).await.unwrap();
    stream
}

/// A part that is the last one.
fn part(body: &[u8]) -> Vec<u8> {
    match u8::try_from(body.len()) {
        Ok(length) => [&[0, length], body].concat(),
        Err(_) => [&[2][..], &(body.len() as u64).to_be_bytes(), body].concat(),
    }
}

/// Both count a message as delivered once it is written to the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; `make bench-targets` runs it"]
#[expect(clippy::disallowed_types, reason = "tasks that share a socket hold its lock until they have written")]
async fn push_beside_a_bare_socket() {
    let _alone = alone().await;
    let port = peer("PULL", |mut stream| drop(std::io::copy(&mut stream, &mut std::io::sink())));
    let module = Subject::<ZeroMq>::new(&connection("PUSH", port, false), &to(json!({}))).await;
    let bare = Arc::new(tokio::sync::Mutex::new(connect("PUSH", port).await));
    let send = move |event: Delivery| {
        let bare = Arc::clone(&bare);
        async move { bare.lock().await.write_all(&part(event.body())).await.unwrap() }
    };
    module.beside("zeromq, PUSH", send, async || {}).await;
}

/// Both wait for the reply, and a connection carries one request at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; `make bench-targets` runs it"]
async fn req_beside_bare_sockets() {
    let _alone = alone().await;
    let port = peer("REP", reply);
    let module = Subject::<ZeroMq>::new(&connection("REQ", port, false), &to(json!({}))).await;
    let (free, idle) = (Arc::new(Semaphore::new(REQUESTS)), Arc::new(Mutex::new(Vec::new())));
    for _ in 0..REQUESTS {
        let stream = connect("REQ", port).await;
        idle.lock().unwrap().push(stream);
    }
    let ask = move |event: Delivery| {
        let (free, idle) = (Arc::clone(&free), Arc::clone(&idle));
        async move {
            let _turn = free.acquire().await.unwrap();
            let mut stream = idle.lock().unwrap().pop().unwrap();
            stream.write_all(&[b"\x01\0", &part(event.body())[..]].concat()).await.unwrap();
            let mut reply = [0; REPLY.len()];
            stream.read_exact(&mut reply).await.unwrap();
            idle.lock().unwrap().push(stream);
        }
    };
    module.beside("zeromq, REQ", ask, async || {}).await;
}
