//! The body of an admin answer: pieces that are written one after the other, or a stream of events.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::Stream;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

/// How many bytes of a part become one frame. A multiple of three, so that the pieces of a base64 text join.
const PIECE: usize = 48 << 10;

/// The body of the answers of [`Admin`](super::Admin). It never fails.
///
/// While it exists, it counts as one of the answers that are made or read at a time.
pub struct AdminBody {
    kind: Kind,
    place: Option<OwnedSemaphorePermit>,
}

enum Kind {
    /// The parts that are left, the next one last.
    Parts(Vec<Part>),
    Live(Pin<Box<dyn Stream<Item = Bytes> + Send>>),
}

/// A part of a body. Parts are turned into text piece by piece, so that a large event is not held twice.
pub(super) enum Part {
    /// These bytes.
    Plain(Bytes),
    /// The inside of a JSON string. The bytes are UTF-8.
    Text(Bytes),
    /// These bytes in base64.
    Base64(Bytes),
}

impl AdminBody {
    pub(super) fn of_parts(mut parts: Vec<Part>) -> Self {
        parts.reverse();
        Self { kind: Kind::Parts(parts), place: None }
    }

    pub(super) fn live(events: impl Stream<Item = Bytes> + Send + 'static) -> Self {
        Self { kind: Kind::Live(Box::pin(events)), place: None }
    }

    /// Holds `place` until the body is dropped.
    pub(super) fn hold(self, place: OwnedSemaphorePermit) -> Self {
        Self { place: Some(place), ..self }
    }
}

impl From<Bytes> for AdminBody {
    fn from(bytes: Bytes) -> Self {
        Self::of_parts(vec![Part::Plain(bytes)])
    }
}

impl Default for AdminBody {
    fn default() -> Self {
        Self::of_parts(Vec::new())
    }
}

/// Omits the content.
impl fmt::Debug for AdminBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminBody").field("place", &self.place.is_some()).finish_non_exhaustive()
    }
}

impl Body for AdminBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match &mut self.kind {
            Kind::Parts(parts) => next_piece(parts),
            Kind::Live(events) => ready!(events.as_mut().poll_next(cx)),
        };
        Poll::Ready(piece.map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.kind, Kind::Parts(parts) if parts.iter().all(Part::is_empty))
    }

    fn size_hint(&self) -> SizeHint {
        let Kind::Parts(parts) = &self.kind else { return SizeHint::default() };
        let sizes: Option<Vec<u64>> = parts.iter().map(Part::size).collect();
        sizes.map_or_else(SizeHint::default, |sizes| SizeHint::with_exact(sizes.iter().sum()))
    }
}

/// The next piece of the last part.
fn next_piece(parts: &mut Vec<Part>) -> Option<Bytes> {
    loop {
        let part = parts.last_mut()?;
        let piece = part.next();
        if part.is_empty() {
            parts.pop();
        }
        if !piece.is_empty() {
            return Some(piece);
        }
    }
}

impl Part {
    fn bytes(&self) -> &Bytes {
        let (Self::Plain(bytes) | Self::Text(bytes) | Self::Base64(bytes)) = self;
        bytes
    }

    fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// The size of what it turns into, if that is known without turning it.
    fn size(&self) -> Option<u64> {
        match self {
            Self::Plain(bytes) => Some(bytes.len() as u64),
            Self::Text(bytes) => bytes.is_empty().then_some(0),
            Self::Base64(bytes) => Some(bytes.len().div_ceil(3) as u64 * 4),
        }
    }

    fn next(&mut self) -> Bytes {
        match self {
            Self::Plain(bytes) => take(bytes, PIECE),
            Self::Text(bytes) => {
                let piece = take(bytes, char_boundary(bytes, PIECE));
                let text = serde_json::to_string(&String::from_utf8_lossy(&piece)).unwrap_or_default();
                let inside = text.len().saturating_sub(1).max(1);
                Bytes::from(text).slice(1..inside)
            }
            Self::Base64(bytes) => BASE64_STANDARD.encode(take(bytes, PIECE)).into(),
        }
    }
}

fn take(bytes: &mut Bytes, at_most: usize) -> Bytes {
    bytes.split_to(at_most.min(bytes.len()))
}

/// The largest position up to `at_most` at which no character of a UTF-8 text is cut.
fn char_boundary(text: &[u8], at_most: usize) -> usize {
    if text.len() <= at_most {
        return text.len();
    }
    let is_boundary = |at: &usize| text.get(*at).is_some_and(|byte| byte & 0xc0 != 0x80);
    (0..=at_most).rev().take(4).find(is_boundary).filter(|at| *at > 0).unwrap_or(at_most)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::BodyExt;
    use proptest::prelude::*;

    use super::*;

    fn read(body: AdminBody) -> (Option<u64>, Vec<u8>) {
        let size = body.size_hint().exact();
        (size, body.collect().now_or_never().unwrap().unwrap().to_bytes().to_vec())
    }

    #[test]
    fn a_long_text_is_escaped_as_a_whole() {
        for text in ["", "a", "\"\\\n\u{1}é😀", &"é".repeat(PIECE), &format!("a{}", "😀".repeat(PIECE))] {
            let parts = vec![Part::Plain("\"".into()), Part::Text(text.to_owned().into()), Part::Plain("\"".into())];
            let (_, bytes) = read(AdminBody::of_parts(parts));
            assert_eq!(bytes, serde_json::to_vec(text).unwrap(), "{} bytes", text.len());
        }
    }

    #[test]
    fn base64_is_joined_and_its_size_is_known() {
        let bytes: Vec<u8> = (0..u32::try_from(PIECE).unwrap() + 2).map(|at| at as u8).collect();
        let (size, text) = read(AdminBody::of_parts(vec![Part::Base64(bytes.clone().into())]));
        assert_eq!(size, Some(text.len() as u64));
        assert_eq!(text, BASE64_STANDARD.encode(bytes).as_bytes());
    }

    proptest! {
        #[test]
        fn a_known_size_is_right(parts in prop::collection::vec((0..3u8, ".{0,20}"), 0..5)) {
            let parts = parts.into_iter().map(|(kind, text)| match kind {
                0 => Part::Plain(text.into()),
                1 => Part::Text(text.into()),
                _ => Part::Base64(text.into()),
            });
            let (size, bytes) = read(AdminBody::of_parts(parts.collect()));
            prop_assert!(size.is_none_or(|size| size == bytes.len() as u64));
        }
    }
}
