//! Helpers that the tests share.

pub(crate) mod certificates;
pub(crate) mod client;
pub(crate) mod gateway;
pub(crate) mod proxy;
pub(crate) mod rig;
pub(crate) mod server;
pub(crate) mod speed;

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Far longer than anything takes, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// More than an outcome needs on a busy machine that waits for no time limit: those of modules and of [`rig::Rig::start`] are
/// longer.
pub(crate) const SOON: Duration = Duration::from_secs(8);

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
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// The path of something that `.ci/tools.sh all` puts below `target/tools`. `TOOLS` names another directory.
pub(crate) fn tool(name: &str) -> PathBuf {
    let default = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tools");
    let path = std::env::var_os("TOOLS").map_or_else(default, PathBuf::from).join(name);
    assert!(path.exists(), "there is no {}; `bash .ci/tools.sh all` brings it", path.display());
    // A program may be started in another directory.
    std::path::absolute(path).unwrap()
}

/// The number of tests that may run at a time: each has a server, and the machine may have two cores.
const SEATS: usize = 3;

static MACHINE: Semaphore = Semaphore::const_new(SEATS);

/// A seat for a test. It waits until one is free.
pub(crate) async fn seat() -> SemaphorePermit<'static> {
    MACHINE.acquire().await.unwrap()
}

/// All seats, for a test that measures.
pub(crate) async fn alone() -> SemaphorePermit<'static> {
    MACHINE.acquire_many(SEATS as u32).await.unwrap()
}
