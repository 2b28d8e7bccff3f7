//! The queue of accepted events: every backend keeps the same contract, and the worker knows nothing else.

mod contract;
mod memory;

use std::path::PathBuf;

use tower_webhook::queue::disk::DiskQueue;
use tower_webhook::queue::{Backlog, Queue};

use self::contract::Storage;
use self::memory::Memory;

/// A directory on this machine.
struct Directory(tempfile::TempDir);

impl Storage for Directory {
    async fn open(&self, max_bytes: u64) -> (Queue, Backlog) {
        let events = DiskQueue::new(PathBuf::from(self.0.path()).join("events")).max_bytes(max_bytes);
        tokio::task::spawn_blocking(move || events.open()).await.unwrap().unwrap()
    }
}

fn directory() -> Directory {
    Directory(tempfile::tempdir().unwrap())
}

/// Makes one test of the contract for each backend.
macro_rules! for_each_backend {
    ($($test:ident),+ $(,)?) => {
        mod on_disk {
            $(#[tokio::test] async fn $test() { super::contract::$test(&super::directory()).await; })+
        }

        /// Written here, against the public interface alone. Unlike the disk, it returns postponed events by itself.
        mod in_memory {
            $(#[tokio::test] async fn $test() { super::contract::$test(&super::Memory::default()).await; })+
        }
    };
}

#[tokio::test]
async fn a_backend_that_panics_loses_no_event() {
    let memory = Memory::default();
    memory.panic_once();
    contract::the_worker_delivers_retries_and_gives_up(&memory).await;
}

for_each_backend!(
    an_event_is_handed_out_as_it_was_received,
    events_are_handed_out_in_the_order_of_their_receipt,
    unfinished_events_are_there_for_the_next_process,
    progress_is_remembered,
    an_event_that_was_put_off_waits,
    an_event_that_was_put_off_waits_also_in_the_next_process,
    a_dead_letter_is_not_handed_out,
    dead_letters_are_found_by_where_they_came_from,
    dead_letters_are_found_by_why_and_when_they_were_given_up,
    all_dead_letters_that_match_are_replayed_or_deleted,
    waiting_events_are_listed,
    a_dropped_event_is_gone_for_good,
    the_room_of_dropped_events_is_free_again,
    an_operator_ends_the_wait_of_an_event_or_drops_it,
    a_dead_letter_is_replayed_as_if_it_were_new,
    dead_letters_are_removed,
    a_queue_that_is_full_refuses_and_takes_again,
    an_event_that_never_fits_is_refused_as_such,
    without_a_worker_nothing_is_accepted,
    after_a_stop_events_are_accepted_for_the_next_process,
    the_worker_delivers_retries_and_gives_up,
    the_worker_leaves_what_it_did_not_do_to_the_next_one,
);
