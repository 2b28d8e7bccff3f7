//! `/health` and `/ready`, which probes ask for.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::json;
use tokio::time::sleep;

use super::answer::{Answer, Problem, ok};
use super::state::State;

/// The longest wait of `/ready?min_revision=N`.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// 200 while the process can serve. The body names faults of the source, which a restart would not mend.
pub(super) fn health(state: &State) -> Answer {
    let status = state.store.status();
    let loaded = status.snapshot.is_loaded();
    let mut components = json!({ status.source: status.state.label() });
    if let Some(queue) = &state.queue {
        components["spool"] = json!(if queue.status().is_failing { "failing" } else { "healthy" });
    }
    ok(&json!({
        "status": if loaded { "healthy" } else { "starting" },
        "components": components,
        "staleness_seconds": status.staleness().map(|staleness| staleness.as_secs_f64()),
    }))
}

/// 200 once a configuration is loaded, and the revision is reached if there is one.
pub(super) async fn ready(state: &Arc<State>, min_revision: Option<u64>) -> Result<Answer, Problem> {
    if state.is_stopping() {
        return Err(stopping());
    }
    if let Some(revision) = min_revision {
        wait_for(revision, state).await?;
    }
    let snapshot = state.store.snapshot();
    match snapshot.is_loaded() {
        true => Ok(ok(&json!({"status": "ready", "revision": snapshot.revision()}))),
        false => Err(not_ready("no configuration has been loaded yet")),
    }
}

async fn wait_for(revision: u64, state: &Arc<State>) -> Result<(), Problem> {
    let mut waiting = pin!(state.store.wait_for_revision(revision));
    // Most revisions have been reached already and need no permit.
    let reached = match waiting.as_mut().now_or_never() {
        Some(reached) => reached,
        None => {
            // Anybody may ask, and a connection that waits cannot make room for another.
            let Ok(_place) = state.waits.try_acquire() else {
                return Err(Problem::busy("too many requests wait for a revision; try again later"));
            };
            tokio::select! {
                reached = waiting => reached,
                () = state.stop.clone() => return Err(stopping()),
                () = sleep(LONGEST_WAIT) => false,
            }
        }
    };
    // Or it is no longer reached: after a restore of etcd the number belongs to another history.
    match reached {
        true => Ok(()),
        false => Err(not_ready("the revision has not been reached")),
    }
}

fn not_ready(detail: &'static str) -> Problem {
    Problem::new(http::StatusCode::SERVICE_UNAVAILABLE, detail)
}

fn stopping() -> Problem {
    not_ready("shutting down")
}
