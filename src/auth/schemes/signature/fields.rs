//! Places in a request: header fields, and values of a JSON body.

use http::HeaderName;

use crate::auth::AuthError;
use crate::config::CompileError;
use crate::json::{InvalidPointer, Pointer, Scalar};

/// The name of a header field in a configuration.
pub(super) fn header_name(name: &str) -> Result<HeaderName, CompileError> {
    name.parse().map_err(|_| CompileError::new("expected the name of a header field, found another string"))
}

/// A JSON pointer in a configuration.
pub(super) fn pointer(path: &str) -> Result<Pointer, CompileError> {
    Pointer::parse(path).map_err(|InvalidPointer(rule)| CompileError::new(rule))
}

/// The string or number at `pointer`; a number as it is written.
pub(super) fn scalar(pointer: &Pointer, body: &[u8]) -> Result<String, AuthError> {
    match pointer.find(body) {
        Some(Scalar::String(text) | Scalar::Number(text)) => Ok(text),
        None => Err(AuthError::Malformed),
    }
}
