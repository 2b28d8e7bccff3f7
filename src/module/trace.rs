//! W3C Trace Context: <https://www.w3.org/TR/trace-context/>.

use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Copies the trace of the received fields; copies neither field if `traceparent` is invalid.
#[cfg(feature = "http-webhook")]
pub(crate) fn propagate(received: &HeaderMap, headers: &mut HeaderMap) {
    headers.remove(TRACEPARENT);
    headers.remove(TRACESTATE);
    let Some(parent) = parent(received) else { return };
    headers.insert(TRACEPARENT, parent.clone());
    for state in received.get_all(TRACESTATE) {
        headers.append(TRACESTATE, state.clone());
    }
}

/// The received `traceparent`, if there is exactly one and it is valid.
pub(crate) fn parent(received: &HeaderMap) -> Option<&HeaderValue> {
    let mut parents = received.get_all(TRACEPARENT).iter();
    match (parents.next(), parents.next()) {
        (Some(parent), None) if is_valid(parent.as_bytes()) => Some(parent),
        _ => None,
    }
}

/// Whether the value is a `traceparent`: `version-trace_id-parent_id-flags`. A later version may be followed by more.
fn is_valid(value: &[u8]) -> bool {
    let mut parts = value.split(|&byte| byte == b'-');
    let mut hex = |length: usize| {
        parts
            .next()
            .filter(|part| part.len() == length && part.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')))
    };
    let (Some(version), Some(trace), Some(parent), Some(_)) = (hex(2), hex(32), hex(16), hex(2)) else { return false };
    let is_zero = |part: &[u8]| part.iter().all(|&byte| byte == b'0');
    !is_zero(trace) && !is_zero(parent) && version != b"ff" && (version != b"00" || parts.next().is_none())
}

/// A valid `traceparent` begins with the standard's parts; in a later version any bytes may follow.
#[cfg(fuzzing)]
pub(crate) fn fuzz(value: &[u8]) {
    if is_valid(value) {
        let parts: Vec<_> = value[..55].split(|byte| *byte == b'-').map(<[u8]>::len).collect();
        assert_eq!(parts, [2, 32, 16, 2]);
        assert!(value.len() == 55 || (value[55] == b'-' && !value.starts_with(b"00")));
    }
}

#[cfg(all(test, feature = "http-webhook"))]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn propagated(parents: &[&str]) -> HeaderMap {
        let mut received = HeaderMap::new();
        for parent in parents {
            received.append(TRACEPARENT, HeaderValue::from_str(parent).unwrap());
        }
        for state in ["a=1", "b=2"] {
            received.append(TRACESTATE, HeaderValue::from_static(state));
        }
        let mut headers = received.clone();
        propagate(&received, &mut headers);
        headers
    }

    #[test]
    fn a_valid_trace_goes_on_unchanged() {
        let later = format!("cc-{}-what-ever", &PARENT[3..]);
        for parent in [PARENT, &PARENT.replace("-01", "-00"), &PARENT.replacen("00", "01", 1), &later] {
            let headers = propagated(&[parent]);
            assert_eq!(headers[TRACEPARENT], parent);
            assert_eq!(headers.get_all(TRACESTATE).iter().collect::<Vec<_>>(), ["a=1", "b=2"]);
        }
    }

    #[test]
    fn an_invalid_trace_is_dropped_with_its_state() {
        let wrong = [
            "",
            "x",
            &PARENT[..54],
            &format!("{PARENT}0"),
            &format!("{PARENT}-"),
            &format!("{PARENT}-00"),
            &PARENT.to_uppercase(),
            &PARENT.replacen("00", "ff", 1),
            &PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &PARENT.replace("4bf9", "4bg9"),
            &PARENT.replace('-', "_"),
            &format!("cc-{}0", &PARENT[3..]),
        ];
        for parents in wrong.iter().map(|parent| vec![*parent]).chain([vec![], vec![PARENT, PARENT]]) {
            assert!(propagated(&parents).is_empty(), "{parents:?}");
        }
    }
}
