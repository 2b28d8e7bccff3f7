//! Compiles webhooks and connections again when a secret file that they name changes.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::feed::Shared;
use crate::config::SecretFiles;

/// How often the files are checked for changes.
const POLL: Duration = Duration::from_millis(250);

/// Checks the files for changes, for ever, and compiles the webhooks and connections that name a changed file.
pub(super) async fn follow(files: Arc<SecretFiles>, published: Shared) {
    let mut seen = 0;
    loop {
        tokio::time::sleep(POLL).await;
        let looking = Arc::clone(&files);
        // The runtime is shutting down, or the check panicked, which is a defect. Either way the next check finds the
        // same changes.
        let Ok((changed, last)) = spawn_blocking(move || looking.look(seen)).await else { continue };
        if !changed.is_empty() {
            let mut published = published.lock().await;
            let bytes = published.here().await.weight_of_dependents();
            published.work(bytes, move |published| published.refresh(&changed)).await;
        }
        seen = last;
    }
}
