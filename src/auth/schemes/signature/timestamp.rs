//! The time of a signature, and its tolerance.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderName;
use serde::Deserialize;

use super::content::Content;
use super::fields::{header_name, pointer, scalar};
use super::presented::Presented;
use crate::auth::AuthError;
use crate::auth::schemes::only;
use crate::base::rfc3339;
use crate::config::CompileError;
use crate::json::Pointer;
use crate::request::Head;

/// The default tolerance, in seconds.
pub(super) const TOLERANCE: u32 = 300;

/// The greatest tolerance, in seconds: seven days.
pub(super) const MOST: u32 = 7 * 24 * 3600;

/// The place of the time.
#[derive(Clone, Copy, Debug)]
pub(super) enum TimeFrom<'a> {
    Header(&'a str),
    /// Among the pairs of the signature's field.
    Pair(&'a str),
    /// In the body, at this JSON pointer.
    Json(&'a str),
}

/// The format of a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Format {
    /// Seconds since 1970.
    Unix,
    /// Milliseconds since 1970.
    UnixMs,
    Rfc3339,
}

/// The place of the time, and its tolerance in seconds, past and future.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule<'a> {
    pub(super) from: TimeFrom<'a>,
    pub(super) format: Format,
    pub(super) past: u32,
    pub(super) future: u32,
}

#[derive(Clone, Debug)]
pub(super) struct Timestamp {
    place: Place,
    format: Format,
    past: Duration,
    future: Duration,
}

#[derive(Clone, Debug)]
enum Place {
    Header(HeaderName),
    Pair(Box<str>),
    Json(Pointer),
}

impl Timestamp {
    /// The time must be part of `content`: an unsigned time proves nothing.
    pub(super) fn new(rule: Rule<'_>, content: &Content) -> Result<Self, CompileError> {
        let place = match rule.from {
            TimeFrom::Header(name) => Place::Header(header_name(name)?),
            TimeFrom::Pair(key) => Place::Pair(key.into()),
            TimeFrom::Json(path) => Place::Json(pointer(path)?),
        };
        let is_signed = match &place {
            Place::Header(name) => content.has_header(name),
            Place::Pair(key) => content.has_pair(key),
            Place::Json(pointer) => content.covers_body() || content.has_pointer(pointer),
        };
        if !is_signed {
            return Err(CompileError::new("expected a time that is part of `content`, found one that is not signed"));
        }
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        Ok(Self { place, format: rule.format, past: seconds(rule.past), future: seconds(rule.future) })
    }

    /// Whether the body must be there.
    pub(super) fn needs_body(&self) -> bool {
        matches!(self.place, Place::Json(_))
    }

    /// The key of the pair that it is, if it is one.
    pub(super) fn pair(&self) -> Option<&str> {
        if let Place::Pair(key) = &self.place { Some(key) } else { None }
    }

    pub(super) fn check(
        &self,
        now: SystemTime,
        head: Head<'_>,
        presented: &Presented<'_>,
        body: &[u8],
    ) -> Result<(), AuthError> {
        let signed = match &self.place {
            Place::Header(name) => self.format.read(only(head.headers, name)?),
            Place::Pair(key) => self.format.read(presented.pair(key)?),
            Place::Json(pointer) => self.format.read(scalar(pointer, body)?.as_bytes()),
        };
        check(signed.ok_or(AuthError::Malformed)?, now, self.format, self.past, self.future)
    }
}

/// Compares in the unit of the format: in whole seconds, an age of 300.9 seconds is 300.
pub(super) fn check(
    signed: SystemTime,
    now: SystemTime,
    format: Format,
    past: Duration,
    future: Duration,
) -> Result<(), AuthError> {
    let now = format.round(now);
    match now.duration_since(signed) {
        Ok(age) if age > past => Err(AuthError::TooOld),
        Err(ahead) if ahead.duration() > future => Err(AuthError::FromTheFuture),
        _ => Ok(()),
    }
}

impl Format {
    pub(super) fn read(self, text: &[u8]) -> Option<SystemTime> {
        let since_1970 = match self {
            Self::Unix => Duration::from_secs(number(text)?),
            Self::UnixMs => Duration::from_millis(number(text)?),
            Self::Rfc3339 => return rfc3339::parse(text),
        };
        UNIX_EPOCH.checked_add(since_1970)
    }

    /// The time in the unit of this format, rounded down.
    fn round(self, time: SystemTime) -> SystemTime {
        let Ok(since_1970) = time.duration_since(UNIX_EPOCH) else { return time };
        match self {
            Self::Unix => UNIX_EPOCH + Duration::from_secs(since_1970.as_secs()),
            Self::UnixMs => {
                let seconds = Duration::from_secs(since_1970.as_secs());
                UNIX_EPOCH + seconds + Duration::from_millis(since_1970.subsec_millis().into())
            }
            Self::Rfc3339 => time,
        }
    }
}

/// Digits alone, and few enough to be a time.
fn number(text: &[u8]) -> Option<u64> {
    let is_number = (1..=15).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    if is_number { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn the_tolerance_itself_is_near_enough_on_both_sides_and_a_unit_more_is_not() {
        let seconds = Duration::from_secs;
        let check = |format, now| super::check(at(1_000_000), at(now), format, seconds(300), seconds(60));
        for (format, oldest, newest) in [
            (Format::Unix, 1_300_999, 940_000),
            (Format::UnixMs, 1_300_000, 940_000),
            (Format::Rfc3339, 1_300_000, 940_000),
        ] {
            assert_eq!(check(format, oldest), Ok(()), "{format:?}");
            assert_eq!(check(format, oldest + 1), Err(AuthError::TooOld), "{format:?}");
            assert_eq!(check(format, newest), Ok(()), "{format:?}");
            assert_eq!(check(format, newest - 1), Err(AuthError::FromTheFuture), "{format:?}");
        }
    }

    #[test]
    fn a_time_is_digits_alone() {
        assert_eq!(Format::Unix.read(b"1700000000"), Some(at(1_700_000_000_000)));
        assert_eq!(Format::UnixMs.read(b"1700000000001"), Some(at(1_700_000_000_001)));
        for text in
            ["", " 1700000000", "1700000000 ", "+1700000000", "-1", "1.7e9", "1700000000.5", "0x1", "1234567890123456"]
        {
            assert_eq!(Format::Unix.read(text.as_bytes()), None, "{text:?}");
        }
    }
}
