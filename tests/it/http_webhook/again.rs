//! Requests that are sent again within one attempt, and those that are not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use tower_webhook::event::DeliverErrorKind::Connect;

use super::h2::{H2, INTERNAL_ERROR, MAX_CONCURRENT_STREAMS, NO_ERROR, Peer, REFUSED_STREAM};
use super::target::{Connection, OK, Target};
use super::{Hook, event};

/// Long enough for the rest of an answer to be read, and for the connection to return to the pool.
const BREATH: Duration = Duration::from_millis(50);

/// A webhook to `target` that has delivered the event `first`.
async fn hook(target: &H2) -> Hook {
    let mut hook = Hook::by(target.trusted(), json!({"url": target.url()})).await;
    hook.deliver(event("first")).await;
    hook
}

/// Asserts that `count` events that are sent together are all delivered, each once.
async fn assert_all_are_taken(hook: &Hook, target: &H2, count: usize) {
    let names: Vec<_> = (0..count).map(|number| format!("{number:03}")).collect();
    let sending =
        names.iter().map(|name| tower::ServiceExt::oneshot(hook.service.clone(), event(name.clone().into_bytes())));
    for answer in futures_util::future::join_all(sending).await {
        assert_eq!(answer.unwrap().status(), 200);
    }
    let expected: Vec<_> = names.into_iter().chain(["first".to_owned()]).collect();
    assert_eq!(target.taken(), expected);
}

#[tokio::test]
async fn a_stream_above_the_last_one_of_a_goaway_is_sent_again() {
    for code in [NO_ERROR, INTERNAL_ERROR] {
        let target = H2::serving(&[], move |connection, mut peer: Peer| async move {
            if connection > 0 {
                return peer.answer_all().await;
            }
            let first = peer.request().await.unwrap();
            peer.answer(first).await;
            let mut requests = Vec::new();
            while requests.len() < 8 {
                requests.push(peer.request().await.unwrap());
            }
            requests.sort();
            let last = requests[2].0;
            peer.go_away(last, code).await;
            for request in requests.drain(..3) {
                peer.answer(request).await;
            }
            while peer.request().await.is_some() {}
        })
        .await;
        let hook = hook(&target).await;
        assert_all_are_taken(&hook, &target, 8).await;
    }
}

#[tokio::test]
async fn a_goaway_leaves_the_streams_alone_that_the_target_goes_on_with() {
    let target = H2::serving(&[], |_, mut peer: Peer| async move {
        let Some(request) = peer.request().await else { return };
        // First the target announces that it will close, then which stream is the last.
        peer.go_away(u32::MAX >> 1, NO_ERROR).await;
        peer.go_away(request.0, NO_ERROR).await;
        tokio::time::sleep(BREATH).await;
        peer.answer(request).await;
        while peer.request().await.is_some() {}
    })
    .await;
    let hook = hook(&target).await;
    assert_all_are_taken(&hook, &target, 5).await;
}

#[tokio::test]
async fn a_refused_stream_is_sent_again() {
    let seen = Arc::<AtomicUsize>::default();
    let target = H2::serving(&[], move |_, mut peer: Peer| {
        let seen = Arc::clone(&seen);
        async move {
            while let Some(request) = peer.request().await {
                match seen.fetch_add(1, Ordering::SeqCst) {
                    1..5 => peer.reset(request.0, REFUSED_STREAM).await,
                    _ => peer.answer(request).await,
                }
            }
        }
    })
    .await;
    let hook = hook(&target).await;
    assert_all_are_taken(&hook, &target, 1).await;
}

#[tokio::test]
async fn a_target_that_refuses_every_stream_is_given_up() {
    let seen = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&seen);
    let target = H2::serving(&[], move |_, mut peer: Peer| {
        let seen = Arc::clone(&count);
        async move {
            while let Some((stream, _)) = peer.request().await {
                seen.fetch_add(1, Ordering::SeqCst);
                peer.reset(stream, REFUSED_STREAM).await;
            }
        }
    })
    .await;
    let mut hook = Hook::by(target.trusted(), json!({"url": target.url()})).await;
    let error = hook.fail(Connect).await.to_string();
    assert!(error.contains("refused stream"), "{error}");
    assert_eq!(seen.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn a_stream_that_fails_at_the_target_is_not_sent_again() {
    let target = H2::serving(&[], |_, mut peer: Peer| async move {
        let first = peer.request().await.unwrap();
        peer.answer(first).await;
        while let Some((stream, _)) = peer.request().await {
            peer.reset(stream, INTERNAL_ERROR).await;
        }
    })
    .await;
    let mut hook = hook(&target).await;
    hook.fail(Connect).await;
    assert_eq!((target.connections(), target.taken().len()), (1, 1));
}

/// Answers one stream after the other, and refuses streams that come while one is open.
async fn one_by_one(peer: &mut Peer, requests: usize) {
    for _ in 0..requests {
        let Some(request) = peer.request().await else { return };
        while let Ok(another) = timeout(Duration::from_millis(5), peer.request()).await {
            let Some((stream, _)) = another else { return };
            peer.reset(stream, REFUSED_STREAM).await;
        }
        peer.answer(request).await;
    }
}

#[tokio::test]
async fn a_limit_of_one_stream_makes_the_others_wait() {
    let target = H2::serving(&[MAX_CONCURRENT_STREAMS], |_, mut peer: Peer| async move {
        one_by_one(&mut peer, usize::MAX).await;
    })
    .await;
    // Including requests that are sent before the limit is known.
    let hook = Hook::by(target.trusted(), json!({"url": target.url()})).await;
    let sending = (0..20).map(|_| tower::ServiceExt::oneshot(hook.service.clone(), event("{}")));
    for answer in futures_util::future::join_all(sending).await {
        assert_eq!(answer.unwrap().status(), 200);
    }
    assert_eq!(target.taken().len(), 20);
}

#[tokio::test]
async fn a_goaway_while_streams_wait_for_the_limit_costs_none_of_them() {
    let target = H2::serving(&[MAX_CONCURRENT_STREAMS], |_, mut peer: Peer| async move {
        one_by_one(&mut peer, 2).await;
        if let Some((stream, body)) = peer.request().await {
            peer.go_away(stream, NO_ERROR).await;
            peer.answer((stream, body)).await;
        }
        while peer.request().await.is_some() {}
    })
    .await;
    let hook = hook(&target).await;
    assert_all_are_taken(&hook, &target, 20).await;
}

#[tokio::test]
async fn a_connection_of_http_2_that_breaks_costs_no_event() {
    let target = H2::serving(&[], |connection, mut peer: Peer| async move {
        if connection > 0 {
            return peer.answer_all().await;
        }
        let first = peer.request().await.unwrap();
        peer.answer(first).await;
        peer.request().await;
    })
    .await;
    let hook = hook(&target).await;
    assert_all_are_taken(&hook, &target, 1).await;
}

/// Answers the first request of each connection, and does `then` instead of answering the second.
async fn closing_on_the_second<F: Future<Output = ()> + Send + 'static>(
    then: impl Fn(Connection) -> F + Clone + Send + Sync + 'static,
) -> Target {
    Target::serving(move |mut connection: Connection| {
        let then = then.clone();
        async move {
            connection.request().await;
            connection.send(OK).await;
            if connection.request().await {
                then(connection).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_reused_connection_that_closes_instead_of_an_answer_is_no_failure() {
    for reset in [false, true] {
        let mut target = closing_on_the_second(move |connection| async move {
            if reset {
                connection.stream.get_ref().set_zero_linger().unwrap();
            }
        })
        .await;
        let mut hook = Hook::new(json!({"url": target.url()})).await;
        hook.deliver(event("{}")).await;
        target.received().await;
        tokio::time::sleep(BREATH).await;
        let answer = hook.deliver(event("{}")).await;
        // The first request may have arrived: the id shows that both are the same event.
        let (lost, repeated) = (target.received().await, target.received().await);
        assert_eq!(lost.one("x-event-id"), answer.header("x-event-id"));
        assert_eq!(repeated.one("x-event-id"), answer.header("x-event-id"));
        assert_eq!(repeated.one("x-attempt"), "1");
        assert_eq!(target.connections(), 2);
    }
}

#[tokio::test]
async fn an_event_is_repeated_once_only() {
    let connections = Arc::<AtomicUsize>::default();
    let target = Target::serving(move |mut connection: Connection| {
        let first = connections.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if connection.request().await && first {
                connection.send(OK).await;
                connection.request().await;
            }
        }
    })
    .await;
    let mut hook = Hook::new(json!({"url": target.url()})).await;
    hook.deliver(event("{}")).await;
    tokio::time::sleep(BREATH).await;
    hook.fail(Connect).await;
    assert_eq!(target.connections(), 2);
}

#[tokio::test]
async fn nothing_is_repeated_once_an_answer_has_begun() {
    let target = closing_on_the_second(async |mut connection: Connection| {
        connection.send("HTTP/1.1 2").await;
    })
    .await;
    let mut hook = Hook::new(json!({"url": target.url()})).await;
    hook.deliver(event("{}")).await;
    tokio::time::sleep(BREATH).await;
    hook.fail(Connect).await;
    assert_eq!(target.connections(), 1);
}

#[tokio::test]
async fn a_new_connection_that_closes_instead_of_an_answer_is_a_failure() {
    let target = Target::serving(async |mut connection: Connection| {
        connection.request().await;
    })
    .await;
    let mut hook = Hook::new(json!({"url": target.url()})).await;
    hook.fail(Connect).await;
    assert_eq!(target.connections(), 1);
}

/// More than the sockets' buffers hold.
const LARGE: usize = 20 << 20;

/// Reads `length` bytes.
async fn read(connection: &mut Connection, length: usize) -> bool {
    connection.stream.read_exact(&mut vec![0; length]).await.is_ok()
}

#[tokio::test]
async fn nothing_is_repeated_once_an_answer_has_begun_before_the_end_of_the_request() {
    for early in ["HTTP/1.1 103 Early Hints\r\n\r\n", "HTTP/1.1 2"] {
        let target = Target::serving(move |mut connection: Connection| async move {
            connection.request().await;
            connection.send(OK).await;
            read(&mut connection, 1 << 10).await;
            connection.send(early).await;
            tokio::time::sleep(BREATH * 4).await;
            // Reads enough to make room for a write, which then comes after the beginning of the answer.
            read(&mut connection, LARGE / 2).await;
        })
        .await;
        let mut hook = Hook::new(json!({"url": target.url()})).await;
        hook.deliver(event("{}")).await;
        tokio::time::sleep(BREATH).await;
        let (_, outcome) = hook.send(event(b"POST ".repeat(LARGE / 5))).await;
        assert_eq!(outcome.unwrap_err().kind(), Connect, "{early}");
        assert_eq!(target.connections(), 1, "{early}");
    }
}
