//! Jobs of RQ: the call of a Python function, as its workers read it.

use std::borrow::Cow;

use bytes::Bytes;

use crate::config::DataType;
use crate::module::broker::envelope::{object, payload, string};

/// The bytes beside the body for which a job has room at once.
const ROOM: usize = 512;

/// The call `function(payload, headers)`, pickled: the tuple `(function, None, (payload, headers), {})`.
///
/// The pickle calls Python's own `json.loads` with the body of a `json` webhook, and the payload is the result. For a `form`
/// the payload is a `str`, and for a `blob` it is `bytes`. An empty body is `None` for `json`.
pub(super) fn pickled(function: &str, data_type: DataType, body: &Bytes, headers: &[(&str, Cow<'_, str>)]) -> Vec<u8> {
    let mut pickle = Pickle(Vec::with_capacity(body.len() + ROOM));
    pickle.raw(&[0x80, 3]);
    pickle.op(b'(').text(function).op(b'N').op(b'(');
    match (data_type, std::str::from_utf8(body)) {
        (DataType::Json, _) if body.trim_ascii().is_empty() => pickle.op(b'N'),
        // GLOBAL json.loads, its argument as a tuple of one, and REDUCE, which calls it.
        (DataType::Json, _) => pickle.raw(b"cjson\nloads\n").bytes(body).op(0x85).op(b'R'),
        (DataType::Form, Ok(text)) => pickle.text(text),
        (DataType::Form, Err(_)) | (DataType::Blob, _) => pickle.bytes(body),
    };
    // An empty dictionary, and SETITEMS of the pairs behind a mark.
    pickle.op(b'}').op(b'(');
    for (name, value) in headers {
        pickle.text(name).text(value);
    }
    pickle.op(b'u').op(b't').op(b'}').op(b't');
    pickle.done()
}

/// The same call as JSON, for workers with RQ's `JSONSerializer`: `[function, null, [payload, headers], {}]`. The body of
/// a `blob` is a string in Base64.
pub(super) fn json(function: &str, data_type: DataType, body: &Bytes, headers: &[(&str, Cow<'_, str>)]) -> Vec<u8> {
    let mut json = Vec::with_capacity(body.len() + ROOM);
    json.push(b'[');
    string(&mut json, function);
    json.extend_from_slice(b",null,[");
    payload(&mut json, data_type, body);
    json.push(b',');
    object(&mut json, headers);
    json.extend_from_slice(b"],{}]");
    json
}

/// Writes Python's pickle format, protocol 3, which every Python 3 reads.
struct Pickle(Vec<u8>);

impl Pickle {
    fn op(&mut self, op: u8) -> &mut Self {
        self.0.push(op);
        self
    }

    fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// BINUNICODE: a `str`.
    fn text(&mut self, text: &str) -> &mut Self {
        self.op(b'X').length(text.len()).raw(text.as_bytes())
    }

    /// BINBYTES: `bytes`.
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.op(b'B').length(bytes.len()).raw(bytes)
    }

    /// No body has 4 GiB.
    fn length(&mut self, length: usize) -> &mut Self {
        self.raw(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes())
    }

    fn done(&mut self) -> Vec<u8> {
        self.op(b'.');
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    /// The value that Python reads from a pickle.
    fn unpickled(pickle: &[u8]) -> String {
        let script = "import pickle, sys; print(repr(pickle.loads(sys.stdin.buffer.read())))";
        let mut python =
            Command::new("python3").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        python.stdin.take().unwrap().write_all(pickle).unwrap();
        let output = python.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    #[test]
    fn python_reads_the_call() {
        let headers = [("x-a", "\u{e9}".into()), ("x-b", "'".into())];
        for (data_type, body, expected) in [
            (
                DataType::Json,
                &b"{\"a\": [1, 1e400, null, true, \"\\u00e9\", 12345678901234567890123]}"[..],
                "{'a': [1, inf, None, True, 'é', 12345678901234567890123]}",
            ),
            (DataType::Json, b"", "None"),
            (DataType::Form, b"a=1&b=2", "'a=1&b=2'"),
            (DataType::Blob, b"\0\xff\n", "b'\\x00\\xff\\n'"),
        ] {
            let pickle = pickled("tasks.handle", data_type, &Bytes::from_static(body), &headers);
            let whole = format!("('tasks.handle', None, ({expected}, {{'x-a': 'é', 'x-b': \"'\"}}), {{}})");
            assert_eq!(unpickled(&pickle), whole);
        }
    }

    #[test]
    fn the_call_as_json_has_the_body_as_it_was_sent() {
        let call = json("tasks.handle", DataType::Json, &Bytes::from_static(br#"{ "a":1e400}"#), &[]);
        assert_eq!(String::from_utf8(call).unwrap(), r#"["tasks.handle",null,[{ "a":1e400},{}],{}]"#);
    }
}
