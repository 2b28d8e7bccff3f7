//! Limits for the options, because each event pays for all of them.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use crate::config::BuildError;

/// The longest `url`, in bytes.
const MAX_URL: usize = 8 << 10;

/// The most names in each of `headers`, `allowed_headers` and `allowed_hosts`.
pub(super) const MAX_NAMES: usize = 100;

/// The longest name, in bytes.
const MAX_NAME: usize = 256;

/// The longest value of a header field, in bytes.
const MAX_VALUE: usize = 8 << 10;

/// The names and values of `headers` together, in bytes.
const MAX_HEADERS: usize = 64 << 10;

/// Reads `headers`, and stops at the first name too many: reading as many as a value can hold would take long.
pub(super) fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Headers;

    impl<'de> Visitor<'de> for Headers {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut headers = BTreeMap::new();
            while let Some((name, value)) = map.next_entry()? {
                if headers.len() == MAX_NAMES {
                    return Err(A::Error::custom(format_args!("expected at most {MAX_NAMES} names, found more")));
                }
                headers.insert(name, value);
            }
            Ok(headers)
        }
    }

    deserializer.deserialize_map(Headers)
}

/// Refuses a `url` that is too long.
pub(super) fn check_url(url: &str) -> Result<(), BuildError> {
    at_most(MAX_URL, "bytes in `url`", url.len())
}

/// Refuses `headers` that are too long or too many.
pub(super) fn check_headers(fields: &BTreeMap<String, String>) -> Result<(), BuildError> {
    at_most(MAX_NAMES, "names in `headers`", fields.len())?;
    check_names("headers", fields.keys())?;
    for (name, value) in fields {
        at_most(MAX_VALUE, format_args!("bytes in the value of `{}` in `headers`", name.escape_debug()), value.len())?;
    }
    let all = fields.iter().map(|(name, value)| name.len() + value.len()).sum();
    at_most(MAX_HEADERS, "bytes in the names and values of `headers` together", all)
}

pub(super) fn check_names<'a>(option: &str, mut names: impl Iterator<Item = &'a String>) -> Result<(), BuildError> {
    names.try_for_each(|name| at_most(MAX_NAME, format_args!("bytes in each name of `{option}`"), name.len()))
}

pub(super) fn at_most(most: usize, of: impl Display, found: usize) -> Result<(), BuildError> {
    match found <= most {
        true => Ok(()),
        false => Err(format!("expected at most {most} {of}, found {found}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::module::http_webhook::HttpWebhookConfig;

    fn check(change: impl FnOnce(&mut HttpWebhookConfig)) -> Result<(), String> {
        let mut config = serde_json::from_str(r#"{"url": "http://example.com/"}"#).unwrap();
        change(&mut config);
        config.check().map_err(|error| error.to_string())
    }

    fn names(count: usize) -> impl Iterator<Item = String> {
        (0..count).map(|nth| format!("s3cret{nth}"))
    }

    #[test]
    fn options_at_the_limits_are_accepted() {
        let most = check(|config| {
            config.url = Some("u".repeat(8192));
            config.headers = names(100).map(|name| (name, "v".repeat(600))).collect();
            config.allowed_headers = Some(names(100).collect());
            config.allowed_hosts = Some(names(100).collect());
        });
        assert_eq!(most, Ok(()));
        assert_eq!(check(|config| drop(config.headers.insert("n".repeat(256), "v".repeat(8192)))), Ok(()));
    }

    #[test]
    fn reading_stops_at_the_first_header_too_many() {
        let read = |count: usize| {
            let headers: BTreeMap<_, _> = names(count).map(|name| (name, "v")).collect();
            let config = serde_json::json!({"url": "http://example.com/", "headers": headers});
            let config = serde_json::from_value::<HttpWebhookConfig>(config);
            config.map(|config| config.headers.len()).map_err(|error| error.to_string())
        };
        assert_eq!(read(100), Ok(100));
        assert_eq!(read(101), Err("expected at most 100 names, found more".to_owned()));
    }

    #[test]
    fn options_beyond_the_limits_are_refused_and_not_quoted() {
        let long = |length: usize| "s3cret".repeat(length / 6 + 1);
        for (refused, expected) in [
            (check(|config| config.url = Some(long(8192))), "8192 bytes in `url`, found 8196"),
            (
                check(|config| config.headers = names(40_000).map(|name| (name, String::new())).collect()),
                "100 names in `headers`, found 40000",
            ),
            (
                check(|config| drop(config.headers.insert(long(256), String::new()))),
                "256 bytes in each name of `headers`, found 258",
            ),
            (
                check(|config| drop(config.headers.insert("x-a".into(), long(8192)))),
                "8192 bytes in the value of `x-a` in `headers`, found 8196",
            ),
            (
                check(|config| config.headers = names(100).map(|name| (name, long(660))).collect()),
                "65536 bytes in the names and values of `headers` together, found ",
            ),
            (
                check(|config| config.allowed_headers = Some(names(101).collect())),
                "100 names in `allowed_headers`, found 101",
            ),
            (
                check(|config| config.allowed_hosts = Some(names(101).collect())),
                "100 names in `allowed_hosts`, found 101",
            ),
            (
                check(|config| config.allowed_hosts = Some(vec![long(256)])),
                "256 bytes in each name of `allowed_hosts`, found 258",
            ),
        ] {
            let error = refused.unwrap_err();
            assert!(error.starts_with(&format!("expected at most {expected}")) && !error.contains("s3cret"), "{error}");
        }
    }
}
