//! Forms (`application/x-www-form-urlencoded`), parsed strictly and without allocating a list of fields.
//!
//! Fields are separated by `&`, and a name from its value by the first `=`; `+` means a space, `%41` a byte. The URL
//! standard parses a form in the same way, except that it keeps a `%` without two hexadecimal digits after it, and replaces
//! bytes that are not UTF-8. Parsers differ there, so such a form is refused here. Empty pieces (`a=1&&b=2`) are no fields.

mod clean;
mod fields;

#[cfg(fuzzing)]
pub(crate) use self::clean::fuzz;
pub(crate) use self::clean::{clean, json_within};
#[cfg(any(feature = "signature", test))]
pub(crate) use self::fields::MAX_FIELDS;
pub(crate) use self::fields::{check, decode_bytes, fields, find};
