//! The targets of `make fuzz`: each is a property that stands beside the code it is about.

/// A property, by name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("basic", crate::auth::fuzz_basic),
    ("bearer", crate::auth::fuzz),
    ("compile", crate::webhook::fuzz),
    ("form", crate::form::fuzz),
    ("frames", crate::queue::disk::fuzz_frames),
    ("handshake", crate::handshake::fuzz),
    ("hmac", crate::auth::fuzz_hmac),
    ("journal", crate::dedup::fuzz),
    ("json", crate::json::fuzz),
    ("mqtt", crate::module::fuzz_mqtt),
    ("node", crate::config::fuzz_node),
    ("path", crate::layers::fuzz),
    ("placeholder", crate::config::fuzz_placeholder),
    ("query", crate::auth::fuzz_query),
    ("recovery", crate::queue::disk::fuzz_recovery),
    ("saved-copy", crate::source::fuzz),
    ("signature", crate::auth::fuzz_signature),
    ("stomp", crate::module::fuzz_stomp),
    ("traceparent", crate::module::fuzz_trace),
    ("url", crate::module::fuzz_url),
    ("zmtp", crate::module::fuzz_zmtp),
];
