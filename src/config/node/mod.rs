//! A configuration value as it was written, and how types are read from it.
//!
//! A [`Node`] keeps two things that `serde_json::Value` loses: a key that occurs twice is refused, and a string that
//! came whole from an environment variable may be read as a number or a boolean.

mod deserialize;
mod field_names;
mod reading;
mod value;

pub(crate) use self::field_names::field_names;
pub(crate) use self::reading::{LONGEST, MOST_HELD};
pub(crate) use self::value::Node;

/// Every value is either read as serde_json reads it, or refused.
#[cfg(fuzzing)]
pub(crate) fn fuzz(json: &[u8]) {
    match (Node::parse(json), serde_json::from_slice::<serde_json::Value>(json)) {
        (Ok(node), value) => assert_eq!(Some(node.into_value()), value.ok()),
        (Err(error), _) => assert!(error.to_string().len() < 1000),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::Node;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Options {
        #[serde(default)]
        flag: bool,
        count: Option<u32>,
        name: Option<String>,
        #[serde(default)]
        list: Vec<i64>,
        mode: Option<Mode>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        Fast,
        Slow { by: f64 },
    }

    fn read(json: &str) -> Result<Options, String> {
        Node::parse(json.as_bytes()).and_then(Node::read).map_err(|error| error.to_string())
    }

    #[test]
    fn types_are_read() {
        let options =
            read(r#"{"flag": true, "count": 3, "name": "x", "list": [-1, 2], "mode": {"slow": {"by": 1.5}}}"#);
        let expected = Options {
            flag: true,
            count: Some(3),
            name: Some("x".into()),
            list: vec![-1, 2],
            mode: Some(Mode::Slow { by: 1.5 }),
        };
        assert_eq!(options.unwrap(), expected);
        assert_eq!(read(r#"{"mode": "fast", "name": null}"#).unwrap().mode, Some(Mode::Fast));
    }

    #[test]
    fn a_string_from_the_environment_is_a_number_where_one_is_due() {
        let expanded = |key: &str, text: &str| {
            Node::Object(vec![(key.into(), Node::Expanded(text.into()))]).read::<Options>().map_err(|e| e.to_string())
        };
        assert_eq!(expanded("count", "12").unwrap().count, Some(12));
        assert!(expanded("flag", "true").unwrap().flag);
        assert_eq!(expanded("name", "12").unwrap().name.as_deref(), Some("12"));
        assert_eq!(
            expanded("count", "hunter2").unwrap_err(),
            "count: expected a whole number, found other text in the variable"
        );
        assert_eq!(
            read(r#"{"count": "12"}"#).unwrap_err(),
            "count: expected a whole number, found a string; write it without quotes"
        );
    }

    #[test]
    fn unknown_and_double_keys_are_refused() {
        assert_eq!(read(r#"{"flg": true}"#).unwrap_err(), "unknown key `flg`, did you mean `flag`?");
        assert_eq!(read(r#"{"zzzzzzzzz": true}"#).unwrap_err(), "unknown key `zzzzzzzzz`");
        assert!(read(r#"{"flag": true, "flag": false}"#).unwrap_err().starts_with("duplicate key `flag` at line 1"));
        for (many, twice) in [(15, 0), (16, 0), (17, 0), (17, 16), (100, 3), (100, 99)] {
            let fields = |count| (0..count).map(|n| format!(r#""f{n}": 0, "#)).collect::<String>();
            assert!(Node::parse(format!("{{{}\"g\": 0}}", fields(many)).as_bytes()).is_ok());
            let error = Node::parse(format!("{{{}\"f{twice}\": 0}}", fields(many)).as_bytes()).err().unwrap();
            assert!(error.to_string().starts_with(&format!("duplicate key `f{twice}` at line 1 column ")), "{error}");
        }
    }

    #[test]
    fn errors_say_what_was_found_and_what_is_expected() {
        for (json, error) in [
            (r#"{"flag": "true"}"#, "flag: expected a boolean, found a string; write it without quotes"),
            (r#"{"flag": 1}"#, "flag: expected a boolean, found a number"),
            (r#"{"count": 1.5}"#, "count: expected a whole number, found a number with a fraction or an exponent"),
            (r#"{"count": -1}"#, "count: expected a whole number from 0 to 4294967295, found another number"),
            (r#"{"count": 4294967296}"#, "count: expected a whole number from 0 to 4294967295, found another number"),
            (r#"{"count": []}"#, "count: expected a whole number, found an array"),
            (r#"{"name": 1}"#, "name: expected a string, found a number; write it in quotes"),
            (r#"{"name": {}}"#, "name: expected a string, found an object"),
            (r#"{"list": {}}"#, "list: expected an array, found an object"),
            (r#"{"list": null}"#, "list: expected an array, found null"),
            (r#"{"mode": "fsat"}"#, "mode: expected one of `fast`, `slow`, found another string"),
            (r#"{"mode": 1}"#, "mode: expected one of `fast`, `slow`, found a number"),
            (
                r#"{"mode": {"slow": {"by": "1"}}}"#,
                "mode.by: expected a number, found a string; write it without quotes",
            ),
            (r#"{"mode": {"slow": {}}}"#, "mode: the key `by` is missing"),
            ("[]", "expected an object, found an array"),
            ("null", "expected an object, found null"),
            ("", "expected a JSON object, found nothing"),
            ("\u{feff}{}", "expected a JSON object, found a byte order mark (UTF-8) before it"),
            ("a: 1", "expected JSON: expected value at line 1 column 1"),
            ("{\"count\": 1e400}", "expected JSON: number out of range at line 1 column 15"),
            ("{'count': 1}", "expected a JSON object, found single quotes around a string or name"),
        ] {
            assert_eq!(read(json).unwrap_err(), error, "{json}");
        }
        for text in ["NaN", "inf", "-inf", "1e400", "", " "] {
            let slow = Node::Object(vec![("by".into(), Node::Expanded(text.into()))]);
            let node = Node::Object(vec![("mode".into(), Node::Object(vec![("slow".into(), slow)]))]);
            let error = node.read::<Options>().unwrap_err().to_string();
            assert_eq!(error, "mode.by: expected a number, found other text in the variable", "{text:?}");
        }
    }

    #[test]
    fn errors_never_quote_a_value() {
        for json in [
            r#"{"flag": "hunter2"}"#,
            r#"{"count": "hunter2"}"#,
            r#"{"count": -42424242}"#,
            r#"{"name": 42424242}"#,
            r#"{"mode": "hunter2"}"#,
            r#"{"list": ["hunter2"]}"#,
            r#"{"list": "hunter2"}"#,
            r#""hunter2""#,
            r#"{"name": "hunter2"#,
        ] {
            let error = read(json).unwrap_err();
            assert!(!error.contains("hunter2") && !error.contains("42424242"), "{json} -> {error}");
        }
    }
}
