//! Does the same work for many items, on all processors.

use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::thread;

use tokio::runtime::Handle;

use crate::base::lock::lock;

/// The number of items that a thread takes at a time. Much less than this is not worth a thread.
const SHARE: usize = 128;

/// Does `work` for each item. The results are in the order of the items.
///
/// All work runs within the caller's runtime: an application's module may spawn a task when it is built.
pub(super) fn for_each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    if items.len() < 2 * SHARE {
        return items.iter().map(work).collect();
    }
    let shares = Mutex::new(items.chunks(SHARE).enumerate());
    let done = Mutex::new(Vec::new());
    let take_part = || {
        while let Some((at, share)) = { lock(&shares).next() } {
            let results: Vec<R> = share.iter().map(&work).collect();
            lock(&done).push((at, results));
        }
    };
    let runtime = Handle::try_current().ok();
    let help = || {
        let _within = runtime.as_ref().map(Handle::enter);
        take_part();
    };
    let helpers = thread::available_parallelism().map_or(1, NonZero::get).min(items.len() / SHARE) - 1;
    thread::scope(|scope| {
        for _ in 0..helpers {
            // If no thread can be started, this thread does all the work.
            let _ = thread::Builder::new().spawn_scoped(scope, help);
        }
        take_part();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().flat_map(|(_, results)| results).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        for count in [0, 1, SHARE, 2 * SHARE, 100 * SHARE + 1] {
            let items: Vec<usize> = (0..count).collect();
            let doubled: Vec<usize> = items.iter().map(|n| 2 * n).collect();
            assert_eq!(for_each(&items, |n| 2 * n), doubled);
        }
    }

    #[tokio::test]
    async fn the_work_may_use_the_runtime_of_the_caller() {
        let tasks = for_each(&[1; 10 * SHARE], |n| {
            let n = *n;
            tokio::spawn(async move { n })
        });
        for task in tasks {
            assert_eq!(task.await.unwrap(), 1);
        }
    }
}
