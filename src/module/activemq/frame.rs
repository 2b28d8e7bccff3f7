//! Frames of STOMP 1.2, written and read: <https://stomp.github.io/stomp-specification-1.2.html>.

use std::fmt;

use bytes::{Buf, BytesMut};

/// The longest line of a header to write, in bytes: ActiveMQ refuses longer ones than 10 KiB and ends the connection.
const MAX_WRITTEN_LINE: usize = 8 << 10;

/// The most headers of a frame to write, of which ActiveMQ allows 1,000, and their length in bytes.
const MAX_WRITTEN_HEADERS: usize = 500;
const MAX_WRITTEN_HEAD: usize = 64 << 10;

/// The bounds of a frame to read.
const MAX_LINE: usize = 16 << 10;
const MAX_HEADERS: usize = 128;
const MAX_BODY: usize = 256 << 10;

/// A heart-beat: the end of a line between two frames.
pub(super) const HEART_BEAT: &[u8] = b"\n";

/// The lines of headers, escaped: neither a name nor a value can end its line, or the head.
#[derive(Debug, Default)]
pub(super) struct Headers {
    lines: Vec<u8>,
    number: usize,
}

impl Headers {
    /// Adds a header. Of two with one name a server heeds the first only.
    ///
    /// # Errors
    ///
    /// When it has a NUL, which some servers take for the end of the frame, or is beyond the bounds.
    pub(super) fn add(&mut self, name: &str, value: &str) -> Result<(), Unwritable> {
        let before = self.lines.len();
        escape(name, &mut self.lines);
        self.lines.push(b':');
        escape(value, &mut self.lines);
        self.lines.push(b'\n');
        self.number += 1;
        if name.contains('\0') || value.contains('\0') {
            return Err(Unwritable::Nul);
        }
        if self.lines.len() - before > MAX_WRITTEN_LINE {
            return Err(Unwritable::Line);
        }
        match self.lines.len() <= MAX_WRITTEN_HEAD && self.number <= MAX_WRITTEN_HEADERS {
            true => Ok(()),
            false => Err(Unwritable::Head),
        }
    }
}

/// The head of a frame. The body and a NUL follow.
pub(super) fn head(command: &str, receipt: Option<&str>, headers: &Headers) -> Vec<u8> {
    let mut head = Vec::with_capacity(headers.lines.len() + 64);
    head.extend_from_slice(command.as_bytes());
    head.push(b'\n');
    if let Some(receipt) = receipt {
        head.extend_from_slice(b"receipt:");
        escape(receipt, &mut head);
        head.push(b'\n');
    }
    head.extend_from_slice(&headers.lines);
    head.push(b'\n');
    head
}

/// Why a header cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unwritable {
    Nul,
    Line,
    Head,
}

impl fmt::Display for Unwritable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nul => f.write_str("it has a NUL character"),
            Self::Line => write!(f, "with its name it is longer than {MAX_WRITTEN_LINE} bytes"),
            Self::Head => write!(
                f,
                "with it there are more than {MAX_WRITTEN_HEADERS} headers, or more than {MAX_WRITTEN_HEAD} bytes of them"
            ),
        }
    }
}

fn escape(text: &str, line: &mut Vec<u8>) {
    for byte in text.bytes() {
        match byte {
            b'\\' => line.extend_from_slice(b"\\\\"),
            b'\r' => line.extend_from_slice(b"\\r"),
            b'\n' => line.extend_from_slice(b"\\n"),
            b':' => line.extend_from_slice(b"\\c"),
            byte => line.push(byte),
        }
    }
}

/// A frame of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) command: String,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Frame {
    /// The value of a header: the first, if there are several.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| &**value)
    }
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Invalid(&'static str);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Reads frames from bytes that arrive in pieces. It looks at each byte once, and holds no more than one frame.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    /// How many bytes of the buffer have been searched for the end of a line or of the body.
    searched: usize,
    command: Option<String>,
    headers: Vec<(String, String)>,
    body: Option<Length>,
}

/// How long a body is.
#[derive(Clone, Copy, Debug)]
enum Length {
    Of(usize),
    UpToNul,
}

impl Decoder {
    /// Takes the next frame from the front of `buffer`. `None` if it is not complete yet.
    ///
    /// # Errors
    ///
    /// When the bytes are no frame, or one beyond the bounds. Nothing can be read afterwards.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, Invalid> {
        let length = loop {
            if let Some(length) = self.body {
                break length;
            }
            let Some(line) = self.line(buffer)? else { return Ok(None) };
            match (&self.command, line.is_empty()) {
                // A heart-beat, or what follows a frame.
                (None, true) => {}
                (None, false) => self.command = Some(command(&line)?),
                (Some(_), true) => self.body = Some(self.length()?),
                (Some(_), false) if self.headers.len() == MAX_HEADERS => {
                    return Err(Invalid("it has too many headers"));
                }
                (Some(command), false) => self.headers.push(header(&line, command != "CONNECTED")?),
            }
        };
        let Some(body) = self.take_body(buffer, length)? else { return Ok(None) };
        self.body = None;
        let (command, headers) = (self.command.take().unwrap_or_default(), std::mem::take(&mut self.headers));
        Ok(Some(Frame { command, headers, body }))
    }

    /// The next line, without its end.
    fn line(&mut self, buffer: &mut BytesMut) -> Result<Option<BytesMut>, Invalid> {
        let end = memchr::memchr(b'\n', &buffer[self.searched..]).map(|at| self.searched + at);
        if end.unwrap_or(buffer.len()) > MAX_LINE {
            return Err(Invalid("a line is too long"));
        }
        let Some(end) = end else {
            self.searched = buffer.len();
            return Ok(None);
        };
        self.searched = 0;
        let mut line = buffer.split_to(end);
        buffer.advance(1);
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        Ok(Some(line))
    }

    fn length(&self) -> Result<Length, Invalid> {
        let Some((_, length)) = self.headers.iter().find(|(name, _)| name == "content-length") else {
            return Ok(Length::UpToNul);
        };
        let is_number = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
        match length.parse() {
            Ok(length) if is_number && length <= MAX_BODY => Ok(Length::Of(length)),
            _ if is_number => Err(Invalid("its body is too long")),
            _ => Err(Invalid("its content-length is not a number")),
        }
    }

    fn take_body(&mut self, buffer: &mut BytesMut, length: Length) -> Result<Option<Vec<u8>>, Invalid> {
        let end = match length {
            Length::Of(length) => (buffer.len() > length).then_some(length),
            Length::UpToNul => memchr::memchr(0, &buffer[self.searched..]).map(|at| self.searched + at),
        };
        let Some(end) = end else {
            self.searched = buffer.len();
            return match self.searched > MAX_BODY {
                true => Err(Invalid("its body is too long")),
                false => Ok(None),
            };
        };
        self.searched = 0;
        let body = buffer.split_to(end).to_vec();
        match buffer.get_u8() {
            _ if body.len() > MAX_BODY => Err(Invalid("its body is too long")),
            0 => Ok(Some(body)),
            _ => Err(Invalid("its body is longer than its content-length")),
        }
    }
}

fn command(line: &[u8]) -> Result<String, Invalid> {
    let is_command = line.len() <= 32 && line.iter().all(u8::is_ascii_uppercase);
    let text = std::str::from_utf8(line).ok().filter(|_| is_command);
    text.map(str::to_owned).ok_or(Invalid("it begins with something else than a command"))
}

fn header(line: &[u8], is_escaped: bool) -> Result<(String, String), Invalid> {
    let line = String::from_utf8_lossy(line);
    let (name, value) = line.split_once(':').ok_or(Invalid("a header has no colon"))?;
    match is_escaped {
        true => Ok((unescape(name)?, unescape(value)?)),
        false => Ok((name.to_owned(), value.to_owned())),
    }
}

fn unescape(text: &str) -> Result<String, Invalid> {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        plain.push(match char {
            '\\' => match chars.next() {
                Some('\\') => '\\',
                Some('r') => '\r',
                Some('n') => '\n',
                Some('c') => ':',
                _ => return Err(Invalid("a header has an unknown escape")),
            },
            char => char,
        });
    }
    Ok(plain)
}

/// A frame that was read is the same however its bytes arrive, and after it was written again.
#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut decoder, mut buffer, mut frames) = (Decoder::default(), BytesMut::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                match decoder.next(&mut buffer) {
                    Ok(Some(frame)) => frames.push(frame),
                    Ok(None) => break,
                    Err(_) => return (frames, true),
                }
            }
        }
        (frames, false)
    };
    let (frames, is_invalid) = read(&mut std::iter::once(bytes));
    let (again, failed) = read(&mut bytes.chunks(1));
    assert_eq!((&frames, is_invalid), (&again, failed));
    for frame in frames {
        assert!(frame.headers.len() <= MAX_HEADERS && frame.body.len() <= MAX_BODY);
        let mut headers = Headers::default();
        let escaped = frame.command != "CONNECTED";
        if !escaped || frame.headers.iter().any(|(name, value)| headers.add(name, value).is_err()) {
            continue;
        }
        let again = [&head(&frame.command, None, &headers), &frame.body[..], b"\0"].concat();
        assert_eq!(read(&mut std::iter::once(&again[..])), (vec![frame], false));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The frames in these pieces.
    fn read(pieces: &[&[u8]]) -> Result<Vec<Frame>, Invalid> {
        let (mut decoder, mut buffer, mut frames) = (Decoder::default(), BytesMut::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Some(frame) = decoder.next(&mut buffer)? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    fn written(command: &str, headers: &[(String, String)], body: &[u8]) -> Vec<u8> {
        let mut lines = Headers::default();
        for (name, value) in headers {
            lines.add(name, value).unwrap();
        }
        [&head(command, None, &lines), body, b"\0"].concat()
    }

    #[test]
    fn frames_of_real_servers_are_read() {
        let rabbitmq = b"CONNECTED\nserver:RabbitMQ/3.10.8\nsession:session-tVNnmyeX\nheart-beat:5000,5000\nversion:1.2\n\n\0\n\
            RECEIPT\nreceipt-id:1\n\n\0\n\
            ERROR\nmessage:not_found\ncontent-type:text/plain\ncontent-length:46\n\nNOT_FOUND - no exchange 'missing' in vhost '/'\0\n";
        let frames = read(&[rabbitmq]).unwrap();
        assert_eq!(frames.iter().map(|frame| &*frame.command).collect::<Vec<_>>(), ["CONNECTED", "RECEIPT", "ERROR"]);
        assert_eq!(frames[1].header("receipt-id"), Some("1"));
        assert_eq!(frames[2].body, b"NOT_FOUND - no exchange 'missing' in vhost '/'");
        let activemq = b"CONNECTED\r\nsession:ID:vm-36669-1:1\r\nserver:a\\b\r\n\r\n\0\n\n\n\
            ERROR\nmessage:User limited is not authorized to write to\\c queue\\c//a\nmessage:second\n\nUser\n\tlimited\0\n";
        let frames = read(&[activemq]).unwrap();
        assert_eq!((frames[0].header("session"), frames[0].header("server")), (Some("ID:vm-36669-1:1"), Some("a\\b")));
        assert_eq!(frames[1].header("message"), Some("User limited is not authorized to write to: queue://a"));
        assert_eq!(frames[1].body, b"User\n\tlimited");
    }

    #[test]
    fn other_bytes_are_refused() {
        for (bytes, words) in [
            (&b"HTTP/1.1 400 Bad Request\r\n"[..], "something else than a command"),
            (b"\0\n", "something else"),
            (b"ERROR\nmessage\n\n\0", "no colon"),
            (b"ERROR\na:\\t\n\n\0", "unknown escape"),
            (b"ERROR\na:b\\\n\n\0", "unknown escape"),
            (b"ERROR\ncontent-length:+1\n\nx\0", "not a number"),
            (b"ERROR\ncontent-length:262145\n\n", "too long"),
            (b"ERROR\ncontent-length:99999999999999999999\n\n", "too long"),
            (b"ERROR\ncontent-length:1\n\nxy\0", "longer than its content-length"),
        ] {
            let error = read(&[bytes]).unwrap_err().to_string();
            assert!(error.contains(words), "{bytes:?}: {error}");
        }
        let line = [&b"ERROR\na:"[..], &vec![b'x'; MAX_LINE]].concat();
        assert_eq!(read(&[&line]), Err(Invalid("a line is too long")));
        let many = [&b"ERROR\n"[..], &b"a:b\n".repeat(MAX_HEADERS + 1)].concat();
        assert_eq!(read(&[&many]), Err(Invalid("it has too many headers")));
        let endless = [&b"ERROR\n\n"[..], &vec![b'x'; MAX_BODY + 1]].concat();
        assert_eq!(read(&[&endless]), Err(Invalid("its body is too long")));
        assert_eq!(read(&[&endless, b"\0"]), Err(Invalid("its body is too long")));
        assert_eq!(read(&[&endless[..MAX_BODY], b"\0"]).unwrap().len(), 1);
    }

    #[test]
    fn a_header_beyond_the_bounds_is_not_written() {
        let add = |name: &str, value: &str| Headers::default().add(name, value);
        assert_eq!(add("a", &"x".repeat(8 << 10)), Err(Unwritable::Line));
        assert_eq!(add("a", "b\0c"), Err(Unwritable::Nul));
        assert_eq!(add("a\0", "b"), Err(Unwritable::Nul));
        let mut many = Headers::default();
        assert!((0..500).all(|_| many.add("a", "b").is_ok()));
        assert_eq!(many.add("a", "b"), Err(Unwritable::Head));
        let mut long = Headers::default();
        assert!((0..8).all(|_| long.add("a", &"x".repeat(8000)).is_ok()));
        assert_eq!(long.add("a", &"x".repeat(8000)), Err(Unwritable::Head));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_is_injected(
            headers in prop::collection::vec(("[a-z\\\\:\r\n\u{e9}-]{0,8}", "[^\0]{0,12}|[a\\\\:\r\n\u{e9}]{0,8}"), 0..8),
            body in prop::collection::vec(any::<u8>(), 0..40),
            cut in any::<prop::sample::Index>(),
        ) {
            let headers = [vec![("content-length".to_owned(), body.len().to_string())], headers].concat();
            let bytes = [written("SEND", &headers, &body), b"\n".to_vec(), written("RECEIPT", &[], b"")].concat();
            let (first, second) = bytes.split_at(cut.index(bytes.len()));
            let frames = read(&[first, second]).unwrap();
            prop_assert_eq!(frames.len(), 2);
            prop_assert_eq!((&frames[0].headers, &frames[0].body), (&headers, &body));
        }

        #[test]
        fn the_same_frames_are_read_however_their_bytes_arrive(bytes in "([A-Z]{0,3}|[a-c]:|\\\\|content-length:|[0-9]|\n|\r|\0){0,20}") {
            let pieces: Vec<_> = bytes.as_bytes().chunks(1).collect();
            prop_assert_eq!(read(&[bytes.as_bytes()]).ok(), read(&pieces).ok());
        }
    }
}
