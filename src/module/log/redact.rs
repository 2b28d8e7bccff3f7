//! A payload without its secrets.

use serde_json::Value;

use crate::sensitive::{REDACTED, is_secret};

/// Replaces the values of secret fields, whatever they are.
pub(super) fn redact(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Object(fields) => {
            for (name, value) in fields {
                if is_secret(name) {
                    *value = Value::String(REDACTED.to_owned());
                } else {
                    redact(value);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_value_goes() {
        let mut value = serde_json::json!({"a": [{"token": {"value": "x"}, "b": 1}], "secret": ["x", "y"]});
        redact(&mut value);
        assert_eq!(value, serde_json::json!({"a": [{"token": REDACTED, "b": 1}], "secret": REDACTED}));
    }
}
