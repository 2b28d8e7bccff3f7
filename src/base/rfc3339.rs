//! Dates and times as RFC 3339 writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The longest text that is read, in bytes: nine digits of a second and an offset have 35.
const LONGEST: usize = 48;

const DAY: i64 = 24 * 3600;

/// The time that `text` names, if it has the form `2026-11-27T00:30:00.5Z`, with any number of digits behind the second, of
/// which nine count, and `Z` or an offset such as `+01:00`. A leap second is the first second of the next minute.
pub(crate) fn parse(text: &[u8]) -> Option<SystemTime> {
    if text.len() > LONGEST {
        return None;
    }
    let mut rest = text;
    let (year, month, day) = (number(&mut rest, 4)?, after(b"-", &mut rest)?, after(b"-", &mut rest)?);
    let hour = after(b"Tt", &mut rest)?;
    let (minute, second) = (after(b":", &mut rest)?, after(b":", &mut rest)?);
    let nanos = fraction(&mut rest)?;
    let offset = offset(rest)?;
    let is_time = hour < 24 && minute < 60 && second <= 60;
    if !is_time || !(1..=12).contains(&month) || !(1..=days_of(year, month)).contains(&day) {
        return None;
    }
    let seconds = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let start = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    start?.checked_add(Duration::from_nanos(nanos))
}

/// The time in UTC with milliseconds: `2026-11-27T00:30:00.500Z`. A time outside of the years 1970 to 9999 becomes the
/// epoch.
#[cfg(feature = "_egress")]
pub(crate) fn format(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).ok().filter(|since| since.as_secs() < END).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / DAY as u64, since.as_secs() % DAY as u64);
    let (year, month, day) = date(days);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    for (place, number) in [
        (0..4, year),
        (5..7, month),
        (8..10, day),
        (11..13, seconds / 3600),
        (14..16, seconds / 60 % 60),
        (17..19, seconds % 60),
        (20..23, u64::from(since.subsec_millis())),
    ] {
        let mut rest = number;
        for digit in text[place].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
    }
    // It is ASCII, so this does not fail.
    String::from_utf8(text.to_vec()).unwrap_or_default()
}

/// The begin of the year 10000, in seconds since the epoch.
#[cfg(feature = "_egress")]
const END: u64 = 253_402_300_800;

/// A number of exactly `digits` digits.
fn number(rest: &mut &[u8], digits: usize) -> Option<i64> {
    let (text, behind) = rest.split_at_checked(digits)?;
    *rest = behind;
    text.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

/// A number of two digits after one of the `marks`.
fn after(marks: &[u8], rest: &mut &[u8]) -> Option<i64> {
    let (mark, behind) = rest.split_first()?;
    *rest = behind;
    if marks.contains(mark) { number(rest, 2) } else { None }
}

/// The nanoseconds behind a point, if there is one.
fn fraction(rest: &mut &[u8]) -> Option<u64> {
    let Some(behind) = rest.strip_prefix(b".") else { return Some(0) };
    let digits = behind.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (text, behind) = behind.split_at(digits);
    *rest = behind;
    let padded = text.iter().chain(std::iter::repeat(&b'0')).take(9);
    (digits > 0).then(|| padded.fold(0, |nanos, digit| nanos * 10 + u64::from(digit - b'0')))
}

/// The seconds east of Greenwich.
fn offset(mut rest: &[u8]) -> Option<i64> {
    if matches!(rest, b"Z" | b"z") {
        return Some(0);
    }
    let sign = if rest.first()? == &b'-' { -1 } else { 1 };
    let (hours, minutes) = (after(b"+-", &mut rest)?, after(b":", &mut rest)?);
    (rest.is_empty() && hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The days from 1970-01-01 to a date of the Gregorian calendar. The year begins in March here, so that the leap day is its
/// last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month < 3);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + of_year - 719_468
}

/// The year, month and day of the day that is this number of days after 1970-01-01. The year begins in March here too.
#[cfg(feature = "_egress")]
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    // In 400 years there are 146,097 days.
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year + u64::from(month < 3), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_is_read_to_the_nanosecond() {
        let at = |seconds, nanos| Some(UNIX_EPOCH + Duration::new(seconds, nanos));
        for (text, time) in [
            ("1970-01-01T00:00:00Z", at(0, 0)),
            ("2019-11-16T10:11:12.634234626Z", at(1_573_899_072, 634_234_626)),
            ("2019-11-16T10:11:12.6Z", at(1_573_899_072, 600_000_000)),
            ("2019-11-16t10:11:12.6342346269z", at(1_573_899_072, 634_234_626)),
            ("2019-11-16T11:11:12+01:00", at(1_573_899_072, 0)),
            ("2019-11-16T04:41:12-05:30", at(1_573_899_072, 0)),
            ("2016-12-31T23:59:60Z", at(1_483_228_800, 0)),
            ("2000-02-29T00:00:00Z", at(951_782_400, 0)),
        ] {
            assert_eq!(parse(text.as_bytes()), time, "{text}");
        }
    }

    #[test]
    fn a_text_that_is_not_a_time_is_refused() {
        for text in [
            "",
            "2019",
            "2019-11-16",
            "2019-11-16T10:11:12",
            "2019-11-16 10:11:12Z",
            "2019-11-16T10:11Z",
            "2019-11-16T10:11:12.Z",
            "2019-11-16T10:11:12,5Z",
            "2019-11-16T24:00:00Z",
            "2019-11-16T10:60:12Z",
            "2019-11-16T10:11:61Z",
            "2019-00-16T10:11:12Z",
            "2019-13-16T10:11:12Z",
            "2019-11-00T10:11:12Z",
            "2019-11-31T10:11:12Z",
            "2019-02-29T10:11:12Z",
            "1900-02-29T10:11:12Z",
            "2019-11-16T10:11:12+0100",
            "2019-11-16T10:11:12+01",
            "2019-11-16T10:11:12+24:00",
            "2019-11-16T10:11:12ZZ",
            " 2019-11-16T10:11:12Z",
            "2019-11-16T10:11:12Z ",
            "+019-11-16T10:11:12Z",
            "2019-11-16T10:11:1\u{664}Z",
            "1700000000",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse(format!("2019-11-16T10:11:12.{}Z", "1".repeat(40)).as_bytes()), None);
    }

    #[test]
    #[cfg(feature = "_egress")]
    fn a_time_that_no_text_has_is_written_as_the_epoch() {
        let epoch = "1970-01-01T00:00:00.000Z";
        assert_eq!(format(UNIX_EPOCH), epoch);
        assert_eq!(format(UNIX_EPOCH - Duration::from_secs(1)), epoch);
        let last = UNIX_EPOCH + Duration::new(END - 1, 999_999_999);
        assert_eq!(format(last), "9999-12-31T23:59:59.999Z");
        assert_eq!(format(last + Duration::from_nanos(1)), epoch);
    }

    proptest! {
        /// A time that another implementation writes is parsed to the same time.
        #[test]
        fn every_time_is_read_as_another_implementation_writes_it(
            seconds in -62_135_596_800_i64..253_402_207_200,
            nanos in 0..1_000_000_000_i32,
        ) {
            let written = jiff::Timestamp::new(seconds, 0).unwrap();
            let text = format!("{}.{nanos:09}Z", written.to_string().trim_end_matches('Z'));
            let expected = SystemTime::from(written) + Duration::from_nanos(nanos as u64);
            prop_assert_eq!(parse(text.as_bytes()), Some(expected), "{}", text);
        }

        #[test]
        #[cfg(feature = "_egress")]
        fn every_time_is_written_as_another_implementation_writes_it(
            seconds in 0..253_402_207_200_u64,
            nanos in 0..1_000_000_000_u32,
        ) {
            let time = UNIX_EPOCH + Duration::new(seconds, nanos);
            let expected = jiff::Timestamp::try_from(time).unwrap();
            prop_assert_eq!(format(time), format!("{:.3}", expected));
        }

        #[test]
        fn parsing_never_panics(text in "[-0-9TZtz:.+ ]{0,40}") {
            let _ = parse(text.as_bytes());
        }
    }
}
