//! The limit on the nesting of JSON.

/// How many levels deep arrays and objects may be nested.
pub(crate) const MAX_DEPTH: usize = 50;

/// Whether brackets outside of strings are nested more than `limit` levels deep. Exact for well-formed JSON; for any other
/// text the result means nothing, and the parser decides.
pub(super) fn exceeds_depth(text: &[u8], limit: usize) -> bool {
    let mut depth = 0_usize;
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
    }
    false
}

fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}
