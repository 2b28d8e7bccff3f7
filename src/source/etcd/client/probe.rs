//! Finds out which protocol a peer speaks, if it is not the endpoint's.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The time limit for the whole exchange.
const PATIENCE: Duration = Duration::from_secs(1);

/// The least that a TLS server answers: a ClientHello of TLS 1.2 with three cipher suites and no extensions.
const CLIENT_HELLO: [u8; 56] = {
    let mut hello = [0x5a; 56];
    let head = [0x16, 3, 1, 0, 51, 1, 0, 0, 47, 3, 3];
    let tail = [0, 0, 6, 0xc0, 0x2f, 0xc0, 0x30, 0, 0x9c, 1, 0, 0, 0];
    let mut at = 0;
    while at < head.len() {
        hello[at] = head[at];
        at += 1;
    }
    at = 0;
    while at < tail.len() {
        hello[head.len() + 32 + at] = tail[at];
        at += 1;
    }
    hello
};

/// The preface of HTTP/2 and empty settings.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    Tls,
    Http1,
    Http2,
}

/// Speaks the other protocol to the peer: TLS if the endpoint begins with `http://`, plain HTTP if it begins with
/// `https://`.
pub(super) async fn ask(endpoint: &str) -> Option<Speaks> {
    let (tls, rest) = match endpoint.strip_prefix("http://") {
        Some(rest) => (true, rest),
        None => (false, endpoint.strip_prefix("https://")?),
    };
    let uri: http::Uri = endpoint.parse().ok()?;
    let address = match uri.port() {
        Some(_) => rest.trim_end_matches('/').to_owned(),
        None => format!("{}:{}", uri.host()?, if tls { 80 } else { 443 }),
    };
    let question: &[u8] = if tls { &CLIENT_HELLO } else { PREFACE };
    let asked = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        stream.write_all(question).await.ok()?;
        let mut answer = [0; 8];
        stream.read_exact(&mut answer[..5]).await.ok()?;
        protocol_of(&answer)
    };
    timeout(PATIENCE, asked).await.ok().flatten()
}

fn protocol_of(answer: &[u8]) -> Option<Speaks> {
    match answer {
        // A TLS record with a handshake or an alert.
        [0x15 | 0x16, 3, ..] => Some(Speaks::Tls),
        [b'H', b'T', b'T', b'P', b'/', ..] => Some(Speaks::Http1),
        // A SETTINGS frame, which comes first and is short.
        [0, 0, _, 4, 0, ..] => Some(Speaks::Http2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_of_the_answer_show_the_protocol() {
        assert_eq!(protocol_of(b"\x15\x03\x01\0\x02"), Some(Speaks::Tls));
        assert_eq!(protocol_of(b"\x16\x03\x03\0\x40"), Some(Speaks::Tls));
        assert_eq!(protocol_of(b"HTTP/1.1"), Some(Speaks::Http1));
        assert_eq!(protocol_of(b"\0\0\x06\x04\0"), Some(Speaks::Http2));
        for other in [&b""[..], b"\0\0\0\0\0", b"SSH-2.0", b"\x15\x02\0\0\0"] {
            assert_eq!(protocol_of(other), None);
        }
        // The lengths in the question are right.
        assert_eq!(usize::from(CLIENT_HELLO[4]), CLIENT_HELLO.len() - 5);
        assert_eq!(usize::from(CLIENT_HELLO[8]), CLIENT_HELLO.len() - 9);
    }
}
