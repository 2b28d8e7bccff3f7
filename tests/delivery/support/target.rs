//! A target for events: an HTTP server that follows a script.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use super::{eventually, within};

/// The answer to a request.
pub(crate) enum Reply {
    /// A status and header lines, each with its CRLF.
    Status(u16, String),
    /// Nothing, until the client gives up.
    Silence,
    /// 200, after a delay.
    Late(Duration),
    /// The connection is reset.
    Reset,
    /// 200 and a body without an end.
    Endless,
    /// 200, once the test releases it.
    Held(oneshot::Receiver<()>),
}

impl Reply {
    pub(crate) fn status(status: u16) -> Self {
        Self::Status(status, String::new())
    }

    pub(crate) fn ok() -> Self {
        Self::status(200)
    }
}

/// A request that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) path: String,
    pub(crate) event: String,
    pub(crate) attempt: u32,
    pub(crate) body: Vec<u8>,
    /// When its last byte arrived.
    pub(crate) at: Instant,
    /// Whether the script answered 200 at once.
    pub(crate) taken: bool,
}

type Script = Arc<dyn Fn(&Arrival) -> Reply + Send + Sync>;

pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    script: Arc<Mutex<Script>>,
    server: Option<JoinHandle<()>>,
}

impl Target {
    pub(crate) async fn start(script: impl Fn(&Arrival) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let script: Script = Arc::new(script);
        let mut target = Self {
            address: listener.local_addr().unwrap(),
            arrivals: Arc::default(),
            script: Arc::new(Mutex::new(script)),
            server: None,
        };
        target.serve(listener);
        target
    }

    fn serve(&mut self, listener: TcpListener) {
        let (arrivals, script) = (Arc::clone(&self.arrivals), Arc::clone(&self.script));
        self.server = Some(tokio::spawn(async move {
            // Dropping the set ends all connections.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (arrivals, script) = (Arc::clone(&arrivals), Arc::clone(&script));
                connections.spawn(async move { connection(stream, &arrivals, &script).await });
                while connections.try_join_next().is_some() {}
            }
        }));
    }

    /// Refuses connections from now on, and closes open ones.
    pub(crate) async fn down(&mut self) {
        let server = self.server.take().expect("it is down already");
        server.abort();
        let _ = server.await;
    }

    pub(crate) async fn up(&mut self) {
        let listener = within("the port again", async {
            loop {
                match TcpListener::bind(self.address).await {
                    Ok(listener) => break listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        });
        let listener = listener.await;
        self.serve(listener);
    }

    /// Uses another script for requests that arrive from now on.
    pub(crate) fn now(&self, script: impl Fn(&Arrival) -> Reply + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.lock().unwrap().clone()
    }

    /// The requests that were answered 200 at once.
    pub(crate) fn taken(&self) -> Vec<Arrival> {
        self.arrivals.lock().unwrap().iter().filter(|arrival| arrival.taken).cloned().collect()
    }

    /// The requests to `path`.
    pub(crate) fn at(&self, path: &str) -> Vec<Arrival> {
        self.arrivals.lock().unwrap().iter().filter(|arrival| arrival.path == path).cloned().collect()
    }

    /// Waits for request number `nth` to `path`, counted from 0.
    pub(crate) async fn nth_at(&self, path: &str, nth: usize) -> Arrival {
        within("the event to arrive", async {
            let found = || {
                let arrivals = self.arrivals.lock().unwrap();
                arrivals.iter().filter(|arrival| arrival.path == path).nth(nth).cloned()
            };
            loop {
                match found() {
                    Some(arrival) => break arrival,
                    None => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        })
        .await
    }

    /// Waits for `count` requests to `path`.
    pub(crate) async fn count_at(&self, path: &str, count: usize) -> Vec<Arrival> {
        eventually(&format!("{count} requests at {path}"), async || self.at(path).len() >= count).await;
        self.at(path)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(server) = &self.server {
            server.abort();
        }
    }
}

async fn connection(stream: TcpStream, arrivals: &Mutex<Vec<Arrival>>, script: &Mutex<Script>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut arrival = read(&mut stream).await?;
        let reply = {
            let script = Arc::clone(&script.lock().unwrap());
            let reply = script(&arrival);
            arrival.taken = matches!(reply, Reply::Status(200, _));
            arrivals.lock().unwrap().push(arrival);
            reply
        };
        let text = match reply {
            Reply::Status(status, fields) => format!("HTTP/1.1 {status} Told\r\n{fields}Content-Length: 2\r\n\r\nok"),
            Reply::Silence => return closed_by_client(&mut stream).await,
            Reply::Late(time) => {
                tokio::time::sleep(time).await;
                OK.to_owned()
            }
            Reply::Reset => {
                stream.get_ref().set_zero_linger()?;
                return Ok(());
            }
            Reply::Endless => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
                loop {
                    stream.write_all(b"10\r\n0123456789abcdef\r\n").await?;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            Reply::Held(until) => match until.await {
                Ok(()) => OK.to_owned(),
                Err(_) => return Ok(()),
            },
        };
        stream.write_all(text.as_bytes()).await?;
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn closed_by_client(stream: &mut BufReader<TcpStream>) -> io::Result<()> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.map(|_| ())
}

async fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Arrival> {
    let mut arrival = Arrival {
        path: String::new(),
        event: String::new(),
        attempt: 0,
        body: Vec::new(),
        at: Instant::now(),
        taken: false,
    };
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        if arrival.path.is_empty() {
            arrival.path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        } else if let Some((name, value)) = line.split_once(':') {
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "x-event-id" => arrival.event = value.to_owned(),
                "x-attempt" => arrival.attempt = value.parse().unwrap(),
                "content-length" => length = value.parse().unwrap(),
                _ => {}
            }
        } else {
            break;
        }
    }
    arrival.body.resize(length, 0);
    stream.read_exact(&mut arrival.body).await?;
    arrival.at = Instant::now();
    Ok(arrival)
}
