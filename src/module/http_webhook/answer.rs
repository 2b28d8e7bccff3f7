//! Interprets the answers of targets.

use std::error::Error;
use std::time::{Duration, SystemTime};

use bytes::Buf;
use futures_util::FutureExt;
use http::header::{self, HeaderMap};
use http::{StatusCode, response};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::egress::ConnectError;
use crate::event::{Ack, Answer, DeliverError, DeliverErrorKind, LONGEST_WAIT, Reply};
use crate::module::connection::unconnected;

/// The most of an answer's body that is read, in bytes and time, so that its connection can be used again. Beyond that
/// a new connection is cheaper.
const DRAIN: (u64, Duration) = (64 << 10, Duration::from_secs(1));

/// The outcome for the event, from the head of `host`'s answer.
pub(super) fn outcome(host: &str, head: &response::Parts) -> Result<Ack, DeliverError> {
    use DeliverErrorKind as Kind;
    let status = head.status;
    let kind = match status.as_u16() {
        200..300 => return Ok(Ack::Delivered),
        401 | 403 | 407 => Kind::Auth,
        // The target did not receive the request in time, or did not want it early (RFC 8470): states of its own.
        408 => Kind::Timeout,
        429 => Kind::Throttled,
        // A webhook further on has detected a loop. Another attempt would go round it again.
        508 => Kind::Loop,
        425 | 500..600 => Kind::Unavailable,
        _ => Kind::Permanent,
    };
    let error = DeliverError::new(kind, format!("{host} answered {}", named(status)));
    let wait = match kind {
        Kind::Auth | Kind::Permanent | Kind::Loop => None,
        _ => retry_after(&head.headers, SystemTime::now()),
    };
    Err(match wait {
        Some(wait) => error.retry_after(wait),
        None => error,
    })
}

/// The error for a request that `host` did not answer.
pub(super) fn failure(host: &str, error: &(dyn Error + 'static)) -> DeliverError {
    let Some(connect) = causes(error).find_map(|cause| cause.downcast_ref::<ConnectError>()) else {
        // The innermost cause says what happened, the outer ones only where. None contains the URL.
        let cause = causes(error).last().unwrap_or(error);
        return DeliverError::new(DeliverErrorKind::Connect, format!("{host}: {cause}"));
    };
    unconnected(host, connect)
}

/// The error and all its sources.
pub(super) fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// Reads the rest of an answer's body, in the background: the outcome for the event is already decided. `reply` takes the
/// status and the beginning of the body.
pub(super) fn drain<B>(status: StatusCode, body: B, reply: Option<Reply>)
where
    B: Body<Data: Send> + Send + Unpin + 'static,
{
    let (most, patience) = DRAIN;
    let heard = reply.map(|reply| Heard { reply: Some(reply), status: status.as_u16(), body: Vec::new() });
    let is_too_long = body.size_hint().lower() > most;
    if body.is_end_stream() || (is_too_long && heard.is_none()) {
        return;
    }
    // A body that is too long is read only as far as it is wanted.
    let most = if is_too_long { Answer::MAX_BYTES as u64 } else { most };
    let is_wanted = heard.is_some();
    let mut reading = Box::pin(read_at_most(body, most, heard));
    // A short answer is usually there already.
    if is_wanted && (&mut reading).now_or_never().is_some() {
        return;
    }
    // However this ends: dropping the rest of the body closes the connection.
    tokio::spawn(async move { timeout(patience, reading).await });
}

async fn read_at_most<B: Body + Unpin>(mut body: B, most: u64, mut heard: Option<Heard>) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(mut data) = frame.into_data() else { continue };
        read += data.remaining() as u64;
        if heard.as_mut().is_some_and(|heard| heard.is_complete_with(&mut data)) {
            heard = None;
        }
        if read > most {
            return;
        }
    }
}

/// The beginning of an answer's body, which is reported as far as it was read when this is dropped.
struct Heard {
    reply: Option<Reply>,
    status: u16,
    body: Vec<u8>,
}

impl Heard {
    /// Adds bytes. Returns whether no more are wanted.
    fn is_complete_with(&mut self, data: &mut impl Buf) -> bool {
        while data.has_remaining() && self.body.len() < Answer::MAX_BYTES {
            let chunk = data.chunk();
            let taken = chunk.len().min(Answer::MAX_BYTES - self.body.len());
            self.body.extend_from_slice(&chunk[..taken]);
            data.advance(taken);
        }
        self.body.len() == Answer::MAX_BYTES
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        if let Some(reply) = self.reply.take() {
            reply.answered(Answer::new(self.status, &self.body));
        }
    }
}

/// The number and the usual name of a status.
fn named(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// `Retry-After` (RFC 9110 §10.2.3): seconds or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Only a number that is too large fails to parse.
        text.parse().map_or(LONGEST_WAIT, Duration::from_secs)
    } else {
        let until = httpdate::parse_http_date(text).ok()?;
        // A date is read relative to the answer's own `Date`, if it has one: the clock of this machine may be wrong.
        let date = headers.get(header::DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        until.duration_since(date.unwrap_or(now)).unwrap_or_default()
    };
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use http::{HeaderValue, Response};

    use super::*;

    fn head(status: u16, retry_after: Option<&str>) -> response::Parts {
        let mut response = Response::builder().status(status);
        if let Some(text) = retry_after {
            response = response.header("retry-after", text);
        }
        response.body(()).unwrap().into_parts().0
    }

    #[test]
    fn each_status_has_its_meaning() {
        use DeliverErrorKind::{Auth, Loop, Permanent, Throttled, Timeout, Unavailable};
        for status in [200, 201, 202, 204, 226, 299] {
            assert_eq!(outcome("h", &head(status, None)).unwrap(), Ack::Delivered, "{status}");
        }
        for (kind, statuses) in [
            (
                Permanent,
                &[101, 300, 301, 302, 303, 304, 307, 308, 400, 402, 404, 405, 409, 410, 413, 422, 451, 600, 999][..],
            ),
            (Auth, &[401, 403, 407]),
            (Timeout, &[408]),
            (Loop, &[508]),
            (Throttled, &[429]),
            (Unavailable, &[425, 500, 501, 502, 503, 504, 529, 599]),
        ] {
            for &status in statuses {
                let error = outcome("h", &head(status, Some("7"))).unwrap_err();
                assert_eq!(error.kind(), kind, "{status}");
                let wait = (!matches!(kind, Permanent | Auth | Loop)).then_some(Duration::from_secs(7));
                assert_eq!(error.wait(), wait, "{status}");
                assert_eq!(outcome("h", &head(status, None)).unwrap_err().wait(), None, "{status}");
            }
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        // Sun, 06 Nov 1994 08:49:37 GMT
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (text, expected) in [
            ("0", Some(0)),
            ("120", Some(120)),
            ("3600", Some(3600)),
            ("3601", Some(3600)),
            ("99999999999999999999999", Some(3600)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("Sun Nov  6 08:50:37 1994", Some(60)),
            ("Sun, 06 Nov 1994 08:49:00 GMT", Some(0)),
            ("Mon, 06 Nov 2034 08:49:00 GMT", Some(3600)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{text:?}");
        }
    }

    #[test]
    fn a_date_is_relative_to_the_answers_own_date() {
        let headers = HeaderMap::from_iter([
            (header::RETRY_AFTER, HeaderValue::from_static("Sun, 06 Nov 1994 08:50:37 GMT")),
            (header::DATE, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT")),
        ]);
        for now in [UNIX_EPOCH, UNIX_EPOCH + Duration::from_secs(1_795_410_874)] {
            assert_eq!(retry_after(&headers, now), Some(Duration::from_secs(60)));
        }
    }
}
