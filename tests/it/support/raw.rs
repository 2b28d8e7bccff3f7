//! HTTP/1.1 by hand, for requests that a client library would never send.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{Answer, within};

/// One connection.
pub(crate) struct Raw {
    stream: BufReader<TcpStream>,
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = within("a connection", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Sends bytes. A peer that has hung up is no error here: its answer shows why.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        within("the peer to read", self.stream.write_all(bytes.as_ref())).await.is_ok()
    }

    /// The next answer; `None` if the connection was closed.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        within("an answer", self.read_answer()).await.ok()
    }

    /// Whether the peer has closed the connection, or closes it now.
    pub(crate) async fn is_closed_by_peer(&mut self) -> bool {
        let mut byte = [0];
        !matches!(within("the end of the connection", self.stream.read(&mut byte)).await, Ok(1..))
    }

    /// Reads until the peer closes the connection.
    pub(crate) async fn drain(&mut self) {
        let mut rest = Vec::new();
        // A reset is an end too.
        let _ = within("the end of the connection", self.stream.read_to_end(&mut rest)).await;
    }

    async fn read_line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end_matches("\r\n").to_owned()),
        }
    }

    async fn read_answer(&mut self) -> io::Result<Answer> {
        let line = self.read_line().await?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse::<StatusCode>().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {line:?}"));
        let mut headers = HeaderMap::new();
        loop {
            let line = self.read_line().await?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap();
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, HeaderValue::from_str(value.trim()).unwrap());
        }
        assert!(!headers.contains_key("transfer-encoding"), "all answers are of known size: {headers:?}");
        let length = headers.get("content-length").map_or(0, |length| length.to_str().unwrap().parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok(Answer { status, headers, body: Bytes::from(body), rejection: None })
    }
}

/// The text of a request with a body of known length. `head` has the request line and header lines, without CRLF.
pub(crate) fn text(head: &[&str], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut text = format!("{}\r\nHost: localhost\r\n", head.join("\r\n")).into_bytes();
    if !body.is_empty() {
        text.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(body);
    text
}

/// One request on a connection of its own.
pub(crate) async fn request(address: SocketAddr, head: &[&str], body: impl AsRef<[u8]>) -> Answer {
    let mut raw = Raw::connect(address).await;
    raw.send(text(head, body)).await;
    raw.answer().await.unwrap_or_else(|| panic!("no answer to {head:?}"))
}
