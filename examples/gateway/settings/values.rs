//! Single variables. A wrong value is an error with the variable's name, what was found and what was expected.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use crate::{Error, misspelt, units, variables};

/// The errors of all wrong variables, so that one start reports all of them.
#[derive(Default)]
pub(crate) struct Problems(Vec<String>);

impl Problems {
    /// The value. After an error it is a default that nobody uses, since the start fails.
    pub(crate) fn collect<T: Default>(&mut self, result: Result<T, Error>) -> T {
        result.unwrap_or_else(|error| {
            self.add(error);
            T::default()
        })
    }

    pub(crate) fn add(&mut self, error: Error) {
        self.0.push(error.to_string());
    }

    /// # Errors
    ///
    /// All errors that were collected, each on a line of its own.
    pub(super) fn none(self) -> Result<(), Error> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(self.0.join("\n").into()),
        }
    }
}

/// The value of a variable; `None` if it is not set or empty. [`secret`] reads secrets.
pub(crate) fn var(name: &str) -> Result<Option<String>, Error> {
    debug_assert!(!variables::is_secret(name), "{name} holds a secret: `secret` reads it");
    read(name)
}

/// The same for a secret. It must be marked as one in the table of variables, which keeps it from webhooks.
pub(super) fn secret(name: &str) -> Result<Option<String>, Error> {
    match variables::is_secret(name) {
        true => read(name),
        false => Err(wrong(name, "the gateway's table of variables does not mark it as a secret")),
    }
}

fn read(name: &str) -> Result<Option<String>, Error> {
    match std::env::var(name) {
        Ok(value) => {
            // Tools that write a secret to a file end it with a line break.
            let value = value.trim_end_matches(['\r', '\n']);
            Ok((!value.is_empty()).then(|| value.to_owned()))
        }
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(wrong(name, "the value is not UTF-8")),
    }
}

/// The value, or the default.
pub(super) fn setting(name: &str) -> Result<Option<String>, Error> {
    Ok(var(name)?.or_else(|| variables::default(name).map(str::to_owned)))
}

pub(super) fn path(name: &str) -> Result<PathBuf, Error> {
    Ok(setting(name)?.unwrap_or_default().into())
}

pub(super) fn host(name: &str) -> Result<Option<String>, Error> {
    let Some(host) = setting(name)? else { return Ok(None) };
    let is_name = !host.contains([':', '/', '[', ']', '*']) && !host.contains(char::is_whitespace);
    match is_name || host.parse::<IpAddr>().is_ok() {
        true => Ok(Some(host)),
        false => Err(found(name, &host, "an address or the name of a host alone, such as 0.0.0.0, :: or localhost")),
    }
}

/// A port to listen on; 0 lets the system choose one. `None` if there is neither a value nor a default.
///
/// Kubernetes sets `X_PORT=tcp://10.96.0.10:80` in each pod for a Service `x`. Such a value is not meant for the gateway:
/// it counts as not set, with a note.
pub(super) fn listening_port(name: &str, notes: &mut Vec<String>) -> Result<Option<u16>, Error> {
    let mut text = var(name)?;
    if let Some(link) = text.as_deref().filter(|text| misspelt::link(text).is_some()) {
        notes.push(format!("{name}: `{link}` is set by Kubernetes for a Service, and counts as not set"));
        text = None;
    }
    let Some(text) = text.or_else(|| variables::default(name).map(str::to_owned)) else { return Ok(None) };
    let port = units::number(&text).and_then(|number| u16::try_from(number).ok());
    let form = format!("{}, from 0 to 65535", units::NUMBER);
    port.map(Some).ok_or_else(|| found(name, &text, form))
}

/// The values of two variables that require each other.
pub(super) fn both(one: Named, other: Named) -> Result<Option<(String, String)>, Error> {
    let alone = |set: &str, missing: &str| Err(wrong(set, format!("{missing} is not set; set both, or neither")));
    match (one, other) {
        ((_, Some(one)), (_, Some(other))) => Ok(Some((one, other))),
        ((_, None), (_, None)) => Ok(None),
        ((one, Some(_)), (other, None)) | ((other, None), (one, Some(_))) => alone(one, other),
    }
}

/// The name of a variable, and its value if it is set.
pub(super) type Named = (&'static str, Option<String>);

pub(super) fn at_least_one(name: &str, parse: impl Fn(&str) -> Option<u64>, form: &str) -> Result<usize, Error> {
    let number = amount(name, parse, 1..=usize::MAX as u64, form, "at least 1 and below 2^64")?;
    Ok(usize::try_from(number).unwrap_or(usize::MAX))
}

pub(super) fn seconds(name: &str) -> Result<Duration, Error> {
    let range = Duration::from_millis(100)..=Duration::from_secs(86_400);
    amount(name, units::seconds, range, units::SECONDS, "from 100ms to 1d")
}

pub(super) fn days(name: &str) -> Result<Duration, Error> {
    const HOUR: Duration = Duration::from_secs(3600);
    amount(name, units::days, HOUR..=HOUR * 24 * 3650, units::DAYS, "from 1h to 3650d")
}

/// A number of whole days.
pub(crate) fn whole_days(name: &str) -> Result<u32, Error> {
    const DAY: u64 = 24 * 3600;
    let whole = |text: &str| {
        let time = units::days(text)?;
        let is_whole = time.as_secs().is_multiple_of(DAY) && time.subsec_nanos() == 0;
        u32::try_from(time.as_secs() / DAY).ok().filter(|_| is_whole)
    };
    amount(name, whole, 1..=3650, "a whole number of days, such as 14 or 14d", "from 1d to 3650d")
}

/// A value within `range`. `form` and `limits` describe for the error what a value looks like, and the range.
pub(crate) fn amount<T: PartialOrd>(
    name: &str,
    parse: impl Fn(&str) -> Option<T>,
    range: RangeInclusive<T>,
    form: &str,
    limits: &str,
) -> Result<T, Error> {
    let text = setting(name)?.unwrap_or_default();
    let amount = parse(&text).filter(|amount| range.contains(amount));
    amount.ok_or_else(|| found(name, &text, format!("{form}, {limits}")))
}

/// One of `choices`; the first is the default.
pub(crate) fn choice(name: &str, choices: &[&'static str]) -> Result<&'static str, Error> {
    match var(name)? {
        None => Ok(choices[0]),
        Some(value) => {
            let choice = choices.iter().copied().find(|choice| *choice == value);
            choice.ok_or_else(|| found(name, &value, format!("one of {}", choices.join(", "))))
        }
    }
}

/// The error of a wrong value that is no secret.
pub(crate) fn found(name: &str, value: &str, expected: impl Display) -> Error {
    let hint = if is_quoted(value) { "; leave out the quotes" } else { "" };
    wrong(name, format!("found `{}`, expected {expected}{hint}", shown(value)))
}

/// The beginning of a value, with control characters escaped: it fits on one line.
pub(crate) fn shown(value: &str) -> String {
    const LONGEST: usize = 64;
    let mut shown: String = value.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if value.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

/// The error of a variable.
pub(crate) fn wrong(name: &str, error: impl Display) -> Error {
    format!("{name}: {error}").into()
}

pub(super) fn is_quoted(value: &str) -> bool {
    ['"', '\''].iter().any(|quote| value.len() > 1 && value.starts_with(*quote) && value.ends_with(*quote))
}
