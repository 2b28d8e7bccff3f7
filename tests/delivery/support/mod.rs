//! What the tests share.

pub(crate) mod client;
pub(crate) mod gateway;
pub(crate) mod target;

use std::future::Future;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Far longer than anything takes, also on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// Waits, within bounds.
pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("in {PATIENCE:?} this did not happen: {what}"),
    }
}

/// Asks again and again until `f` says so, within bounds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut f: impl FnMut() -> F) {
    within(what, async {
        while !f().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// More than there are tests.
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
