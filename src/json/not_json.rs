//! Recognises texts in other formats than JSON by their first bytes, for errors that help the sender. Nothing of the text
//! is quoted.

/// The format of a text that is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotJson {
    Empty,
    /// JSON behind a byte order mark of this encoding.
    ByteOrderMark(&'static str),
    Utf16,
    Compressed(&'static str),
    Form,
    Multipart,
    Xml,
    SingleQuotes,
    /// The text `[object Object]`.
    ObjectObject,
}

impl NotJson {
    /// The format that a text that is not JSON looks like; `None` if it looks like JSON with a syntax error.
    pub(crate) fn detect(text: &[u8]) -> Option<Self> {
        const MARKS: [(&[u8], &str); 5] = [
            (b"\xef\xbb\xbf", "UTF-8"),
            (b"\xff\xfe\0\0", "UTF-32"),
            (b"\0\0\xfe\xff", "UTF-32"),
            (b"\xff\xfe", "UTF-16"),
            (b"\xfe\xff", "UTF-16"),
        ];
        const COMPRESSED: [(&[u8], &str); 9] = [
            (b"\x1f\x8b", "gzip"),
            (b"\x28\xb5\x2f\xfd", "zstd"),
            (b"\x78\x01", "deflate"),
            (b"\x78\x9c", "deflate"),
            (b"\x78\xda", "deflate"),
            (b"PK\x03\x04", "zip"),
            (b"BZh", "bzip2"),
            (b"\xfd7zXZ\0", "xz"),
            (b"\x04\x22\x4d\x18", "lz4"),
        ];
        let begins = |table: &[(&[u8], &'static str)]| {
            table.iter().find(|(magic, _)| text.starts_with(magic)).map(|(_, name)| *name)
        };
        let magic = begins(&MARKS).map(Self::ByteOrderMark).or_else(|| begins(&COMPRESSED).map(Self::Compressed));
        let trimmed = text.trim_ascii_start();
        match trimmed {
            _ if magic.is_some() => magic,
            b"" => Some(Self::Empty),
            [a, b, ..] if (*a == 0) != (*b == 0) => Some(Self::Utf16),
            [b'<', ..] => Some(Self::Xml),
            [b'-', b'-', rest @ ..] if is_multipart(rest) => Some(Self::Multipart),
            [b'\'', ..] => Some(Self::SingleQuotes),
            [b'{' | b'[', rest @ ..] if rest.trim_ascii_start().starts_with(b"'") => Some(Self::SingleQuotes),
            _ if trimmed.starts_with(b"[object ") => Some(Self::ObjectObject),
            _ if is_form(trimmed) => Some(Self::Form),
            _ => None,
        }
    }

    /// The format that a `Content-Type` names.
    pub(crate) fn of_content_type(value: &[u8]) -> Option<Self> {
        let essence = value.split(|byte| *byte == b';').next().unwrap_or(value).trim_ascii().to_ascii_lowercase();
        match &*essence {
            b"application/x-www-form-urlencoded" => Some(Self::Form),
            b"multipart/form-data" => Some(Self::Multipart),
            b"text/xml" | b"application/xml" | b"text/html" => Some(Self::Xml),
            b"application/gzip" | b"application/x-gzip" => Some(Self::Compressed("gzip")),
            _ => None,
        }
    }

    /// The format in words, to be put after "found".
    pub(crate) fn found(self) -> String {
        match self {
            Self::Empty => "nothing".to_owned(),
            Self::ByteOrderMark(encoding) => format!("a byte order mark ({encoding}) before it"),
            Self::Utf16 => "text in UTF-16".to_owned(),
            Self::Compressed(name) => format!("compressed data ({name})"),
            Self::Form => "a form (application/x-www-form-urlencoded)".to_owned(),
            Self::Multipart => "a form (multipart/form-data)".to_owned(),
            Self::Xml => "XML or HTML".to_owned(),
            Self::SingleQuotes => "single quotes around a string or name".to_owned(),
            Self::ObjectObject => "the text that JavaScript makes of an object".to_owned(),
        }
    }

    /// The advice to the sender.
    pub(crate) fn hint(self) -> &'static str {
        match self {
            Self::Empty => "send one JSON value",
            Self::ByteOrderMark("UTF-8") => "send it without the mark",
            Self::ByteOrderMark(_) | Self::Utf16 => "send it in UTF-8 without a byte order mark",
            Self::Compressed(_) => "send it uncompressed",
            Self::Form => "send JSON, or set the webhook's `data_type` to `form`",
            Self::Multipart | Self::Xml => {
                "send JSON, or set the webhook's `data_type` to `blob`, which takes any bytes"
            }
            Self::SingleQuotes => "write double quotes, as a JSON library does",
            Self::ObjectObject => "send what `JSON.stringify` makes of it",
        }
    }
}

/// `name=value`: characters that are allowed in a form's name, then a `=`.
fn is_form(text: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~%+*[]!$()".contains(byte);
    let name = text.iter().take_while(|byte| is_plain(byte)).count();
    name > 0 && text.get(name) == Some(&b'=')
}

/// After the two hyphens: a boundary, and on the next line the first header field of a part.
fn is_multipart(rest: &[u8]) -> bool {
    let line = rest.iter().position(|byte| *byte == b'\n').map(|end| &rest[end + 1..]);
    line.is_some_and(|line| line.len() >= 8 && line[..8].eq_ignore_ascii_case(b"content-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_recognised_by_their_first_bytes() {
        for (text, format) in [
            (&b""[..], NotJson::Empty),
            (b" \r\n", NotJson::Empty),
            (b"\xef\xbb\xbf{}", NotJson::ByteOrderMark("UTF-8")),
            (b"\xff\xfe{\0}\0", NotJson::ByteOrderMark("UTF-16")),
            (b"\xfe\xff\0{\0}", NotJson::ByteOrderMark("UTF-16")),
            (b"\xff\xfe\0\0{\0\0\0", NotJson::ByteOrderMark("UTF-32")),
            (b"{\0}\0", NotJson::Utf16),
            (b"\0{\0}", NotJson::Utf16),
            (b"\x1f\x8b\x08\0", NotJson::Compressed("gzip")),
            (b"\x28\xb5\x2f\xfd\x04", NotJson::Compressed("zstd")),
            (b"x\x9c\xab", NotJson::Compressed("deflate")),
            (b"a=1&b=2", NotJson::Form),
            (b"payload=%7B%22a%22%3A1%7D", NotJson::Form),
            (b"item%5B0%5D=", NotJson::Form),
            (b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--", NotJson::Multipart),
            (b"<?xml version=\"1.0\"?><a/>", NotJson::Xml),
            (b"{'a': 1}", NotJson::SingleQuotes),
            (b"[ 'a']", NotJson::SingleQuotes),
            (b"'a'", NotJson::SingleQuotes),
            (b"[object Object]", NotJson::ObjectObject),
        ] {
            assert_eq!(NotJson::detect(text), Some(format), "{:?}", String::from_utf8_lossy(text));
        }
        for text in
            [&b"{"[..], b"[1,]", b"{} {}", b"nul", b"hello", b"=", b"a b=c", b"\"a=b", b"1", b"-1x", b"--", b"\xff"]
        {
            assert_eq!(NotJson::detect(text), None, "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_content_type_names_a_format_whatever_its_parameters() {
        let of = |text: &str| NotJson::of_content_type(text.as_bytes());
        assert_eq!(of("Application/X-WWW-Form-Urlencoded; charset=utf-8"), Some(NotJson::Form));
        assert_eq!(of("multipart/form-data;boundary=x"), Some(NotJson::Multipart));
        assert_eq!((of("application/json"), of("")), (None, None));
    }
}
