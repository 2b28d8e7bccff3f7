//! Names of hosts.

/// Whether the host is a name that no resolver reads as an address: some read `127.1`, `0x7f.1` and `2130706433` as
/// 127.0.0.1. A host whose last label begins like a number is an address, as in the WHATWG URL standard.
pub(crate) fn is_name(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit())
        || last.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("0x"));
    name.len() <= 253 && name.split('.').all(is_label) && !is_number
}
