//! Work on all dead letters that match a query, page by page: events that arrive meanwhile need not wait, and memory holds
//! one page.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::time::SystemTime;

use super::backend::Backend;
use super::dead_letter::{DeadLetter, DeadLetterGroup, DeadLetterGroups, DeadLetterQuery};
use crate::config::WebhookKey;
use crate::event::DeliverErrorKind;

/// How many dead letters are in memory at a time.
const PAGE: usize = 500;

/// The largest number of groups.
const MAX_GROUPS: usize = 1000;

/// How many dead letters matched a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// How many matched.
    pub matched: u64,
    /// How many of them were replayed or deleted; zero after a dry run.
    pub done: u64,
}

#[derive(Clone, Copy)]
pub(super) enum Work {
    Count,
    Replay,
    Remove,
}

pub(super) async fn each_page(queue: &dyn Backend, query: DeadLetterQuery, work: Work) -> io::Result<Matched> {
    let mut total = Matched::default();
    let mut pages = Pages::of(query);
    while let Some(page) = pages.next(queue).await? {
        total.matched += page.len() as u64;
        let ids = |page: Vec<DeadLetter>| page.into_iter().map(|letter| letter.id).collect();
        total.done += match work {
            Work::Count => 0,
            Work::Replay => queue.replay(ids(page)).await?,
            Work::Remove => queue.remove_dead_letters(ids(page)).await?,
        } as u64;
    }
    Ok(total)
}

pub(super) async fn groups(queue: &dyn Backend, query: DeadLetterQuery) -> io::Result<DeadLetterGroups> {
    let mut groups = Groups::default();
    let mut pages = Pages::of(query);
    while let Some(page) = pages.next(queue).await? {
        page.into_iter().for_each(|letter| groups.add(letter));
    }
    Ok(groups.sorted())
}

/// The pages of a query, up to the events that were received before it began: dead letters that come meanwhile would
/// make it endless.
struct Pages {
    query: DeadLetterQuery,
    /// How many more dead letters the query may select.
    left: usize,
    began: SystemTime,
}

impl Pages {
    fn of(query: DeadLetterQuery) -> Self {
        Self { left: query.limit, query, began: SystemTime::now() }
    }

    async fn next(&mut self, queue: &dyn Backend) -> io::Result<Option<Vec<DeadLetter>>> {
        if self.left == 0 {
            return Ok(None);
        }
        let query = DeadLetterQuery { limit: self.left.min(PAGE), ..self.query.clone() };
        let mut page = queue.dead_letters(query).await?;
        // The ids are sorted by the time of receipt.
        let came_later = |letter: &DeadLetter| letter.id.received_at() > self.began;
        page.truncate(page.partition_point(|letter| !came_later(letter)));
        let Some(last) = page.last() else { return Ok(None) };
        self.query.after = Some(last.id);
        self.left -= page.len().min(self.left);
        tokio::task::yield_now().await;
        Ok(Some(page))
    }
}

#[derive(Default)]
struct Groups {
    groups: HashMap<(WebhookKey, DeliverErrorKind, Box<str>), Group>,
    others: u64,
}

struct Group {
    count: u64,
    oldest: SystemTime,
    newest: SystemTime,
}

impl Groups {
    fn add(&mut self, letter: DeadLetter) {
        let at = letter.died_at;
        let has_room = self.groups.len() < MAX_GROUPS;
        match self.groups.entry((letter.webhook, letter.kind, letter.reason)) {
            Entry::Occupied(mut group) => {
                let group = group.get_mut();
                group.count += 1;
                (group.oldest, group.newest) = (group.oldest.min(at), group.newest.max(at));
            }
            Entry::Vacant(place) if has_room => {
                place.insert(Group { count: 1, oldest: at, newest: at });
            }
            Entry::Vacant(_) => self.others += 1,
        }
    }

    fn sorted(self) -> DeadLetterGroups {
        let group = |((webhook, kind, reason), Group { count, oldest, newest })| DeadLetterGroup {
            webhook,
            kind,
            reason,
            count,
            oldest,
            newest,
        };
        let mut groups: Vec<_> = self.groups.into_iter().map(group).collect();
        groups
            .sort_by(|a, b| (Reverse(a.count), &a.webhook, &a.reason).cmp(&(Reverse(b.count), &b.webhook, &b.reason)));
        DeadLetterGroups { groups, others: self.others }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::event::EventId;

    fn letter(reason: &str, at: u64) -> DeadLetter {
        DeadLetter {
            id: EventId::from_uuid(uuid::Uuid::nil()),
            webhook: WebhookKey::new("shop", "a").unwrap(),
            attempts: 1,
            died_at: SystemTime::UNIX_EPOCH + Duration::from_secs(at),
            kind: DeliverErrorKind::Permanent,
            reason: reason.into(),
            size: 1,
        }
    }

    #[test]
    fn groups_are_bounded_and_the_largest_comes_first() {
        let mut groups = Groups::default();
        groups.add(letter("often", 5));
        (0..MAX_GROUPS as u64).for_each(|n| groups.add(letter(&n.to_string(), n)));
        groups.add(letter("often", 3));
        groups.add(letter("often", 9));
        let DeadLetterGroups { groups, others } = groups.sorted();
        assert_eq!((groups.len(), others), (MAX_GROUPS, 1));
        let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let first = &groups[0];
        assert_eq!((&*first.reason, first.count, seconds(first.oldest), seconds(first.newest)), ("often", 3, 3, 9));
    }
}
