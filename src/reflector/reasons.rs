//! Decides which reasons for a disconnection are logged.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A reason that comes back after another one is logged again after this time.
const AGAIN: Duration = Duration::from_secs(60);

/// At most this many different reasons are logged within that time.
const MOST: usize = 8;

/// The reasons that were logged lately, the newest last.
#[derive(Debug, Default)]
pub(super) struct Reasons {
    named: VecDeque<(Instant, String)>,
}

impl Reasons {
    /// Records a reason that is logged in any case, because the state has changed.
    pub(super) fn name(&mut self, now: Instant, reason: &str) {
        self.named.retain(|(at, named)| named != reason && now.duration_since(*at) < AGAIN);
        if self.named.len() == MOST {
            self.named.pop_front();
        }
        self.named.push_back((now, reason.to_owned()));
    }

    /// Whether a reason for an unchanged state is to be logged. If it is, it is recorded.
    pub(super) fn is_news(&mut self, now: Instant, reason: &str) -> bool {
        if self.named.back().is_some_and(|(_, last)| is_alike(last, reason)) {
            return false;
        }
        let mut lately = self.named.iter().filter(|(at, _)| now.duration_since(*at) < AGAIN);
        if lately.clone().count() == MOST || lately.any(|(_, named)| is_alike(named, reason)) {
            return false;
        }
        self.name(now, reason);
        true
    }
}

/// Whether two reasons are the same except for times and other long numbers. Another address or port makes another
/// reason.
fn is_alike(one: &str, other: &str) -> bool {
    one == other || without_times(one) == without_times(other)
}

fn without_times(reason: &str) -> String {
    let is_time = |word: &&str| {
        let number = word.trim_matches(|c: char| c.is_ascii_punctuation());
        number.len() > 4 && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    reason.split(' ').filter(|word| !is_time(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn each_new_reason_is_named_and_the_same_one_is_not() {
        let (mut reasons, now) = (Reasons::default(), Instant::now());
        reasons.name(now, "refused");
        assert!(!reasons.is_news(now + SECOND, "refused"));
        assert!(reasons.is_news(now + 2 * SECOND, "not permitted"));
        assert!(!reasons.is_news(now + 3600 * SECOND, "not permitted"), "nothing has changed");
        assert!(reasons.is_news(now + 3601 * SECOND, "refused"));
    }

    #[test]
    fn reasons_by_turns_are_named_once_a_minute() {
        let (mut reasons, now) = (Reasons::default(), Instant::now());
        reasons.name(now, "1: refused");
        let named = (1..600_u32).filter(|n| {
            let reason = if n % 2 == 0 { "1: refused" } else { "2: timeout" };
            reasons.is_news(now + *n * SECOND, reason)
        });
        assert!(named.count() <= 20);
    }

    #[test]
    fn reasons_without_end_are_bounded() {
        let (mut reasons, now) = (Reasons::default(), Instant::now());
        let named = (0..6000_u32).filter(|n| reasons.is_news(now + *n * SECOND / 100, &format!("reason {n}")));
        assert!(named.count() <= MOST);
        for n in 0..100 {
            reasons.name(now + 60 * SECOND, &format!("reason {n}"));
        }
        assert_eq!(reasons.named.len(), MOST);
    }

    #[test]
    fn a_time_makes_no_other_reason_and_an_address_does() {
        let expired = |seconds: u32| {
            format!(
                "certificate expired: verification time {seconds} (UNIX), but certificate is not valid after 1609459200 ({seconds} seconds ago)"
            )
        };
        assert!(is_alike(&expired(1_795_703_789), &expired(1_795_703_791)));
        assert!(!is_alike("http://10.0.0.1:2379: refused", "http://10.0.0.2:2379: refused"));
        assert!(!is_alike("10.0.0.1:2379 refused", "10.0.0.2:2379 refused"));
    }
}
