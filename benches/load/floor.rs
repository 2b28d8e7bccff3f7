//! The baseline of the load comparison: hyper reads the body and sends a constant answer, without routes, deadlines or
//! layers.
//!
//! `load_floor PORT` has one runtime for all cores, like the gateway. `load_floor --per-core PORT` has a runtime with one
//! thread and a listener for each core. `load_floor --synced FILE PORT` answers when the body is on disk, with the simplest
//! group commit: a thread appends all waiting bodies and syncs them.

use std::convert::Infallible;
use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::{io, thread};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

const ANSWER: &str = r#"{"message":"200 OK"}"#;
const BACKLOG: u32 = 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (per_core, log, port) = match args.as_slice() {
        [port] => (false, None, port.parse()?),
        [flag, port] if flag == "--per-core" => (true, None, port.parse()?),
        [flag, file, port] if flag == "--synced" => (false, Some(open(file)?), port.parse()?),
        _ => return Err("usage: load_floor [--per-core | --synced FILE] PORT".into()),
    };
    let runtimes = match per_core {
        false => vec![Builder::new_multi_thread().enable_all().build()?],
        true => {
            let cores = thread::available_parallelism()?.get();
            (0..cores).map(|_| Builder::new_current_thread().enable_all().build()).collect::<Result<_, _>>()?
        }
    };
    // All listen before one accepts: the kernel distributes connections among the existing listeners.
    let servers: Vec<(Runtime, TcpListener)> = runtimes
        .into_iter()
        .map(|runtime| runtime.block_on(async { listen(port, per_core) }).map(|listener| (runtime, listener)))
        .collect::<Result<_, _>>()?;
    println!("listening");
    let threads: Vec<_> = servers
        .into_iter()
        .map(|(runtime, listener)| (runtime, listener, log.clone()))
        .map(|(runtime, listener, log)| thread::spawn(move || runtime.block_on(serve(listener, log))))
        .collect();
    for thread in threads {
        thread.join().map_err(|_| "a thread panicked")??;
    }
    Ok(())
}

fn listen(port: u16, shared: bool) -> io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(shared)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    socket.listen(BACKLOG)
}

/// The most bodies that are written together.
const MOST: usize = 1024;

/// A body, and the request that waits for it.
type Entry = (Bytes, oneshot::Sender<()>);

fn open(path: &str) -> io::Result<Sender<Entry>> {
    let file = File::create_new(path)?;
    let (log, entries) = channel(MOST);
    thread::spawn(move || write(file, entries));
    Ok(log)
}

/// Writes until a write fails.
fn write(mut file: File, mut entries: Receiver<Entry>) -> io::Result<()> {
    let (mut bytes, mut round) = (Vec::new(), Vec::new());
    while entries.blocking_recv_many(&mut round, MOST) > 0 {
        let (bodies, waiting): (Vec<_>, Vec<_>) = round.drain(..).unzip();
        bytes.clear();
        bodies.iter().for_each(|body: &Bytes| bytes.extend_from_slice(body));
        file.write_all(&bytes)?;
        file.sync_data()?;
        for one in waiting {
            // The request may be gone.
            let _ = oneshot::Sender::send(one, ());
        }
    }
    Ok(())
}

/// Serves until `accept` fails.
async fn serve(listener: TcpListener, log: Option<Sender<Entry>>) -> io::Result<Infallible> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let log = log.clone();
        let service = service_fn(move |req| answer(req, log.clone()));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            // The client closes its connections at the end of a round.
            let _ = connection.await;
        });
    }
}

async fn answer(
    req: Request<Incoming>,
    log: Option<Sender<Entry>>,
) -> Result<Response<Full<Bytes>>, Box<dyn Error + Send + Sync>> {
    let body = req.into_body().collect().await?.to_bytes();
    if let Some(log) = log {
        let (sender, written) = oneshot::channel();
        log.send((body, sender)).await?;
        written.await?;
    }
    let mut response = Response::new(Full::from(ANSWER));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
