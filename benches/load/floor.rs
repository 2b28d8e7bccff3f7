//! The floor of the load comparison: hyper reads the body and answers a constant. No routes, no deadlines, no layers.
//!
//! `load_floor PORT` has one runtime for all cores, as the gateway has. `load_floor --per-core PORT` has a runtime of
//! one thread for each core, with a listener each.

use std::convert::Infallible;
use std::error::Error;
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

const ANSWER: &str = r#"{"message":"200 OK"}"#;
const BACKLOG: u32 = 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (per_core, port) = match args.as_slice() {
        [port] => (false, port.parse()?),
        [flag, port] if flag == "--per-core" => (true, port.parse()?),
        _ => return Err("usage: load_floor [--per-core] PORT".into()),
    };
    let runtimes = match per_core {
        false => vec![Builder::new_multi_thread().enable_all().build()?],
        true => {
            let cores = thread::available_parallelism()?.get();
            (0..cores).map(|_| Builder::new_current_thread().enable_all().build()).collect::<Result<_, _>>()?
        }
    };
    // All listen before one accepts: the kernel deals connections out among those that are there.
    let servers: Vec<(Runtime, TcpListener)> = runtimes
        .into_iter()
        .map(|runtime| runtime.block_on(async { listen(port, per_core) }).map(|listener| (runtime, listener)))
        .collect::<Result<_, _>>()?;
    println!("listening");
    let threads: Vec<_> = servers
        .into_iter()
        .map(|(runtime, listener)| thread::spawn(move || runtime.block_on(serve(listener))))
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

/// Until accepting fails.
async fn serve(listener: TcpListener) -> io::Result<Infallible> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
        tokio::spawn(async move {
            // The client hangs up at the end of a round.
            let _ = connection.await;
        });
    }
}

async fn answer(req: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    req.into_body().collect().await?;
    let mut response = Response::new(Full::from(ANSWER));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
