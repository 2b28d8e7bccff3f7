//! Errors of librdkafka as errors of deliveries.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::event::{DeliverError, DeliverErrorKind as Kind};

/// The longest reason that is passed on, in characters.
const MAX_REASON: usize = 300;

/// The kind of an error of librdkafka or of a broker.
pub(super) fn kind(code: Code) -> Kind {
    match code {
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::Resolve
        | Code::SSL
        | Code::NetworkException
        | Code::BrokerNotAvailable => Kind::Connect,
        Code::MessageTimedOut | Code::OperationTimedOut | Code::RequestTimedOut | Code::TimedOutQueue => Kind::Timeout,
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::IllegalSASLState
        | Code::UnsupportedSASLMechanism => Kind::Auth,
        Code::TopicAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::UnknownTopic
        | Code::UnknownTopicOrPartition
        | Code::UnknownPartition
        | Code::InvalidTopic
        | Code::PolicyViolation
        | Code::InvalidRequiredAcks => Kind::Config,
        Code::MessageSizeTooLarge | Code::InvalidMessage | Code::InvalidRecord | Code::InvalidMessageSize => {
            Kind::Permanent
        }
        Code::ThrottlingQuotaExceeded | Code::QueueFull => Kind::Throttled,
        _ => Kind::Unavailable,
    }
}

/// An error of a message.
pub(super) fn of_message(error: &KafkaError, topic: &str) -> DeliverError {
    let code = error.rdkafka_error_code().unwrap_or(Code::Fail);
    DeliverError::new(kind(code), bounded(&format!("topic {topic}: {}", text(code))))
}

/// The words of an error's code.
fn text(code: Code) -> String {
    match code {
        Code::MessageSizeTooLarge => {
            "the message is larger than `message.max.bytes` of the broker or the topic".to_owned()
        }
        Code::MessageTimedOut => "no broker has confirmed the message in time".to_owned(),
        Code::QueueFull => "too many messages wait for the brokers".to_owned(),
        code => code.to_string(),
    }
}

/// Texts of librdkafka may quote whatever a server sent.
pub(super) fn bounded(reason: &str) -> String {
    reason.chars().map(|char| if char.is_control() { ' ' } else { char }).take(MAX_REASON).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_kind_that_decides_about_a_retry() {
        for (code, expected) in [
            (Code::AllBrokersDown, Kind::Connect),
            (Code::MessageTimedOut, Kind::Timeout),
            (Code::SaslAuthenticationFailed, Kind::Auth),
            (Code::UnknownTopicOrPartition, Kind::Config),
            (Code::TopicAuthorizationFailed, Kind::Config),
            (Code::MessageSizeTooLarge, Kind::Permanent),
            (Code::ThrottlingQuotaExceeded, Kind::Throttled),
            (Code::NotEnoughReplicas, Kind::Unavailable),
            (Code::NotEnoughReplicasAfterAppend, Kind::Unavailable),
            (Code::LeaderNotAvailable, Kind::Unavailable),
            (Code::NotLeaderForPartition, Kind::Unavailable),
            (Code::KafkaStorageError, Kind::Unavailable),
        ] {
            assert_eq!(kind(code), expected, "{code:?}");
        }
    }

    #[test]
    fn a_reason_is_bounded_and_has_no_control_characters() {
        assert_eq!(bounded("a\n\u{1b}b"), "a  b");
        assert_eq!(bounded(&"é".repeat(1000)).chars().count(), 300);
    }
}
