//! Counts the webhooks that an event has passed, to stop webhooks that send to each other.

use http::header::{HeaderMap, HeaderName};

use crate::event::{DeliverError, DeliverErrorKind};

/// A request carries this field once, with the number of webhooks that the event has passed.
pub(super) const FIELD: HeaderName = HeaderName::from_static("x-webhook-hops");

/// The most webhooks that an event may pass.
const MOST: u8 = 8;

/// The number for the next request, from the received fields; `None` if the event may not be sent any further.
pub(super) fn next(received: &HeaderMap) -> Option<u8> {
    let passed = received.get_all(FIELD).iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    // A proxy may have added a field or joined several: the largest number is the safe one.
    let passed = passed.map(count).max().unwrap_or(0);
    (passed < MOST).then(|| passed + 1)
}

/// The count in one item of the field's list. An empty item does not count (RFC 9110 §5.6.1). An item that is not a
/// number may be a damaged one: it ends the loop, at the cost of this event only.
fn count(item: &[u8]) -> u8 {
    match item.trim_ascii() {
        b"" => 0,
        item if item.iter().all(u8::is_ascii_digit) => {
            std::str::from_utf8(item).ok().and_then(|digits| digits.parse().ok()).unwrap_or(MOST)
        }
        _ => MOST,
    }
}

/// The error for an event that is not sent to `host`.
pub(super) fn error(host: &str) -> DeliverError {
    let reason = format!(
        "{host}: not sent, because `{FIELD}` of the event is {MOST} or more, or no number: it has passed {MOST} webhooks. \
         Check that no webhooks send to each other"
    );
    DeliverError::new(DeliverErrorKind::Loop, reason)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(values: &[&[u8]]) -> Option<u8> {
        let value = |value: &&[u8]| (FIELD, HeaderValue::from_bytes(value).unwrap());
        next(&values.iter().map(value).collect())
    }

    #[test]
    fn the_largest_number_counts() {
        for (values, expected) in [
            (&[][..], 1),
            (&[&b"0"[..]], 1),
            (&[b"1"], 2),
            (&[b" 7\t"], 8),
            (&[b"007"], 8),
            (&[b""], 1),
            (&[b" , "], 1),
            (&[b"1, 3,2"], 4),
            (&[b"5", b"2"], 6),
        ] {
            assert_eq!(of(values), Some(expected), "{values:?}");
        }
        for values in [&[&b"8"[..]][..], &[b"9"], &[b"255"], &[b"256"], &[b"99999999999999999999"], &[b"1", b"8"]] {
            assert_eq!(of(values), None, "{values:?}");
        }
    }

    #[test]
    fn an_item_that_is_not_a_number_ends_the_loop() {
        for value in [&b"x"[..], b"-1", b"+1", b"1.0", b"0x1", b"1 2", b"***", b"\xff", b"1;2", b"1,x"] {
            assert_eq!(of(&[value]), None, "{value:?}");
        }
    }
}
