//! What a text is that is no JSON, as far as its first bytes tell. Nothing of the text is quoted.

/// What stands there instead of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instead {
    Nothing,
    Mark(&'static str),
    Utf16,
    Compressed(&'static str),
    Form,
    Multipart,
    Xml,
    SingleQuotes,
    ObjectObject,
}

impl Instead {
    /// What a text that is no JSON looks like; `None` if it looks like JSON with a fault.
    pub(crate) fn of(text: &[u8]) -> Option<Self> {
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
        let magic = begins(&MARKS).map(Self::Mark).or_else(|| begins(&COMPRESSED).map(Self::Compressed));
        let trimmed = text.trim_ascii_start();
        match trimmed {
            _ if magic.is_some() => magic,
            b"" => Some(Self::Nothing),
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

    /// What a sender says that its body is, in `Content-Type`.
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

    /// In words, behind `found`.
    pub(crate) fn found(self) -> String {
        match self {
            Self::Nothing => "nothing".to_owned(),
            Self::Mark(encoding) => format!("a byte order mark ({encoding}) before it"),
            Self::Utf16 => "text in UTF-16".to_owned(),
            Self::Compressed(name) => format!("compressed data ({name})"),
            Self::Form => "a form (application/x-www-form-urlencoded)".to_owned(),
            Self::Multipart => "a form (multipart/form-data)".to_owned(),
            Self::Xml => "XML or HTML".to_owned(),
            Self::SingleQuotes => "single quotes around a string or name".to_owned(),
            Self::ObjectObject => "the text that JavaScript makes of an object".to_owned(),
        }
    }

    /// What a sender does about it.
    pub(crate) fn mend(self) -> &'static str {
        match self {
            Self::Nothing => "send one JSON value",
            Self::Mark("UTF-8") => "send it without the mark",
            Self::Mark(_) | Self::Utf16 => "send it in UTF-8 without a byte order mark",
            Self::Compressed(_) => "send it uncompressed",
            Self::Form | Self::Multipart | Self::Xml => {
                "send JSON, or set the webhook's `data_type` to `blob`, which takes any bytes"
            }
            Self::SingleQuotes => "write double quotes, as a JSON library does",
            Self::ObjectObject => "send what `JSON.stringify` makes of it",
        }
    }
}

/// `name=value`: a name in the characters of a form, and a `=` behind it.
fn is_form(text: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~%+*[]!$()".contains(byte);
    let name = text.iter().take_while(|byte| is_plain(byte)).count();
    name > 0 && text.get(name) == Some(&b'=')
}

/// A boundary and the first field of a part, behind two hyphens.
fn is_multipart(rest: &[u8]) -> bool {
    let line = rest.iter().position(|byte| *byte == b'\n').map(|end| &rest[end + 1..]);
    line.is_some_and(|line| line.len() >= 8 && line[..8].eq_ignore_ascii_case(b"content-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_tell() {
        for (text, instead) in [
            (&b""[..], Instead::Nothing),
            (b" \r\n", Instead::Nothing),
            (b"\xef\xbb\xbf{}", Instead::Mark("UTF-8")),
            (b"\xff\xfe{\0}\0", Instead::Mark("UTF-16")),
            (b"\xfe\xff\0{\0}", Instead::Mark("UTF-16")),
            (b"\xff\xfe\0\0{\0\0\0", Instead::Mark("UTF-32")),
            (b"{\0}\0", Instead::Utf16),
            (b"\0{\0}", Instead::Utf16),
            (b"\x1f\x8b\x08\0", Instead::Compressed("gzip")),
            (b"\x28\xb5\x2f\xfd\x04", Instead::Compressed("zstd")),
            (b"x\x9c\xab", Instead::Compressed("deflate")),
            (b"a=1&b=2", Instead::Form),
            (b"payload=%7B%22a%22%3A1%7D", Instead::Form),
            (b"item%5B0%5D=", Instead::Form),
            (b"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--", Instead::Multipart),
            (b"<?xml version=\"1.0\"?><a/>", Instead::Xml),
            (b"{'a': 1}", Instead::SingleQuotes),
            (b"[ 'a']", Instead::SingleQuotes),
            (b"'a'", Instead::SingleQuotes),
            (b"[object Object]", Instead::ObjectObject),
        ] {
            assert_eq!(Instead::of(text), Some(instead), "{:?}", String::from_utf8_lossy(text));
        }
        for text in
            [&b"{"[..], b"[1,]", b"{} {}", b"nul", b"hello", b"=", b"a b=c", b"\"a=b", b"1", b"-1x", b"--", b"\xff"]
        {
            assert_eq!(Instead::of(text), None, "{:?}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_content_type_tells_without_its_parameters() {
        let of = |text: &str| Instead::of_content_type(text.as_bytes());
        assert_eq!(of("Application/X-WWW-Form-Urlencoded; charset=utf-8"), Some(Instead::Form));
        assert_eq!(of("multipart/form-data;boundary=x"), Some(Instead::Multipart));
        assert_eq!((of("application/json"), of("")), (None, None));
    }
}
