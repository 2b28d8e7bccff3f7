//! The text of the metrics, which many may ask for and nobody need read.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::time::Instant;

/// How long a rendering is given to others too.
const FRESH: Duration = Duration::from_secs(1);

/// One rendering for all that ask while somebody still holds it, so that answers that nobody reads cost one rendering a
/// second at most. A single scraper that reads its answer always gets a new one.
pub(crate) struct Rendering {
    metrics: PrometheusHandle,
    last: Mutex<Option<(Instant, Weak<String>)>>,
}

impl Rendering {
    pub(crate) fn new(metrics: PrometheusHandle) -> Self {
        Self { metrics, last: Mutex::default() }
    }

    /// `measure` is called before a new rendering.
    pub(crate) fn text(&self, measure: impl FnOnce()) -> Bytes {
        // Others wait for the one that renders, to share it.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = last.as_ref().filter(|(since, _)| since.elapsed() < FRESH).and_then(|(_, text)| text.upgrade());
        let text = shared.unwrap_or_else(|| {
            measure();
            let text = Arc::new(self.metrics.render());
            *last = Some((Instant::now(), Arc::downgrade(&text)));
            text
        });
        Bytes::from_owner(Held(text))
    }
}

struct Held(Arc<String>);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}
