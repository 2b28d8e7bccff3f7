//! Checks the path of a webhook that names a connection: it must not lead out of the connection's path.

use crate::config::BuildError;

/// Checks that no server reads a segment of `path` as `.` or `..`, or as more than one segment. `path` has no query.
///
/// Servers, and the proxies before them, decode a path and resolve its `..`, in this order or the reverse, and some do
/// it twice. So a path that two of them may understand differently is refused.
pub(super) fn check(path: &str) -> Result<(), BuildError> {
    // Some servers read `\` as `/`.
    path.split(['/', '\\']).try_for_each(check_segment)
}

fn check_segment(segment: &str) -> Result<(), BuildError> {
    // Some servers decode `%c0%ae`, an overlong encoding of `.` that UTF-8 forbids.
    let decoded =
        String::from_utf8(decode(segment)?).map_err(|_| "the path in `url` must be UTF-8 when it is decoded")?;
    // Some servers cut the text after these characters, and some drop blanks and control characters.
    let rest = decoded.split([';', '?', '#', '\0']).next().unwrap_or_default();
    let rest: String = rest.chars().filter(|c| !c.is_whitespace() && !c.is_control()).collect();
    match &*rest {
        "." | ".." => Err("`url` must have no `.` or `..` in its path: it would lead out of the connection's".into()),
        _ => Ok(()),
    }
}

/// Refuses escapes whose decoding splits a segment or makes another escape.
fn decode(segment: &str) -> Result<Vec<u8>, BuildError> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err("`url` must have two hexadecimal digits behind each `%` in its path".into());
        };
        match (high << 4 | low) as u8 {
            b'/' | b'\\' | b'%' => {
                let text = "`url` must have no `%2f`, `%5c` or `%25` in its path: a server that decodes them may be led \
                            out of the connection's";
                return Err(text.into());
            }
            byte => decoded.push(byte),
        }
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_all_servers_read_alike_is_accepted() {
        for path in
            ["", "/", "/a/b.c/..d/e../...", "/a%20b/%2E%2ec", "/a//b", "/a;v=1/b;..", "/caf%C3%A9/%3Fa", "/a%3B.."]
        {
            assert!(check(path).is_ok(), "{path}");
        }
    }

    #[test]
    fn a_dot_segment_is_refused_however_it_is_written() {
        for dot in [".", "%2e", "%2E"] {
            for dots in [dot.to_owned(), format!("{dot}."), format!(".{dot}"), format!("{dot}{dot}")] {
                for end in ["", ";", ";x", "%3b", "%3Bx", "%3fx", "%23", "%00", "%00x", "%20", "%09", "%0D%0a"] {
                    for path in [
                        format!("/{dots}{end}"),
                        format!("/{dots}{end}/x"),
                        format!("/x/{dots}{end}/x"),
                        format!("/x\\{dots}{end}\\x"),
                        format!("//{dots}{end}"),
                    ] {
                        let error = check(&path).unwrap_err().to_string();
                        assert!(error.contains("no `.` or `..`"), "{path}: {error}");
                    }
                }
            }
        }
        assert!(check("/.%09./x").is_err());
    }

    #[test]
    fn an_escape_that_makes_two_segments_or_an_escape_is_refused() {
        for escape in ["%2f", "%2F", "%5c", "%5C", "%25", "%252e", "%252E", "%252f", "%255c", "%25252e"] {
            for path in [
                format!("/{escape}"),
                format!("/a{escape}b"),
                format!("/..{escape}..{escape}admin/x"),
                format!("/{escape}{escape}/admin"),
                format!("/a/b{escape}"),
            ] {
                let error = check(&path).unwrap_err().to_string();
                assert!(error.contains("no `%2f`, `%5c` or `%25`"), "{path}: {error}");
            }
        }
    }

    #[test]
    fn an_invalid_escape_is_refused() {
        for path in ["/%", "/a%2", "/%zz", "/%2/e", "/%u002e%u002e/x", "/%+2e", "/.%"] {
            let error = check(path).unwrap_err().to_string();
            assert!(error.contains("two hexadecimal digits"), "{path}: {error}");
        }
        for path in ["/%c0%ae%c0%ae/x", "/%C0%AF", "/%e0%80%ae", "/%f0%80%80%af", "/%e9"] {
            let error = check(path).unwrap_err().to_string();
            assert!(error.contains("UTF-8"), "{path}: {error}");
        }
    }
}
