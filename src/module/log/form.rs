//! Prints a form as JSON.

use std::borrow::Cow;
use std::collections::HashMap;

use super::config::LogConfig;
use crate::base::secret_names::{REDACTED, is_secret};
use crate::form::{check, fields, json_within};
use crate::json::clean;

/// The form as a JSON object, without its secrets. The values of a repeated name become an array; a value that is a JSON
/// object or array is inserted as such. `None` if the form is malformed.
pub(super) fn render(form: &[u8], config: LogConfig) -> Option<String> {
    check(form).ok()?;
    let mut names: Vec<Cow<'_, str>> = Vec::new();
    let mut values: Vec<Vec<Cow<'_, str>>> = Vec::new();
    let mut places = HashMap::new();
    for field in fields(form) {
        let (name, value) = (field.name().ok()?, field.value().ok()?);
        let place = *places.entry(name.clone()).or_insert_with(|| {
            names.push(name);
            values.push(Vec::new());
            names.len() - 1
        });
        values.get_mut(place)?.push(value);
    }
    let mut text = String::with_capacity(form.len() + 64);
    text.push('{');
    for (name, values) in names.iter().zip(&values) {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&string(name)?);
        text.push(':');
        let redacted = [Cow::Borrowed(REDACTED)];
        let values = if config.redact_sensitive && is_secret(name) { &redacted[..] } else { values };
        let rendered = values.iter().map(|value| value_of(value, config)).collect::<Option<Vec<_>>>()?;
        match &rendered[..] {
            [one] => text.push_str(one),
            several => text.push_str(&format!("[{}]", several.join(","))),
        }
    }
    text.push('}');
    Some(text)
}

fn value_of(value: &str, config: LogConfig) -> Option<String> {
    if !json_within(value).ok()? {
        return string(value);
    }
    let cleaned = clean(value.as_bytes(), Some(REDACTED), &|name| config.redact_sensitive && is_secret(name)).ok()?;
    cleaned.map_or_else(|| Some(value.to_owned()), |cleaned| String::from_utf8(cleaned).ok())
}

fn string(text: &str) -> Option<String> {
    serde_json::to_string(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(form: &str) -> Option<String> {
        render(form.as_bytes(), LogConfig::default())
    }

    #[test]
    fn a_form_is_an_object_of_texts() {
        let json = r#"{"Body":"Hallöchen 😀","From":"+14155550100","a":["1","2","\"]"],"b":""}"#;
        let form = "Body=Hall%C3%B6chen+%F0%9F%98%80&a=1&From=%2B14155550100&a=2&b&a=%22]";
        let expected: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&rendered(form).unwrap()).unwrap(), expected);
        assert_eq!(rendered("b=1&a=2&b=3").unwrap(), r#"{"b":["1","3"],"a":"2"}"#, "in the order of the form");
        assert_eq!(rendered("").unwrap(), "{}");
    }

    #[test]
    fn secrets_are_redacted_also_within_json() {
        let form = "token=hunter2&token=hunter2&payload=%7B%22token%22%3A%22hunter2%22%2C%22n%22%3A1.0%7D&text=%7Bno";
        let redacted = r#"{"token":"***REDACTED***","payload":{"token":"***REDACTED***","n":1.0},"text":"{no"}"#;
        assert_eq!(rendered(form).unwrap(), redacted);
        let open = LogConfig { redact_sensitive: false, ..LogConfig::default() };
        assert_eq!(render(form.as_bytes(), open).unwrap().matches("hunter2").count(), 3);
    }

    #[test]
    fn what_is_no_form_is_not_rendered() {
        for form in ["token=hunter2&%", "a=%ff", &"a&".repeat(1001)] {
            assert_eq!(rendered(form), None);
        }
    }
}
