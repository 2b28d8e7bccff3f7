//! `REQ`: messages that a peer replies to.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::dial::Dialer;
use super::frame::{Message, Role};
use super::handshake::lost;
use super::idle::Idle;
use super::line::Line;
use super::peer::Peer;
use super::port::{MOST_PEERS, PATIENCE, Port, nobody};
use crate::egress::Egress;
use crate::event::DeliverError;
use crate::module::broker::Sessions;

/// The most connections for requests to a peer that is connected to.
const MOST_LINES: usize = 8;

/// Sends requests, each over a connection that carries no other one until the reply is there.
pub(super) struct Requests {
    idle: Arc<Idle>,
    reach: Reach,
    /// A permit for each request that is under way.
    permits: Semaphore,
}

enum Reach {
    /// A peer that is connected to. The session carries no requests: it shows whether the peer is up.
    Peer { session: Sessions<Peer>, dialer: Dialer },
    /// Peers that connect to this machine.
    Port(Port),
}

impl Requests {
    /// Begins to connect, and does not wait for it.
    pub(super) fn connect(dialer: Dialer) -> Self {
        let reach = Reach::Peer { session: Sessions::open(dialer.clone()), dialer };
        Self { idle: Arc::new(Idle::new(false)), reach, permits: Semaphore::new(MOST_LINES) }
    }

    /// Lets peers connect to this address.
    pub(super) async fn bind(egress: Egress, address: SocketAddr) -> Result<Self, DeliverError> {
        let idle = Arc::new(Idle::new(true));
        let welcome = {
            let idle = Arc::clone(&idle);
            move |met, place| idle.put(Line::new(met, Some(place)))
        };
        let port = Port::open(egress, address, Role::Req, welcome).await?;
        Ok(Self { idle, reach: Reach::Port(port), permits: Semaphore::new(MOST_PEERS) })
    }

    /// Sends a request, and waits for its reply. There is no time limit, but that it does not wait long for a peer.
    pub(super) async fn ask(&self, request: &Message) -> Result<(), DeliverError> {
        let _permit = self.permits.acquire().await.map_err(|_| lost())?;
        let line = match (self.idle.take(), &self.reach) {
            (Some(line), _) => line,
            (None, Reach::Peer { session, dialer }) => {
                // While the peer is down, this fails within a second.
                session.current().await?;
                Line::new(dialer.connect().await?, None)
            }
            (None, Reach::Port(port)) => self.next(port).await?,
        };
        // If this attempt is given up, the connection ends with it.
        self.idle.put(line.ask(request).await?);
        Ok(())
    }

    /// Waits for a peer that is free, but not long if none is connected.
    async fn next(&self, port: &Port) -> Result<Line, DeliverError> {
        loop {
            match self.idle.wait(PATIENCE).await {
                Some(line) => return Ok(line),
                None if !port.has_peers() => return Err(nobody()),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinHandle;
    use tokio::time::{sleep, timeout};

    use super::super::frame;
    use super::*;
    use crate::module::broker::Server;

    const SOON: Duration = Duration::from_secs(20);

    const REPLY: &[u8] = b"\x01\0\0\x05taken";
    const REQUEST: &[u8] = b"\x01\0\0\x05order";

    /// A connection of a `REP`, which a test moves by hand.
    struct Rep(TcpStream);

    impl Rep {
        async fn meet(mut stream: TcpStream) -> Self {
            stream.write_all(&frame::greeting()).await.unwrap();
            stream.write_all(b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03REP").await.unwrap();
            let ready = frame::ready(Role::Req);
            let mut theirs = vec![0; frame::GREETING + ready.len()];
            stream.read_exact(&mut theirs).await.unwrap();
            assert!(theirs.ends_with(&ready));
            Self(stream)
        }

        async fn accept(listener: &TcpListener) -> Self {
            let accepted = timeout(SOON, listener.accept()).await.expect("a connection");
            Self::meet(accepted.unwrap().0).await
        }

        async fn connect(port: u16) -> Self {
            Self::meet(TcpStream::connect(("127.0.0.1", port)).await.unwrap()).await
        }

        async fn expect(&mut self, bytes: &[u8]) {
            let mut found = vec![0; bytes.len()];
            timeout(SOON, self.0.read_exact(&mut found)).await.expect("bytes").unwrap();
            assert_eq!(found, bytes);
        }

        async fn say(&mut self, bytes: &[u8]) {
            self.0.write_all(bytes).await.unwrap();
        }

        async fn expect_end(&mut self) {
            let read = timeout(SOON, self.0.read(&mut [0; 1])).await.expect("the end");
            assert!(!matches!(read, Ok(1..)), "{read:?}");
        }
    }

    /// Requests to a port, and the connection that shows that the peer is up.
    async fn requests() -> (Arc<Requests>, TcpListener, Rep) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::new("127.0.0.1", listener.local_addr().unwrap().port()).unwrap();
        let dialer = Dialer { egress: Egress::new("127.0.0.1".parse().unwrap()), server, role: Role::Req };
        let requests = Arc::new(Requests::connect(dialer));
        let session = Rep::accept(&listener).await;
        (requests, listener, session)
    }

    /// Requests to peers that connect to this port.
    async fn bound() -> (Arc<Requests>, u16) {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let egress = Egress::new("127.0.0.1".parse().unwrap());
        (Arc::new(Requests::bind(egress, ([127, 0, 0, 1], port).into()).await.unwrap()), port)
    }

    fn ask(requests: &Arc<Requests>) -> JoinHandle<Result<(), DeliverError>> {
        let requests = Arc::clone(requests);
        tokio::spawn(async move { requests.ask(&Message::request(&[], &Bytes::from_static(b"order"))).await })
    }

    #[tokio::test]
    async fn requests_share_a_connection_one_after_the_other() {
        let (requests, listener, _session) = requests().await;
        let first = ask(&requests);
        let mut rep = Rep::accept(&listener).await;
        rep.expect(REQUEST).await;
        let second = ask(&requests);
        // Another connection, because the first one has no reply yet.
        let mut other = Rep::accept(&listener).await;
        other.expect(REQUEST).await;
        for (rep, asking) in [(&mut rep, first), (&mut other, second)] {
            rep.say(REPLY).await;
            asking.await.unwrap().unwrap();
        }
        // The one that was used last is the next one.
        for _ in 0..3 {
            let asking = ask(&requests);
            other.expect(REQUEST).await;
            // A reply in pieces, behind a message that is none.
            other.say(b"\0\x05stray").await;
            for piece in REPLY.chunks(1) {
                assert!(!asking.is_finished());
                other.say(piece).await;
            }
            asking.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn peers_that_connect_take_turns() {
        let (requests, port) = bound().await;
        let mut reps = [Rep::connect(port).await, Rep::connect(port).await];
        let asking = [ask(&requests), ask(&requests)];
        for rep in &mut reps {
            rep.expect(REQUEST).await;
            rep.say(REPLY).await;
        }
        for asking in asking {
            asking.await.unwrap().unwrap();
        }
        let mut turns = Vec::new();
        for _ in 0..4 {
            let asking = ask(&requests);
            let [first, second] = &mut reps;
            let turn = tokio::select! {
                () = first.expect(REQUEST) => 0,
                () = second.expect(REQUEST) => 1,
            };
            turns.push(turn);
            reps[turn].say(REPLY).await;
            asking.await.unwrap().unwrap();
        }
        assert!(turns == [0, 1, 0, 1] || turns == [1, 0, 1, 0], "{turns:?}");
    }

    #[tokio::test]
    async fn a_late_reply_answers_no_other_request() {
        let (requests, listener, _session) = requests().await;
        let given_up = ask(&requests);
        let mut rep = Rep::accept(&listener).await;
        rep.expect(REQUEST).await;
        given_up.abort();
        assert!(given_up.await.unwrap_err().is_cancelled());
        let asking = ask(&requests);
        let _ = rep.0.write_all(REPLY).await;
        let mut other = Rep::accept(&listener).await;
        other.expect(REQUEST).await;
        assert!(!asking.is_finished());
        rep.expect_end().await;
        other.say(REPLY).await;
        asking.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_connection_with_an_unasked_message_carries_no_other_request() {
        let (requests, listener, _session) = requests().await;
        let twice = REPLY.repeat(2);
        for (reply, later) in [(&twice[..], &b""[..]), (REPLY, REPLY), (REPLY, b"HTTP")] {
            let asking = ask(&requests);
            let mut rep = Rep::accept(&listener).await;
            rep.expect(REQUEST).await;
            rep.say(reply).await;
            asking.await.unwrap().unwrap();
            let _ = rep.0.write_all(later).await;
            rep.expect_end().await;
        }
        // The rest of a message would be taken for a reply.
        for rest in 1..REPLY.len() {
            let asking = ask(&requests);
            let mut rep = Rep::accept(&listener).await;
            rep.expect(REQUEST).await;
            rep.say(&twice[..REPLY.len() + rest]).await;
            asking.await.unwrap().unwrap();
            let asking = ask(&requests);
            let mut other = Rep::accept(&listener).await;
            rep.expect_end().await;
            other.expect(REQUEST).await;
            other.say(&twice).await;
            asking.await.unwrap().unwrap();
            other.expect_end().await;
        }
    }

    #[tokio::test]
    async fn a_ping_is_answered_with_and_without_a_request() {
        let (requests, listener, _session) = requests().await;
        let asking = ask(&requests);
        let mut rep = Rep::accept(&listener).await;
        rep.expect(REQUEST).await;
        let (ping, pong) = (b"\x04\x08\x04PING\0\x64x", b"\x04\x06\x04PONGx");
        rep.say(ping).await;
        rep.expect(pong).await;
        rep.say(REPLY).await;
        asking.await.unwrap().unwrap();
        for _ in 0..3 {
            rep.say(ping).await;
            rep.expect(pong).await;
        }
        let asking = ask(&requests);
        rep.expect(REQUEST).await;
        rep.say(REPLY).await;
        asking.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_request_whose_connection_ends_has_failed() {
        let (requests, listener, _session) = requests().await;
        for _ in 0..2 {
            let asking = ask(&requests);
            let mut rep = Rep::accept(&listener).await;
            rep.expect(REQUEST).await;
            drop(rep);
            assert_eq!(asking.await.unwrap().unwrap_err().kind().label(), "connect");
        }
    }

    #[tokio::test]
    async fn a_peer_that_connects_gets_the_requests_that_wait_and_frees_its_place_at_its_end() {
        let (requests, port) = bound().await;
        let asking: Vec<_> = (0..200).map(|_| ask(&requests)).collect();
        let mut rep = Rep::connect(port).await;
        let all = async {
            for _ in 0..200 {
                rep.expect(REQUEST).await;
                rep.say(REPLY).await;
            }
            for asking in asking {
                asking.await.unwrap().unwrap();
            }
        };
        timeout(SOON, all).await.expect("no request to miss the peer that is free");
        let Reach::Port(port) = &requests.reach else { unreachable!() };
        assert!(port.has_peers());
        drop(rep);
        let freed = async {
            while port.has_peers() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(SOON, freed).await.unwrap();
    }
}
