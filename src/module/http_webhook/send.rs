//! One attempt: a request, repeated if the target has not processed it or if that is unknown.

use std::error::Error as StdError;
use std::future::pending;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Error;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use tokio::time::sleep;

use super::answer::causes;
use crate::egress::{Clients, ConnectError, Life};

/// The waits before a request that the target has not processed is sent again. Only the first repetition uses a shared
/// connection, where trouble with other requests may end this one too.
const PAUSES: [Duration; 5] =
    [Duration::ZERO, Duration::ZERO, Duration::from_millis(50), Duration::from_millis(200), Duration::from_millis(800)];

/// The time after the end of its connection in which a request may still get its answer or an error.
const LAST_WORD: Duration = Duration::from_millis(500);

/// The fate of a request that got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The target has not processed the request, and will not.
    Unprocessed,
    /// The connection was closed before an answer. If the request was sent, it is unknown whether it arrived.
    Unknown,
    /// There is no connection, or the target failed while it had the request.
    Failed,
}

/// Sends the request that `request` makes, and repeats it as [`HttpWebhook`](super::HttpWebhook) describes.
pub(super) async fn send(
    clients: &Clients,
    request: impl Fn() -> Request<Full<Bytes>>,
) -> Result<Response<Incoming>, Error> {
    let mut client = &clients.pooled;
    let mut pauses = PAUSES.into_iter();
    let mut repeated = false;
    loop {
        let mut request = request();
        let connection = capture_connection(&mut request);
        let answer = tokio::select! {
            biased;
            answer = client.request(request) => answer,
            () = lost(connection), if !repeated => {
                repeated = true;
                client = &clients.alone;
                continue;
            }
        };
        let error = match answer {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        match fate(&error) {
            Fate::Unprocessed => {
                let Some(pause) = pauses.next() else { return Err(error) };
                if pauses.len() + 1 < PAUSES.len() {
                    client = &clients.alone;
                    sleep(pause).await;
                }
            }
            Fate::Unknown if !repeated => {
                repeated = true;
                client = &clients.alone;
            }
            Fate::Unknown | Fate::Failed => return Err(error),
        }
    }
}

/// Waits until the connection of a request has ended without any result for the request. hyper loses a request that it
/// hands over at the very moment when the connection ends (hyper#4122), which would otherwise wait for `timeout`.
async fn lost(mut connection: CaptureConnection) {
    loop {
        let life = connection.wait_for_connection_metadata().await.as_ref().and_then(Life::of);
        // Without a connection there will be an error.
        let Some(life) = life else { return pending().await };
        life.request();
        life.ended().await;
        sleep(LAST_WORD).await;
        // The request may have moved to another connection by now.
        let now = connection.connection_metadata().as_ref().and_then(Life::of);
        if now.is_some_and(|now| now.is_same(&life)) {
            return;
        }
    }
}

fn fate(error: &Error) -> Fate {
    let Some(connection) = error.connect_info() else {
        // Nothing was sent: no connection can be made, or the request waited for another one's connection, which
        // closed.
        let cannot_connect = causes(error).any(|cause| cause.is::<ConnectError>() || cause.is::<io::Error>());
        return if cannot_connect { Fate::Failed } else { Fate::Unknown };
    };
    let Some(cause) = error.source().and_then(|cause| cause.downcast_ref::<hyper::Error>()) else {
        return Fate::Failed;
    };
    if connection.is_negotiated_h2() {
        return fate_of_stream(cause);
    }
    match Life::of(connection).is_some_and(|life| life.ended_between_requests()) {
        true => Fate::Unknown,
        false => Fate::Failed,
    }
}

fn fate_of_stream(error: &hyper::Error) -> Fate {
    let Some(cause) = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>()) else {
        // Canceled before it was a stream; or waiting for the target to allow one more stream when GOAWAY came; or the
        // connection does not answer to PING.
        return if error.is_canceled() || error.is_user() || error.is_timeout() { Fate::Unknown } else { Fate::Failed };
    };
    // RFC 9113 §8.7. A GOAWAY is an error only of streams above its last stream.
    let is_refused = cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
    if cause.is_remote() && (cause.is_go_away() || is_refused) {
        Fate::Unprocessed
    } else if cause.is_io() {
        Fate::Unknown
    } else {
        Fate::Failed
    }
}
