//! Removes secrets from heads, bodies and answers, as far as names tell them.
//!
//! The rules are those that hold elsewhere: a header field whose name sounds secret is masked, as by `credential_cleanup`;
//! fields of JSON and forms are masked by the rule of the module `log`. A text that cannot be read is not kept.

use http::HeaderName;

use crate::base::secret_names::{REDACTED, is_credential, is_secret, sounds_secret};
use crate::config::DataType;
use crate::form;
use crate::history::Body;
use crate::json;

/// The most bytes of a body that are kept.
pub(super) const MAX_BODY: usize = 64 << 10;

/// The most bytes of names and values of a head that are kept.
const MAX_HEAD: usize = 16 << 10;

/// A value as it is kept, and whether it is kept whole and unchanged.
pub(super) struct Kept<T> {
    pub(super) value: T,
    pub(super) is_exact: bool,
}

/// The header fields in order, without secrets. They are exact although values are masked: a mask can be told from a value.
pub(super) fn head<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Kept<Vec<(String, String)>> {
    let mut kept = Kept { value: Vec::new(), is_exact: true };
    let mut bytes = 0;
    for (name, value) in fields {
        bytes += name.len() + value.len();
        if bytes > MAX_HEAD {
            kept.is_exact = false;
            break;
        }
        let name = String::from_utf8_lossy(name).into_owned();
        let is_credential = HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| is_credential(&name));
        let text = match is_credential || sounds_secret(&name) {
            true => None,
            false => String::from_utf8(value.into()).ok(),
        };
        kept.value.push((name, text.unwrap_or_else(|| REDACTED.to_owned())));
    }
    kept
}

/// The beginning of a body, without secrets; `None` if nothing can be kept of it.
pub(super) fn body(data_type: DataType, body: &Body) -> Kept<Option<Vec<u8>>> {
    let nothing = Kept { value: None, is_exact: false };
    let (bytes, is_whole) = match body {
        Body::Left(_) => return nothing,
        Body::Whole(bytes) => (&bytes[..bytes.len().min(MAX_BODY)], bytes.len() <= MAX_BODY),
        Body::Beginning(bytes, _) => (&bytes[..bytes.len().min(MAX_BODY)], false),
    };
    let cleaned = match (data_type, is_whole) {
        (DataType::Blob, _) => Ok(None),
        (DataType::Json, true) => json::clean(bytes, Some(REDACTED), &is_secret).map_err(|_| ()),
        (DataType::Json, false) => json::clean_beginning(bytes, REDACTED, &is_secret).map(Some).map_err(|_| ()),
        (DataType::Form, true) => form::clean(bytes, Some(REDACTED), &is_secret).map_err(|_| ()),
        (DataType::Form, false) => beginning_of_form(bytes),
    };
    match cleaned {
        Err(()) => nothing,
        Ok(None) => Kept { value: Some(bytes.to_vec()), is_exact: is_whole },
        Ok(Some(mut text)) => {
            // Masks may be longer than what they replace.
            text.truncate(MAX_BODY);
            Kept { value: Some(text), is_exact: false }
        }
    }
}

/// The whole fields at the beginning of a form: a field that is cut off may hold half a secret.
fn beginning_of_form(bytes: &[u8]) -> Result<Option<Vec<u8>>, ()> {
    let end = bytes.iter().rposition(|byte| *byte == b'&').ok_or(())?;
    let whole = &bytes[..end];
    let cleaned = form::clean(whole, Some(REDACTED), &is_secret).map_err(|_| ())?;
    Ok(Some(cleaned.unwrap_or_else(|| whole.to_vec())))
}

/// The beginning of a target's answer, as text without secrets. A target may repeat the event in its answer.
pub(super) fn answer(body: &[u8]) -> String {
    let is_json = matches!(body.trim_ascii_start().first(), Some(b'{' | b'[' | b'"'));
    if !is_json {
        return String::from_utf8_lossy(body).into_owned();
    }
    let cleaned = match json::clean(body, Some(REDACTED), &is_secret) {
        Ok(None) => Some(body.to_vec()),
        Ok(cleaned) => cleaned,
        // It is cut off, or not JSON.
        Err(_) => json::clean_beginning(body, REDACTED, &is_secret).ok(),
    };
    cleaned.map_or_else(String::new, |text| String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn kept(data_type: DataType, text: &str) -> (Option<String>, bool) {
        let kept = body(data_type, &Body::Whole(Bytes::copy_from_slice(text.as_bytes())));
        (kept.value.map(|text| String::from_utf8(text).unwrap()), kept.is_exact)
    }

    fn beginning(data_type: DataType, text: &str) -> Option<String> {
        let kept = body(data_type, &Body::Beginning(Bytes::copy_from_slice(text.as_bytes()), 1 << 20));
        assert!(!kept.is_exact);
        kept.value.map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn secrets_are_masked_in_json_and_forms_and_blobs_stay_as_they_are() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(kept(DataType::Json, r#"{"a": 1}"#), (some(r#"{"a": 1}"#), true));
        let masked = r#"{"a": 1, "api_key": "***REDACTED***"}"#;
        assert_eq!(kept(DataType::Json, r#"{"a": 1, "api_key": "hunter2"}"#), (some(masked), false));
        assert_eq!(
            kept(DataType::Json, r#"{"token": "hunter2""#),
            (None, false),
            "a text that cannot be read is not kept"
        );
        assert_eq!(kept(DataType::Form, "a=1&password=hunter2"), (some("a=1&password=***REDACTED***"), false));
        assert_eq!(kept(DataType::Form, "a=%zz&password=hunter2"), (None, false));
        assert_eq!(kept(DataType::Blob, "password=hunter2"), (some("password=hunter2"), true));
        assert_eq!(kept(DataType::Json, "").0, None);
        assert_eq!(kept(DataType::Blob, ""), (some(""), true));
    }

    #[test]
    fn a_beginning_is_masked_as_a_whole_body_is() {
        let found = beginning(DataType::Json, r#"{"a": 1, "api_key": "hunter2", "b": {"token": "hunt"#);
        assert_eq!(found.unwrap(), r#"{"a": 1, "api_key": "***REDACTED***", "b": {"token": "***REDACTED***""#);
        assert_eq!(
            beginning(DataType::Form, "a=1&token=hunter2&b=2&password=hunt").unwrap(),
            "a=1&token=***REDACTED***&b=2"
        );
        assert_eq!(beginning(DataType::Form, "payload=%7B%22token%22%3A%22hunt"), None);
        assert_eq!(beginning(DataType::Blob, "bytes").unwrap(), "bytes");
    }

    #[test]
    fn many_short_secrets_do_not_make_a_body_larger() {
        let text = format!("[{}{{}}]", r#"{"pwd":1},"#.repeat(MAX_BODY / 10 - 1));
        assert_eq!(kept(DataType::Json, &text).0.unwrap().len(), MAX_BODY);
    }

    #[test]
    fn a_header_whose_name_sounds_secret_is_masked() {
        let sent: [(&[u8], &[u8]); 7] = [
            (b"content-type", b"application/json"),
            (b"authorization", b"Bearer hunter2"),
            (b"cookie", b"hunter2"),
            (b"x-api-key", b"hunter2"),
            (b"x-hub-signature-256", b"sha256=hunter2"),
            (b"x-odd", b"\xff"),
            (b"x-event", b"push"),
        ];
        let kept = head(sent.into_iter());
        let values: Vec<_> = kept.value.iter().map(|(_, value)| &**value).collect();
        assert_eq!(values, ["application/json", REDACTED, REDACTED, REDACTED, REDACTED, REDACTED, "push"]);
        assert!(kept.is_exact);
        let long = vec![b'x'; MAX_HEAD];
        let kept = head([(&b"a"[..], &long[..]), (b"b", b"c")].into_iter());
        assert!(kept.value.is_empty() && !kept.is_exact, "a head that is too long is cut");
    }

    #[test]
    fn an_answer_is_kept_without_its_secrets() {
        assert_eq!(answer(b"no such user"), "no such user");
        assert_eq!(answer(br#"{"sent": {"token": "hunter2"}}"#), r#"{"sent": {"token": "***REDACTED***"}}"#);
        assert_eq!(answer(br#"{"sent": {"token": "hunt"#), r#"{"sent": {"token": "***REDACTED***""#);
        assert_eq!(answer(br#"{"token" = "hunter2"}"#), "");
    }
}
