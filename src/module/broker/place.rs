//! The places for which templates make texts, and which texts fit there.

/// A place for the text of a template.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// For messages: "a subject of NATS".
    pub(crate) name: &'static str,
    /// The longest text, in bytes.
    pub(crate) longest: usize,
    /// Checks the whole text; the error is the rule.
    pub(crate) check: fn(&str) -> Result<(), &'static str>,
    /// Whether a filled-in value may have this character. The separator of the place never may.
    pub(crate) may_have: fn(char) -> bool,
    /// The characters of a value in words, for messages.
    pub(crate) characters: &'static str,
}

/// A subject to publish to: words between dots, without wildcards.
pub(crate) const NATS_SUBJECT: Place = Place {
    name: "a subject of NATS",
    longest: 255,
    check: |text| {
        if text.contains(['*', '>']) {
            return Err("`*` and `>` are wildcards, and no event can be published to them");
        }
        if text.contains(|char: char| char.is_whitespace() || char.is_control()) {
            return Err("it has a blank or a control character");
        }
        if text.starts_with('$') {
            return Err("subjects that begin with `$` belong to the server");
        }
        match text.split('.').any(str::is_empty) {
            true => Err("a word between the dots is empty"),
            false => Ok(()),
        }
    },
    may_have: |char| !matches!(char, '.' | '*' | '>' | '$') && !char.is_whitespace() && !char.is_control(),
    characters: "letters, digits and signs without `.`, `*`, `>`, `$` and blanks",
};

/// A topic. A value has no dot, because topics are often given rights by the words before a dot.
pub(crate) const KAFKA_TOPIC: Place = Place {
    name: "a topic of Kafka",
    longest: 249,
    check: |text| match text {
        "." | ".." => Err("`.` and `..` are reserved"),
        _ if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) => Ok(()),
        _ => Err("it may have ASCII letters, digits, `.`, `_` and `-` only"),
    },
    may_have: |char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-'),
    characters: "ASCII letters, digits, `_` and `-`",
};

/// A routing key of AMQP 0.9.1: words between dots. A topic exchange has wildcards in its bindings only, so a key with one
/// would be a mistake.
pub(crate) const AMQP_ROUTING_KEY: Place = Place {
    name: "a routing key of AMQP",
    longest: 255,
    check: |text| match text.contains(char::is_control) {
        true => Err("it has a control character"),
        false => Ok(()),
    },
    may_have: |char| !matches!(char, '.' | '*' | '#') && !char.is_whitespace() && !char.is_control(),
    characters: "letters, digits and signs without `.`, `*`, `#` and blanks",
};

/// A topic of MQTT to publish to: levels between slashes. Servers close the connection for control characters and for
/// noncharacters, so a topic has none.
pub(crate) const MQTT_TOPIC: Place = Place {
    name: "a topic of MQTT",
    longest: 32_768,
    check: |text| {
        if text.contains(['+', '#']) {
            return Err("`+` and `#` are wildcards, and no event can be published to them");
        }
        if text.starts_with('$') {
            return Err("topics that begin with `$` belong to the server");
        }
        let is_noncharacter =
            |char: char| matches!(char, '\u{fdd0}'..='\u{fdef}') || u32::from(char) & 0xFFFE == 0xFFFE;
        match text.contains(|char: char| char.is_control() || is_noncharacter(char)) {
            true => Err("it has a control character"),
            false => Ok(()),
        }
    },
    may_have: |char| !matches!(char, '/' | '+' | '#' | '$') && !char.is_whitespace() && !char.is_control(),
    characters: "letters, digits and signs without `/`, `+`, `#`, `$` and blanks",
};

/// The name of a stream, list or channel of Redis. A value has no colon, which separates the words of most names, and no
/// brace, which would decide the slot in a cluster.
pub(crate) const REDIS_NAME: Place = Place {
    name: "a name in Redis",
    longest: 512,
    check: |text| match text.contains(char::is_control) {
        true => Err("it has a control character"),
        false => Ok(()),
    },
    may_have: |char| !matches!(char, ':' | '{' | '}') && !char.is_whitespace() && !char.is_control(),
    characters: "letters, digits and signs without `:`, `{`, `}` and blanks",
};

/// A destination of STOMP, in the form that ActiveMQ and RabbitMQ have in common. A value has no sign that one of them
/// gives a meaning: both separate words with `.`, ActiveMQ has wildcards (`*`, `>`), lists (`,`) and options (`?`),
/// RabbitMQ paths (`/`) and escapes (`%`).
pub(crate) const STOMP_DESTINATION: Place = Place {
    name: "a destination of STOMP",
    longest: 255,
    check: |text| {
        let name = ["/queue/", "/topic/", "/amq/queue/", "/exchange/"].iter().find_map(|kind| text.strip_prefix(kind));
        let Some(name) = name else {
            return Err("it must begin with `/queue/`, `/topic/`, `/amq/queue/` or `/exchange/`");
        };
        if name.contains(['*', '>']) {
            return Err("`*` and `>` are wildcards, and no event can be sent to them");
        }
        if name.contains([',', '?']) {
            return Err("`,` would name several destinations, and `?` options: a chain sends to several");
        }
        if name.contains(|char: char| char.is_whitespace() || char.is_control()) {
            return Err("it has a blank or a control character");
        }
        if name.get(..9).is_some_and(|start| start.eq_ignore_ascii_case("ActiveMQ.")) {
            return Err("names that begin with `ActiveMQ.` belong to the server");
        }
        match name.split('/').any(str::is_empty) {
            true => Err("a part between the slashes is empty"),
            false => Ok(()),
        }
    },
    may_have: |char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-'),
    characters: "ASCII letters, digits, `_` and `-`",
};

/// The topic of a message of ZeroMQ, by whose beginning subscribers choose. A value has no sign that separates words.
pub(crate) const ZEROMQ_TOPIC: Place = Place {
    name: "a topic of ZeroMQ",
    longest: 255,
    check: |text| match text.contains(char::is_control) {
        true => Err("it has a control character"),
        false => Ok(()),
    },
    may_have: |char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-'),
    characters: "ASCII letters, digits, `_` and `-`",
};

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(place: Place, text: &str) -> bool {
        (place.check)(text).is_ok()
    }

    #[test]
    fn the_whole_text_follows_the_rules_of_its_broker() {
        for text in ["a", "a.b-c_1.\u{e9}", "a.$b"] {
            assert!(fits(NATS_SUBJECT, text), "{text}");
        }
        for text in [".", "a.", ".a", "a..b", "a.*", "a.>", "*", "a b", "a\tb", "a\r\nPUB x", "$JS.API.STREAM.DELETE.x"]
        {
            assert!(!fits(NATS_SUBJECT, text), "{text}");
        }
        assert!(["a", "a.b_c-1", "..."].into_iter().all(|text| fits(KAFKA_TOPIC, text)));
        assert!([".", "..", "a b", "a/b", "\u{e9}", "a\n"].into_iter().all(|text| !fits(KAFKA_TOPIC, text)));
        for text in ["a", "/a//b c", "a/$b", "\u{e9}/"] {
            assert!(fits(MQTT_TOPIC, text), "{text}");
        }
        for text in ["+", "a/+/b", "a/#", "a#", "$SYS/x", "a\0", "a\n", "a\u{85}", "\u{fdd0}", "\u{ffff}"] {
            assert!(!fits(MQTT_TOPIC, text), "{text:?}");
        }
        assert!(fits(AMQP_ROUTING_KEY, "a.b c") && !fits(AMQP_ROUTING_KEY, "a\n"));
        for text in
            ["/queue/a.b-c_1", "/queue/a/b", "/topic/\u{e9}", "/amq/queue/a%2Fb", "/exchange/e/a.b", "/exchange/e"]
        {
            assert!(fits(STOMP_DESTINATION, text), "{text}");
        }
        for text in [
            "a",
            "queue/a",
            "/queue/",
            "/temp-queue/a",
            "/queue/a.>",
            "/queue/*",
            "/queue/a,b",
            "/queue/a?x=1",
            "/queue/a b",
            "/queue/a\n",
            "/queue/a//b",
            "/topic/ActiveMQ.Advisory.x",
            "/queue/activemq.DLQ",
        ] {
            assert!(!fits(STOMP_DESTINATION, text), "{text}");
        }
        assert!(fits(REDIS_NAME, "{shop}:events x") && !fits(REDIS_NAME, "a\r\n"));
    }

    #[test]
    fn a_value_cannot_hold_the_separator_or_a_wildcard() {
        for (place, refused) in [
            (NATS_SUBJECT, ".*>$ \t\r\n\0\u{a0}\u{85}"),
            (KAFKA_TOPIC, "./ \n\u{e9}:"),
            (AMQP_ROUTING_KEY, ".*# \n\0"),
            (REDIS_NAME, ":{} \n\0"),
            (ZEROMQ_TOPIC, "./: \n\0\u{e9}"),
            (STOMP_DESTINATION, "/.*>,?%: \n\0\u{e9}"),
        ] {
            assert!(refused.chars().all(|char| !(place.may_have)(char)), "{place:?}");
            assert!("aZ09_-".chars().all(place.may_have), "{place:?}");
        }
    }
}
