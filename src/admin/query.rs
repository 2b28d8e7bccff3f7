//! The query of a request. A parameter that is unknown, repeated or malformed is a 400 that names it.

use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::SystemTime;

use super::answer::Problem;
use crate::base::rfc3339;
use crate::base::shown::Shown;
use crate::event::EventId;
use crate::form;

/// Rows in a page if the request sets no `limit`.
const PAGE: usize = 100;

/// The most rows in a page.
pub(super) const MAX_PAGE: usize = 1000;

/// The longest value, in characters.
pub(super) const MAX_VALUE: usize = 256;

/// The parameters of a request, decoded.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Reads a query, in which each of the `known` parameters may appear once.
    pub(super) fn read(query: Option<&str>, known: &[&'static str]) -> Result<Self, Problem> {
        let mut read = Self::default();
        for field in form::fields(query.unwrap_or_default().as_bytes()) {
            let shown = Shown::new(field.name, 50);
            let undecoded =
                |_| Problem::bad_request(format!("the parameter `{shown}` is not UTF-8 in percent-encoding"));
            let (name, value) = (field.name().map_err(undecoded)?, field.value().map_err(undecoded)?);
            let Some(name) = known.iter().copied().find(|known| *known == name) else {
                let expected = match known {
                    [] => "none".to_owned(),
                    known => format!("one of {}", known.join(", ")),
                };
                return Err(Problem::bad_request(format!("unknown parameter `{shown}`, expected {expected}")));
            };
            if read.text(name).is_some() {
                return Err(Problem::bad_request(format!("the parameter `{name}` appears more than once")));
            }
            match value.chars().count() {
                0 => return Err(wrong(name, "an empty value", "a value; leave the parameter out")),
                length if length > MAX_VALUE => {
                    return Err(wrong(name, format_args!("{length} characters"), format_args!("at most {MAX_VALUE}")));
                }
                _ => read.0.push((name, value.into_owned())),
            }
        }
        Ok(read)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }

    /// A namespace or the id of a webhook: letters, digits, `_` and `-`.
    pub(super) fn name(&self, name: &'static str) -> Result<Option<String>, Problem> {
        let Some(value) = self.text(name) else { return Ok(None) };
        let is_name = value.len() <= 64 && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        match is_name {
            true => Ok(Some(value.to_owned())),
            false => Err(wrong(name, shown(value), "at most 64 letters, digits, `_` and `-`")),
        }
    }

    /// The label of an outcome, a refusal or an error: lower-case letters, digits and `_`.
    pub(super) fn label(&self, name: &'static str) -> Result<Option<&str>, Problem> {
        let Some(value) = self.text(name) else { return Ok(None) };
        let is_label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        match value.len() <= 64 && value.bytes().all(is_label) {
            true => Ok(Some(value)),
            false => Err(wrong(name, shown(value), "at most 64 lower-case letters, digits and `_`")),
        }
    }

    pub(super) fn number<T>(&self, name: &'static str, within: RangeInclusive<T>) -> Result<Option<T>, Problem>
    where
        T: FromStr + PartialOrd + std::fmt::Display,
    {
        let Some(value) = self.text(name) else { return Ok(None) };
        // Rust reads `+1` too.
        let is_plain = value.bytes().all(|b| b.is_ascii_digit());
        let number = value.parse().ok().filter(|number| is_plain && within.contains(number));
        number.map(Some).ok_or_else(|| {
            let (least, most) = (within.start(), within.end());
            wrong(name, shown(value), format_args!("a whole number from {least} to {most}"))
        })
    }

    /// The number of rows in the page.
    pub(super) fn limit(&self) -> Result<usize, Problem> {
        Ok(self.number("limit", 1..=MAX_PAGE)?.unwrap_or(PAGE))
    }

    pub(super) fn event(&self, name: &'static str) -> Result<Option<EventId>, Problem> {
        let Some(value) = self.text(name) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| wrong(name, shown(value), "the id of an event, a UUID"))
    }

    pub(super) fn time(&self, name: &'static str) -> Result<Option<SystemTime>, Problem> {
        let Some(value) = self.text(name) else { return Ok(None) };
        let time = rfc3339::parse(value.as_bytes());
        time.map(Some).ok_or_else(|| wrong(name, shown(value), "a time such as 2026-11-27T09:30:00Z"))
    }

    pub(super) fn flag(&self, name: &'static str) -> Result<bool, Problem> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(value) => Err(wrong(name, shown(value), "true or false")),
        }
    }
}

/// A 400 for the value of a parameter.
pub(super) fn wrong(name: &str, found: impl std::fmt::Display, expected: impl std::fmt::Display) -> Problem {
    Problem::bad_request(format!("the parameter `{name}` is wrong: found {found}, expected {expected}"))
}

pub(super) fn shown(value: &str) -> String {
    format!("`{}`", Shown::new(value, 50))
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    const KNOWN: &[&str] = &["limit", "after", "since", "namespace", "kind", "dry_run"];

    fn detail(problem: Problem) -> String {
        use futures_util::FutureExt;
        let body = problem.into_answer().into_body().collect().now_or_never().unwrap().unwrap().to_bytes();
        serde_json::from_slice::<serde_json::Value>(&body).unwrap()["detail"].as_str().unwrap().to_owned()
    }

    #[test]
    fn a_wrong_parameter_is_named() {
        for (query, name) in
            [("limits=1", "limits"), ("limit=1&limit=1", "limit"), ("limit=", "limit"), ("%ff=1", "%ff")]
        {
            let detail = detail(Query::read(Some(query), KNOWN).unwrap_err());
            assert!(detail.contains(&format!("`{name}`")), "{detail}");
        }
        let of = |query: &str| Query::read(Some(query), KNOWN).unwrap();
        for query in ["limit=0", "limit=1001", "limit=-1", "limit=%2B1", "limit=x", "limit=99999999999999999999"] {
            assert!(detail(of(query).limit().unwrap_err()).contains("`limit`"), "{query}");
        }
        assert!(of("after=x").event("after").is_err());
        assert!(of("since=yesterday").time("since").is_err());
        assert!(of("namespace=a%2Fb").name("namespace").is_err());
        assert!(of("kind=A").label("kind").is_err());
        assert!(of("dry_run=1").flag("dry_run").is_err());
    }

    #[test]
    fn a_right_parameter_is_read() {
        let query =
            Query::read(Some("limit=7&namespace=a-b_C&kind=io&dry_run=true&since=2026-11-27T00%3A00%3A00Z"), KNOWN);
        let query = query.unwrap();
        assert_eq!(query.limit().unwrap(), 7);
        assert_eq!(query.name("namespace").unwrap().as_deref(), Some("a-b_C"));
        assert_eq!(query.label("kind").unwrap(), Some("io"));
        assert!(query.flag("dry_run").unwrap());
        assert!(query.time("since").unwrap().is_some());
        let none = Query::read(None, KNOWN).unwrap();
        assert_eq!(none.limit().unwrap(), PAGE);
        assert!(!none.flag("dry_run").unwrap());
        assert_eq!(none.event("after").unwrap(), None);
    }
}
