//! Targets that do not answer as they should.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncReadExt;
use tower_webhook::Receiver;
use tower_webhook::event::DeliverErrorKind::{Connect, Timeout};

use super::h2::{H2, Peer};
use super::target::{Connection, OK, Target, url};
use super::{Hook, event};
use crate::support::process::free_address;
use crate::support::{eventually, within};

const LIMIT: Duration = Duration::from_millis(500);

/// Asserts that a target that is served like this causes a timeout, and just in time.
async fn assert_times_out<F: Future<Output = ()> + Send + 'static>(serve: impl Fn(Connection) -> F + Send + 'static) {
    let target = Target::serving(serve).await;
    let mut hook = Hook::new(json!({"url": target.url(), "timeout": LIMIT.as_secs_f64()})).await;
    let began = Instant::now();
    let error = hook.fail(Timeout).await;
    assert!(began.elapsed() >= LIMIT && began.elapsed() < 4 * LIMIT, "{:?}", began.elapsed());
    assert!(error.to_string().contains(&target.address.to_string()), "{error}");
}

#[tokio::test]
async fn a_silent_target_is_a_timeout() {
    assert_times_out(async |mut connection| {
        connection.request().await;
        connection.hung_up().await;
    })
    .await;
}

#[tokio::test]
async fn a_target_that_reads_nothing_is_a_timeout() {
    let target = Target::serving(async |connection| {
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(connection);
    })
    .await;
    let mut hook = Hook::new(json!({"url": target.url(), "timeout": LIMIT.as_secs_f64()})).await;
    // More than the sockets' buffers hold.
    let (answer, outcome) = hook.send(event(vec![b'x'; 20 << 20])).await;
    assert_eq!(outcome.unwrap_err().kind(), Timeout);
    assert_eq!(answer.status, 504);
}

#[tokio::test]
async fn a_trickled_head_is_a_timeout() {
    assert_times_out(async |mut connection| {
        connection.request().await;
        connection.send("HTTP/1.1 200 OK\r\nX-Slow: ").await;
        while connection.send("x").await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_tls_handshake_that_hangs_is_a_timeout() {
    let target = Target::serving(async |mut connection| connection.hung_up().await).await;
    let url = target.url().replacen("http:", "https:", 1);
    let mut hook = Hook::new(json!({"url": url, "timeout": LIMIT.as_secs_f64()})).await;
    let began = Instant::now();
    hook.fail(Timeout).await;
    assert!(began.elapsed() < 4 * LIMIT, "{:?}", began.elapsed());
}

/// Asserts that a target that is served like this causes the error of a broken connection.
async fn assert_breaks<F: Future<Output = ()> + Send + 'static>(serve: impl Fn(Connection) -> F + Send + 'static) {
    let target = Target::serving(serve).await;
    let mut hook = Hook::new(json!({"url": target.url()})).await;
    let error = hook.fail(Connect).await;
    assert!(error.to_string().starts_with(&target.address.to_string()), "{error}");
}

#[tokio::test]
async fn a_connection_that_breaks_is_an_error() {
    // The connection breaks at once, after the request, or within the head.
    assert_breaks(async |_| {}).await;
    assert_breaks(async |mut connection| {
        connection.request().await;
    })
    .await;
    assert_breaks(async |mut connection| {
        connection.request().await;
        connection.send("HTTP/1.1 200 OK\r\nContent-").await;
    })
    .await;
}

#[tokio::test]
async fn a_reset_is_an_error() {
    assert_breaks(async |mut connection| {
        connection.request().await;
        // With a linger time of zero, closing sends a reset.
        connection.stream.get_ref().set_zero_linger().unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_is_not_http_is_an_error() {
    for answer in ["SSH-2.0-OpenSSH_9.2\r\n", "220 mail.example ESMTP\r\n", "HTTP/1.1 abc\r\n\r\n", "\0\0\0\0\0\0"] {
        assert_breaks(move |mut connection| async move {
            connection.request().await;
            connection.send(answer).await;
        })
        .await;
    }
    // A head that never ends.
    assert_breaks(async |mut connection| {
        connection.request().await;
        connection.send("HTTP/1.1 200 OK\r\n").await;
        while connection.send(format!("X: {}\r\n", "x".repeat(10_000))).await {}
    })
    .await;
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_an_error() {
    let mut hook = Hook::new(json!({"url": url(free_address())})).await;
    hook.fail(Connect).await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_after_its_head_is_a_success() {
    let target = Target::serving(async |mut connection| {
        connection.request().await;
        connection.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
    })
    .await;
    Hook::new(json!({"url": target.url()})).await.deliver(event("{}")).await;
}

/// Asserts that little of an endless answer with this head is read, and that the connection is closed.
async fn assert_not_read(head: &'static str, pause: Duration) {
    let sent = Arc::<AtomicUsize>::default();
    let ended = Arc::<AtomicUsize>::default();
    let (count, end) = (Arc::clone(&sent), Arc::clone(&ended));
    let target = Target::serving(move |mut connection: Connection| {
        let (count, end) = (Arc::clone(&count), Arc::clone(&end));
        async move {
            connection.request().await;
            connection.send(head).await;
            let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
            while connection.send(&chunk).await {
                count.fetch_add(chunk.len(), Ordering::SeqCst);
                tokio::time::sleep(pause).await;
            }
            end.store(1, Ordering::SeqCst);
        }
    })
    .await;
    let mut hook = Hook::new(json!({"url": target.url()})).await;
    let began = Instant::now();
    hook.deliver(event("{}")).await;
    assert!(began.elapsed() < Duration::from_millis(900), "the answer waited for the body: {:?}", began.elapsed());
    eventually("the connection to be closed", || async { ended.load(Ordering::SeqCst) == 1 }).await;
    // The sockets' buffers accept data that is never read.
    let sent = sent.load(Ordering::SeqCst);
    assert!(sent < 16 << 20, "{head:?}: {sent} bytes");
}

#[tokio::test]
async fn an_answer_without_end_is_not_read() {
    let now = Duration::ZERO;
    assert_not_read("HTTP/1.1 200 OK\r\nContent-Length: 4294967296\r\n\r\n", now).await;
    assert_not_read("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", now).await;
    assert_not_read("HTTP/1.1 200 OK\r\n\r\n", now).await;
    // So slowly that the limit of the size alone would take long to end it.
    assert_not_read("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Duration::from_millis(300)).await;
}

#[tokio::test]
async fn a_deadline_of_the_receiver_ends_the_attempt() {
    let (sender, mut gone) = tokio::sync::mpsc::unbounded_channel();
    let target = Target::serving(move |mut connection: Connection| {
        let sender = sender.clone();
        async move {
            connection.request().await;
            let mut byte = [0];
            let _ = connection.stream.read(&mut byte).await;
            sender.send(()).unwrap();
        }
    })
    .await;
    let hook = Hook::new(json!({"url": target.url()})).await;
    let service = Receiver::of_store(hook.store.clone()).delivery_deadline(LIMIT).build();
    let answer = crate::support::ask(&service, event("{}")).await;
    assert_eq!(answer.status, 504);
    within("the connection to be closed", gone.recv()).await.unwrap();
}

#[tokio::test]
async fn interim_answers_before_an_answer_are_passed_over() {
    let interim = "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n".repeat(20);
    let target = Target::answering(format!("{interim}{OK}")).await;
    let mut hook = Hook::new(json!({"url": target.url()})).await;
    for _ in 0..3 {
        hook.deliver(event("{}")).await;
    }
    assert_eq!(target.connections(), 1);
}

#[tokio::test]
async fn interim_answers_without_end_are_an_error_at_once() {
    for pause in [None, Some(Duration::from_micros(10))] {
        let target = Target::serving(move |mut connection: Connection| async move {
            connection.request().await;
            while connection.send("HTTP/1.1 102 Processing\r\n\r\n".repeat(200)).await {
                if let Some(pause) = pause {
                    tokio::time::sleep(pause).await;
                }
            }
        })
        .await;
        let mut hook = Hook::new(json!({"url": target.url(), "timeout": 200})).await;
        let error = within("the connection to be given up", hook.fail(Connect)).await.to_string();
        assert!(error.contains("too many interim answers"), "{error}");
    }
}

/// With a mock, because no real server does this.
#[tokio::test]
async fn interim_answers_over_http_2_without_end_are_an_error_at_once() {
    let target = H2::serving(&[], async |_, mut peer: Peer| {
        if let Some((stream, _)) = peer.request().await {
            while peer.interim(stream).await {}
        }
    })
    .await;
    let mut hook = Hook::by(target.trusted(), json!({"url": target.url(), "timeout": 200})).await;
    let error = within("the connection to be given up", hook.fail(Connect)).await.to_string();
    assert!(error.contains("too many interim answers"), "{error}");
}

#[tokio::test]
async fn interim_answers_over_http_2_before_an_answer_are_passed_over() {
    let target = H2::serving(&[], async |_, mut peer: Peer| {
        while let Some(request) = peer.request().await {
            for _ in 0..50 {
                peer.interim(request.0).await;
            }
            peer.answer(request).await;
        }
    })
    .await;
    let mut hook = Hook::by(target.trusted(), json!({"url": target.url()})).await;
    for _ in 0..10 {
        hook.deliver(event("{}")).await;
    }
    assert_eq!(target.connections(), 1);
}
