//! The text of the metrics. Many clients may ask for it at a time without reading it.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::time::Instant;

/// How long a rendering may be shared.
const FRESH: Duration = Duration::from_secs(1);

/// Requests share a rendering while an answer still holds it and it is [`FRESH`]. So answers that nobody reads hold at most
/// one rendering for each second. A single scraper that reads its answers always gets a new rendering.
pub(crate) struct Rendering {
    metrics: PrometheusHandle,
    last: Mutex<Option<(Instant, Weak<String>)>>,
}

impl Rendering {
    pub(crate) fn new(metrics: PrometheusHandle) -> Self {
        Self { metrics, last: Mutex::default() }
    }

    /// Calls `measure` before a new rendering.
    pub(crate) fn text(&self, measure: impl FnOnce()) -> Bytes {
        // Other requests wait here, to share the rendering.
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
