//! What the server says about a session, beside its answers.

use std::collections::{HashSet, VecDeque};

use async_nats::{Event, ServerError};

/// The most refusals that are remembered: fewer than the client keeps for us, which is 128.
const MOST_REFUSALS: usize = 100;

/// The most subjects that are remembered as proven.
const MOST_PROVEN: usize = 1024;

/// The server's news about the session.
#[derive(Default)]
pub(super) struct News {
    /// The connection is lost, and with it the answers that are due.
    pub(super) is_lost: bool,
    /// The server is about to stop, or the client must be replaced: answers still come.
    pub(super) is_retired: bool,
    /// The user may not subscribe, so no answer can arrive.
    pub(super) is_deaf: bool,
    /// The number of refusals so far.
    pub(super) refused: u64,
    /// The subjects of the last refusals, with their numbers.
    refusals: VecDeque<(u64, Box<str>)>,
    /// The subjects to which a message was taken, and none refused since.
    proven: HashSet<Box<str>>,
}

#[derive(Debug, PartialEq)]
enum Refusal {
    /// The user may not publish to this subject.
    Publish(Box<str>),
    /// The user may not subscribe, so no answer arrives.
    Subscribe,
}

impl News {
    pub(super) fn hear(&mut self, event: Event) {
        match event {
            Event::Disconnected | Event::Closed => self.is_lost = true,
            Event::LameDuckMode => self.is_retired = true,
            Event::ServerError(ServerError::Other(text)) => match Refusal::parse(&text) {
                Some(Refusal::Publish(subject)) => {
                    self.refused += 1;
                    self.proven.remove(&subject);
                    self.refusals.push_back((self.refused, subject));
                    if self.refusals.len() > MOST_REFUSALS {
                        self.refusals.pop_front();
                    }
                }
                // The client subscribes once, with its first request.
                Some(Refusal::Subscribe) => self.is_deaf = true,
                None => {}
            },
            _ => {}
        }
    }

    /// Whether the server has refused to take something for `subject` after refusal number `since`.
    pub(super) fn refuses(&self, subject: &str, since: u64) -> bool {
        self.refusals.iter().any(|(number, refused)| *number > since && &**refused == subject)
    }

    /// Remembers that a message to `subject` was taken, unless one was refused after refusal number `since`.
    pub(super) fn prove(&mut self, subject: &str, since: u64) {
        if self.refuses(subject, since) || self.has_forgotten(since) {
            return;
        }
        if self.proven.len() >= MOST_PROVEN {
            self.proven.clear();
        }
        self.proven.insert(subject.into());
    }

    pub(super) fn is_proven(&self, subject: &str) -> bool {
        self.proven.contains(subject)
    }

    /// Whether the refusal of a message may have been forgotten since.
    pub(super) fn has_forgotten(&self, since: u64) -> bool {
        self.refused - since >= MOST_REFUSALS as u64
    }
}

impl Refusal {
    /// Reads `Permissions Violation for Publish to "subject"` and its counterpart for a subscription.
    fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        if !lower.starts_with("permissions violation for ") {
            return None;
        }
        if lower.starts_with("permissions violation for subscription") {
            return Some(Self::Subscribe);
        }
        let subject = text.split('"').nth(1)?;
        Some(Self::Publish(subject.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_read_from_the_servers_words() {
        for (text, expected) in [
            ("Permissions Violation for Publish to \"a.b\"", Some(Refusal::Publish("a.b".into()))),
            ("Permissions Violation for Publish with Reply of \"_INBOX.x\"", Some(Refusal::Publish("_INBOX.x".into()))),
            ("Permissions Violation for Subscription to \"_INBOX.x.*\"", Some(Refusal::Subscribe)),
            ("Permissions Violation for Publish", None),
            ("Stale Connection", None),
        ] {
            assert_eq!(Refusal::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn only_later_refusals_of_the_same_subject_count_and_few_are_kept() {
        let mut news = News::default();
        let hear = |news: &mut News, subject: &str| {
            let text = format!("Permissions Violation for Publish to \"{subject}\"");
            news.hear(Event::ServerError(ServerError::Other(text)));
        };
        hear(&mut news, "a");
        assert!(news.refuses("a", 0) && !news.refuses("a", 1) && !news.refuses("b", 0) && !news.is_deaf);
        for _ in 0..1000 {
            hear(&mut news, "b");
        }
        assert!(!news.refuses("a", 0) && news.refuses("b", 1000) && news.refusals.len() == MOST_REFUSALS);
        assert!(news.has_forgotten(0) && news.has_forgotten(901) && !news.has_forgotten(902));
        news.hear(Event::ServerError(ServerError::Other("Permissions Violation for Subscription to \"x\"".into())));
        assert!(news.is_deaf);
        news.hear(Event::LameDuckMode);
        assert!(news.is_retired && !news.is_lost);
        news.hear(Event::Disconnected);
        assert!(news.is_lost);
    }
    #[test]
    fn a_subject_is_proven_until_a_message_to_it_is_refused() {
        let mut news = News::default();
        let refuse = |news: &mut News, subject: &str| {
            let text = format!("Permissions Violation for Publish to \"{subject}\"");
            news.hear(Event::ServerError(ServerError::Other(text)));
        };
        news.prove("a", 0);
        news.prove("b", 0);
        assert!(news.is_proven("a") && news.is_proven("b"));
        refuse(&mut news, "a");
        assert!(!news.is_proven("a") && news.is_proven("b"));
        news.prove("a", 0);
        assert!(!news.is_proven("a"), "a message that was published before the refusal proves nothing");
        news.prove("a", 1);
        assert!(news.is_proven("a"));
        for number in 0..2 * MOST_PROVEN {
            news.prove(&number.to_string(), 1);
        }
        assert!(news.proven.len() <= MOST_PROVEN);
    }
}
