//! Amounts with units: a whole number, alone or with a unit.

use std::time::Duration;

/// Decimal and binary units of bytes. Case does not matter.
const SIZES: [(&str, u64); 13] = [
    ("B", 1),
    ("KB", 1000),
    ("MB", 1000 * 1000),
    ("GB", 1000 * 1000 * 1000),
    ("TB", 1000 * 1000 * 1000 * 1000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    // As in Kubernetes. `K` and `M` alone are not accepted: their meaning differs between programs.
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
];

/// Units of time in milliseconds. Case matters: elsewhere `M` is a month.
const TIMES: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// What the functions below accept, for error messages.
pub(crate) const NUMBER: &str = "a whole number in digits alone";
pub(crate) const SIZE: &str = "a whole number of bytes, or one with a unit, such as 512B, 64KiB, 25MB, 1GiB or 2Gi";
pub(crate) const SECONDS: &str = "a whole number of seconds, or one with a unit, such as 500ms, 90s, 2m or 1h";
pub(crate) const DAYS: &str = "a whole number of days, or one with a unit, such as 36h or 14d";

/// A whole number; `None` for any other text and for more than 64 bits.
pub(crate) fn number(text: &str) -> Option<u64> {
    amount(text, 1, |_| None)
}

/// A number of bytes.
pub(crate) fn size(text: &str) -> Option<u64> {
    amount(text, 1, |unit| SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor))
}

/// A time. A number without a unit means seconds.
pub(crate) fn seconds(text: &str) -> Option<Duration> {
    time(text, "s")
}

/// A time. A number without a unit means days.
pub(crate) fn days(text: &str) -> Option<Duration> {
    time(text, "d")
}

fn time(text: &str, bare: &str) -> Option<Duration> {
    let factor = |unit: &str| TIMES.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    amount(text, factor(bare)?, factor).map(Duration::from_millis)
}

/// Digits alone, or followed by a unit, with at most one blank between them.
fn amount(text: &str, bare: u64, factor: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    let end = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let factor = match unit {
        "" => bare,
        unit => factor(unit.strip_prefix(' ').unwrap_or(unit))?,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_bare_or_has_a_unit() {
        for (text, size) in [
            ("0", 0),
            ("26214400", 26_214_400),
            ("007", 7),
            ("512B", 512),
            ("64KiB", 64 << 10),
            ("64kib", 64 << 10),
            ("25MB", 25_000_000),
            ("25mb", 25_000_000),
            ("25 MB", 25_000_000),
            ("1kB", 1000),
            ("1GiB", 1 << 30),
            ("2Gi", 2 << 30),
            ("3TiB", 3 << 40),
            ("1TB", 1_000_000_000_000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(super::size(text), Some(size), "{text:?}");
        }
    }

    #[test]
    fn everything_else_is_no_size() {
        for text in [
            "",
            " ",
            "25 elephants",
            "MB",
            "-1",
            "+1",
            "1.5GiB",
            "1,5GiB",
            "1e9",
            "0x10",
            "10_000",
            " 1",
            "1 ",
            "1\n",
            "25  MB",
            "25M",
            "25k",
            "25MBs",
            "25MB ",
            "twenty",
            "٢٥",
            "1MiB2",
            "∞",
            "25\u{a0}MB",
            "10%",
            "25ms",
        ] {
            assert_eq!(size(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_size_beyond_64_bits_is_too_large() {
        for text in ["18446744073709551616", "99999999999999999999999999", "16777216TiB", "18446744073709551615KiB"] {
            assert_eq!(size(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_time_is_bare_or_has_a_unit() {
        for (text, millis) in
            [("30", 30_000), ("500ms", 500), ("90s", 90_000), ("2m", 120_000), ("2 m", 120_000), ("1h", 3_600_000)]
        {
            assert_eq!(seconds(text), Some(Duration::from_millis(millis)), "{text:?}");
        }
        assert_eq!(days("14"), Some(Duration::from_secs(14 * 86_400)));
        assert_eq!(days("36h"), Some(Duration::from_secs(36 * 3600)));
    }

    #[test]
    fn everything_else_is_no_time() {
        for text in ["", "-1", "0.5", "1M", "5 minutes", "1m30s", "s", "10S", "1w", "ten", "5MB"] {
            assert_eq!(seconds(text), None, "{text:?}");
        }
        for text in ["18446744073709551615", "213503982335d"] {
            assert_eq!(seconds(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_number_is_digits() {
        assert_eq!(number("10000"), Some(10_000));
        for text in ["", "10k", "-1", "+1", "many", "1 000", "1.0"] {
            assert_eq!(number(text), None, "{text:?}");
        }
        assert_eq!(number("18446744073709551616"), None);
    }

    #[test]
    fn what_the_messages_name_is_accepted() {
        fn examples(form: &str) -> Vec<&str> {
            let (_, list) = form.split_once("such as ").unwrap();
            list.split(", ").flat_map(|part| part.split(" or ")).collect()
        }
        assert!(examples(SIZE).into_iter().all(|text| size(text).is_some()));
        assert!(examples(SECONDS).into_iter().all(|text| seconds(text).is_some()));
        assert!(examples(DAYS).into_iter().all(|text| days(text).is_some()));
        assert!(NUMBER.contains("digits"));
    }
}
