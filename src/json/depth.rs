//! How deep JSON may be.

/// How many arrays and objects may stand inside one another.
pub const MAX_DEPTH: usize = 50;

/// Whether brackets outside of strings are ever open more than `limit` deep. Exact for well-formed text; for any
/// other text it may say either, and the parser has the word.
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
