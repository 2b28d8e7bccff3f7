//! Helpers that the tests share.

pub(crate) mod client;
pub(crate) mod gateway;
pub(crate) mod target;

use std::future::Future;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Far longer than anything takes, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Waits for `future`, with a time limit.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("in {PATIENCE:?} this did not happen: {what}"),
    }
}

/// Repeats `f` until it returns `true`, with a time limit.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut f: impl FnMut() -> F) {
    within(what, async {
        while !f().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// More than the number of tests.
const SEATS: u32 = 1000;

static MACHINE: Semaphore = Semaphore::const_new(SEATS as usize);

/// For a test that runs beside others.
pub(crate) async fn beside_others() -> SemaphorePermit<'static> {
    MACHINE.acquire().await.unwrap()
}

/// For a test that measures.
pub(crate) async fn alone() -> SemaphorePermit<'static> {
    MACHINE.acquire_many(SEATS).await.unwrap()
}
