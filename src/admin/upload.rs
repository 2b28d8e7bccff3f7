//! Reads the body of a request, within limits.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;
use http_body::Body;
use tokio::time::timeout;

use super::answer::Problem;

/// The largest body.
pub(super) const MAX_BYTES: usize = 1 << 20;

/// How long the whole body may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// The whole body.
///
/// # Errors
///
/// A 413 if it is larger than [`MAX_BYTES`], a 408 if it takes longer than [`DEADLINE`], and a 400 if it breaks off.
pub(super) async fn read<B: Body>(body: B) -> Result<Bytes, Problem> {
    let too_large = || {
        let expected = format!("the body is larger than {MAX_BYTES} bytes, the most that is accepted");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, expected)
    };
    if body.size_hint().lower() > MAX_BYTES as u64 {
        return Err(too_large());
    }
    let mut body = pin!(body);
    let mut whole = BytesMut::new();
    let reading = async {
        // The frame is taken apart at once, so that the future holds no type of the body.
        while let Some(piece) = poll_fn(|cx| {
            let frame = body.as_mut().poll_frame(cx);
            frame.map(|frame| frame.map(|frame| frame.map(piece).map_err(drop)))
        })
        .await
        {
            let piece = piece.map_err(|()| Problem::bad_request("the body broke off"))?;
            if whole.len() + piece.len() > MAX_BYTES {
                return Err(too_large());
            }
            whole.extend_from_slice(&piece);
        }
        Ok(())
    };
    let late = || Problem::new(StatusCode::REQUEST_TIMEOUT, format!("the body did not arrive within {DEADLINE:?}"));
    timeout(DEADLINE, reading).await.map_err(|_| late())??;
    Ok(whole.freeze())
}

fn piece<D: Buf>(frame: http_body::Frame<D>) -> Bytes {
    frame.into_data().map_or_else(|_| Bytes::new(), |mut data| data.copy_to_bytes(data.remaining()))
}
