//! The rate of the module beside that of bare tokio-tungstenite, to a target that reads each message and answers each ping.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{accept_async, client_async};
use tower_webhook::event::Delivery;
use tower_webhook::module::WebSocket;

use super::webhook;
use crate::support::alone;
use crate::support::speed::Subject;

/// A target with a thread of its own. Returns its port.
async fn target() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                tokio::spawn(async move {
                    let mut socket = accept_async(stream).await.unwrap();
                    while let Some(Ok(_)) = socket.next().await {}
                });
            }
        });
    });
    port
}

/// A connection that many tasks share: each sends a message with the means to tell it that its ping was answered.
async fn shared(port: u16, tasks: &mut JoinSet<()>) -> mpsc::UnboundedSender<(Message, oneshot::Sender<()>)> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (socket, _) = client_async(format!("ws://127.0.0.1:{port}/"), stream).await.unwrap();
    let (mut sink, mut stream) = socket.split();
    let (sender, mut queue) = mpsc::unbounded_channel::<(Message, oneshot::Sender<()>)>();
    let waiting = Arc::new(Mutex::new(VecDeque::new()));
    let answered = Arc::clone(&waiting);
    tasks.spawn(async move {
        let mut number = 0_u64;
        while let Some(first) = queue.recv().await {
            let mut next = Some(first);
            while let Some((message, answer)) = next {
                number += 1;
                waiting.lock().unwrap().push_back((number, answer));
                sink.feed(message).await.unwrap();
                sink.feed(Message::Ping(Bytes::copy_from_slice(&number.to_be_bytes()))).await.unwrap();
                next = queue.try_recv().ok();
            }
            sink.flush().await.unwrap();
        }
    });
    tasks.spawn(async move {
        while let Some(Ok(message)) = stream.next().await {
            let Message::Pong(content) = message else { continue };
            let number = u64::from_be_bytes(content[..].try_into().unwrap());
            let mut waiting = answered.lock().unwrap();
            while waiting.front().is_some_and(|(before, _)| *before <= number) {
                let (_, answer): (u64, oneshot::Sender<()>) = waiting.pop_front().unwrap();
                answer.send(()).unwrap();
            }
        }
    });
    sender
}

/// Both have the same acknowledgement: the pong to the ping behind the message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; `make bench-targets` runs it"]
async fn websocket_beside_the_bare_client() {
    let _alone = alone().await;
    let port = target().await;
    let connection = json!({"type": "websocket", "url": format!("ws://127.0.0.1:{port}/")});
    let mut webhook = webhook(&json!({}));
    webhook["data_type"] = json!("json");
    let module = Subject::<WebSocket>::new(&connection, &webhook).await;
    let mut tasks = JoinSet::new();
    let bare = shared(port, &mut tasks).await;
    let send = move |event: Delivery| {
        let bare = bare.clone();
        async move {
            let text = [br#"{"payload":"#, &event.body()[..], b"}"].concat();
            let (answer, answered) = oneshot::channel();
            bare.send((Message::text(String::from_utf8(text).unwrap()), answer)).unwrap();
            answered.await.unwrap();
        }
    };
    module.beside("websocket", send, async || {}).await;
}
