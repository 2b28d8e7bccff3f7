//! Logs to stderr (stdout belongs to the module `log`) and metrics for `/metrics`.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tower_webhook::LogLimit;
use tracing_subscriber::EnvFilter;

use crate::settings::Settings;
use crate::stderr::Stderr;
use crate::{Error, stderr};

/// Upper bounds of the latency histogram, in seconds.
const BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

pub(crate) fn init(settings: &Settings, stderr: Stderr) -> Result<PrometheusHandle, Error> {
    let filter = EnvFilter::try_new(&settings.log_filter).map_err(|error| {
        let found = &settings.log_filter;
        format!("RUST_LOG: found `{found}`, expected a filter such as info, or warn,tower_webhook=debug: {error}")
    })?;
    let writer = stderr.clone();
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || writer.clone());
    match settings.log_json {
        true => logs.json().init(),
        false => logs.with_ansi(false).init(),
    }
    log_panics(stderr);

    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full("tower_webhook_request_seconds".to_owned()), &BUCKETS)?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| "a metrics recorder is installed already")?;
    stderr::describe();
    let upkeep = handle.clone();
    tokio::spawn(async move {
        // Histograms grow until they are drained, also while nobody scrapes.
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

/// Panics are logged like everything else. What std does writes to stderr by itself, and waits for its reader.
fn log_panics(stderr: Stderr) {
    // The same panic may come with each event.
    let limit = LogLimit::default();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string);
        let Some(left_out) = limit.admit(place) else { return };
        let left_out = (left_out > 0).then_some(left_out);
        let backtrace = Backtrace::capture();
        let backtrace = matches!(backtrace.status(), BacktraceStatus::Captured).then(|| backtrace.to_string());
        match tracing::enabled!(tracing::Level::ERROR) {
            true => tracing::error!(backtrace, left_out, "{panic}"),
            // Whatever the filter says, a panic is told of.
            false => stderr.line(&format!("{panic}\n{}", backtrace.unwrap_or_default())),
        }
    }));
}
