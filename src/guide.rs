//! The manual, one page for each subject.
//!
//! | page | question |
//! |---|---|
//! | [`layers`] | Which layers are there, in which order, and how do I put some of them in front of my own route? |
//! | [`configuration`] | Which keys does a webhook have? |
//! | [`guards`] | Which guards are there, and how do I configure each? |
//! | [`providers`] | Which senders that sign are known, and how do I configure any other? |
//! | [`handshakes`] | How does a provider check an address, and which answer does it get? |
//! | [`answers`] | What does each answer mean, and should the sender send the event again? |
//! | [`accepted`] | What does a 202 promise? |
//! | [`targets`] | Where can events go? |
//! | [`history`] | Which data of each event are kept, and how long? |
//! | [`etcd`] | What does the etcd source promise, and how was that tested? |
//! | [`operating`] | How do I run the gateway? |
//! | [`security`] | What must I know before I expose a receiver? |
//! | [`extending`] | How do I add a guard, a module, a source of my own? |
//! | [`compare`] | How does this differ from other software? |
//! | [`migration`] | What changes for a configuration of the Python service? |

pub mod accepted {
    #![doc = include_str!("docs/accepted.md")]
}
pub mod answers {
    #![doc = include_str!("docs/answers.md")]
}
pub mod compare {
    #![doc = include_str!("docs/compare.md")]
}
pub mod configuration {
    #![doc = include_str!("docs/configuration.md")]
}
pub mod etcd {
    #![doc = include_str!("docs/etcd.md")]
}
pub mod extending {
    #![doc = include_str!("docs/extending.md")]
}
pub mod guards {
    #![doc = include_str!("docs/guards.md")]
}
pub mod handshakes {
    #![doc = include_str!("docs/handshakes.md")]
}
pub mod history {
    #![doc = include_str!("docs/history.md")]
}
pub mod layers {
    #![doc = include_str!("docs/layers.md")]
}
pub mod migration {
    #![doc = include_str!("docs/migration.md")]
}
pub mod operating {
    #![doc = include_str!("docs/operating.md")]
}
pub mod providers {
    #![doc = include_str!("docs/providers.md")]
}
pub mod security {
    #![doc = include_str!("docs/security.md")]
}
pub mod targets {
    #![doc = include_str!("docs/targets.md")]
}

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub mod readme {}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use http::HeaderValue;

    use crate::RejectionKind;
    use crate::config::field_names;

    /// The cells of the rows of every table in `page` whose head begins with these columns.
    fn rows<'a>(page: &'a str, columns: &[&str]) -> Vec<Vec<&'a str>> {
        let cells =
            |line: &'a str| -> Vec<&'a str> { line.trim().trim_matches('|').split('|').map(str::trim).collect() };
        let mut rows = Vec::new();
        let mut lines = page.lines();
        while let Some(line) = lines.next() {
            if line.starts_with('|') && cells(line).starts_with(columns) {
                rows.extend(lines.by_ref().skip(1).take_while(|line| line.starts_with('|')).map(cells));
            }
        }
        rows
    }

    #[test]
    fn the_page_of_answers_has_every_refusal_with_its_status_and_its_wait() {
        let page = include_str!("docs/answers.md");
        let mut written = BTreeMap::new();
        for row in rows(page, &["status", "outcome"]) {
            let label = row[1].trim_matches('`');
            let again = row.last().unwrap();
            let wait = again.split_once("Retry-After: ").map(|(_, wait)| wait.trim_end_matches('`'));
            assert_eq!(written.insert(label, (row[0], wait)), None, "{label} has two rows");
        }
        for outcome in ["delivered", "accepted", "duplicate", "aborted"] {
            assert!(written.remove(outcome).is_some(), "the outcome {outcome} has no row");
        }
        for kind in RejectionKind::ALL {
            let (status, wait) = written.remove(kind.label()).unwrap_or_else(|| panic!("{kind:?} has no row"));
            let response = crate::Rejection::new(kind).into_response::<()>();
            assert_eq!(status, response.status().as_str(), "{kind:?}");
            assert_eq!(wait.map(HeaderValue::from_static), response.headers().get("retry-after").cloned(), "{kind:?}");
        }
        assert!(written.is_empty(), "these rows are of no refusal: {written:?}");
    }

    #[test]
    fn the_page_of_targets_has_every_option_of_every_module() {
        let page = include_str!("docs/targets.md");
        let options = |section: &str| -> BTreeSet<String> {
            let section = page.split("\n#").find(|part| part.trim_start_matches('#').starts_with(section)).unwrap();
            let tables = rows(section, &["option"]).into_iter().chain(rows(section, &["key"]));
            tables.map(|row| row[0].trim_matches('`').to_owned()).collect()
        };
        let names = |fields: &[&str]| -> BTreeSet<String> { fields.iter().map(|name| (*name).to_owned()).collect() };
        assert_eq!(options(" `log`"), names(field_names::<crate::module::LogConfig>()));
        #[cfg(feature = "save-to-disk")]
        assert_eq!(options(" `save_to_disk`"), names(field_names::<crate::module::SaveToDiskConfig>()));
        #[cfg(feature = "http-webhook")]
        assert_eq!(options(" `http_webhook`"), names(field_names::<crate::module::HttpWebhookConfig>()));
        #[cfg(feature = "mqtt")]
        assert_eq!(options(" `mqtt`"), names(field_names::<crate::module::MqttConfig>()));
        #[cfg(feature = "mqtt")]
        assert_eq!(
            options(" A connection of the type `mqtt`"),
            names(field_names::<crate::module::MqttConnectionConfig>())
        );
        #[cfg(feature = "nats")]
        assert_eq!(options(" `nats`"), names(field_names::<crate::module::NatsConfig>()));
        #[cfg(feature = "nats")]
        assert_eq!(
            options(" A connection of the type `nats`"),
            names(field_names::<crate::module::NatsConnectionConfig>())
        );
        #[cfg(feature = "http-webhook")]
        assert_eq!(
            options(" A connection of the type `http`"),
            names(field_names::<crate::module::HttpConnectionConfig>())
        );
        #[cfg(feature = "activemq")]
        assert_eq!(options(" `activemq`"), names(field_names::<crate::module::ActiveMqConfig>()));
        #[cfg(feature = "activemq")]
        assert_eq!(
            options(" A connection of the type `activemq`"),
            names(field_names::<crate::module::ActiveMqConnectionConfig>())
        );
        #[cfg(feature = "kafka")]
        assert_eq!(options(" `kafka`"), names(field_names::<crate::module::KafkaConfig>()));
        #[cfg(feature = "kafka")]
        assert_eq!(
            options(" A connection of the type `kafka`"),
            names(field_names::<crate::module::KafkaConnectionConfig>())
        );
        #[cfg(feature = "rabbitmq")]
        assert_eq!(options(" `rabbitmq`"), names(field_names::<crate::module::RabbitMqConfig>()));
        #[cfg(feature = "rabbitmq")]
        assert_eq!(
            options(" A connection of the type `rabbitmq`"),
            names(field_names::<crate::module::RabbitMqConnectionConfig>())
        );
        #[cfg(feature = "websocket")]
        assert_eq!(options(" `websocket`"), names(field_names::<crate::module::WebSocketConfig>()));
        #[cfg(feature = "websocket")]
        assert_eq!(
            options(" A connection of the type `websocket`"),
            names(field_names::<crate::module::WebSocketConnectionConfig>())
        );
        #[cfg(feature = "zeromq")]
        assert_eq!(options(" `zeromq`"), names(field_names::<crate::module::ZeroMqConfig>()));
        #[cfg(feature = "zeromq")]
        assert_eq!(
            options(" A connection of the type `zeromq`"),
            names(field_names::<crate::module::ZeroMqConnectionConfig>())
        );
        #[cfg(feature = "redis")]
        for (section, names_of_code) in [
            (" `redis_stream`", field_names::<crate::module::RedisStreamConfig>()),
            (" `redis_publish`", field_names::<crate::module::RedisPublishConfig>()),
            (" `redis_rq`", field_names::<crate::module::RedisRqConfig>()),
            (" A connection of the type `redis`", field_names::<crate::module::RedisConnectionConfig>()),
        ] {
            assert_eq!(options(section), names(names_of_code), "{section}");
        }
    }

    #[test]
    fn the_page_of_configuration_has_every_key_of_a_webhooks_objects() {
        let page = include_str!("docs/configuration.md");
        for (object, names) in [
            ("retry", field_names::<crate::delivery::RetryConfig>()),
            ("chain-config", field_names::<crate::delivery::Plan>()),
            ("credential_cleanup", field_names::<crate::delivery::Cleanup>()),
            ("dedup", field_names::<crate::dedup::DedupRule>()),
        ] {
            let written: BTreeSet<_> =
                rows(page, &[&format!("key of `{object}`")]).into_iter().map(|row| row[0].trim_matches('`')).collect();
            assert_eq!(written, names.iter().copied().collect(), "{object}");
        }
    }

    #[test]
    fn the_numbers_of_the_manual_are_those_of_the_code() {
        let facts = [
            (
                include_str!("docs/configuration.md"),
                format!("| keys and items, in all | {} |", grouped(crate::config::MOST_HELD)),
            ),
            (include_str!("docs/configuration.md"), format!("| size | {} KiB |", crate::config::LONGEST >> 10)),
            (include_str!("docs/configuration.md"), format!("has 1 to {} characters", crate::config::MAX_NAME)),
            (include_str!("docs/configuration.md"), format!("{} (72 hours)", crate::dedup::DEFAULT_TTL.as_secs())),
            (include_str!("docs/configuration.md"), format!("| {} (30 days) |", crate::dedup::MAX_TTL.as_secs())),
            (include_str!("docs/configuration.md"), format!("an id over {} bytes", crate::dedup::MAX_ID)),
            (
                include_str!("docs/configuration.md"),
                format!("gives each event to 1 to {} modules", crate::event::MAX_STEPS),
            ),
            (include_str!("docs/answers.md"), format!("at most {} fields", grouped(crate::form::MAX_FIELDS))),
            (include_str!("docs/answers.md"), format!("nested more than {} levels deep", crate::json::MAX_DEPTH)),
        ];
        for (page, sentence) in facts {
            let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(page.contains(&sentence), "the manual does not say {sentence:?}");
        }
    }

    /// With a comma before every three digits.
    fn grouped(number: usize) -> String {
        let digits = number.to_string();
        let mut text = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        text
    }
}
