//! Logs to stderr (stdout belongs to the module `log`) and metrics for `/metrics`.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tower_webhook::LogLimit;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

use crate::settings::Settings;
use crate::stderr::Stderr;
use crate::{Error, stderr};

/// Upper bounds of the histograms of requests and attempts, in seconds.
const DURATIONS: [f64; 20] = [
    0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0, 30.0,
];

/// Upper bounds of the histogram of the time to delivery, in seconds: an event may wait for days.
const DELIVERIES: [f64; 16] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0];

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The help texts of the gateway's own metrics.
const COUNTERS: [(&str, &str); 5] = [
    ("tower_webhook_connections_refused_total", "Connections closed at once because the listener had no room."),
    ("tower_webhook_connections_replaced_total", "Idle connections closed to make room for new ones."),
    ("tower_webhook_connections_unread_total", "Connections closed because unread answers held too much memory."),
    ("tower_webhook_http2_connections_closed_total", "HTTP/2 connections closed because they held too much memory."),
    ("tower_webhook_log_lines_dropped_total", "Log lines left out because nobody read stderr."),
];
const GAUGES: [(&str, &str); 4] = [
    ("tower_webhook_build_info", "1, with the version of the gateway."),
    ("tower_webhook_body_memory_bytes", "Bytes of request bodies in memory."),
    (
        "tower_webhook_config_staleness_seconds",
        "Time since the served configuration was last proven to be that of the source.",
    ),
    (
        "tower_webhook_files_refused",
        "1 while the newest contents of these files cannot be used, and the previous ones stay in use.",
    ),
];

pub(crate) fn init(settings: &Settings, stderr: Stderr) -> Result<PrometheusHandle, Error> {
    let filter = filter(&settings.log_filter).ok_or_else(|| {
        let found = &settings.log_filter;
        format!("RUST_LOG: found `{found}`, expected a filter such as `info` or `warn,tower_webhook=debug`")
    })?;
    let writer = stderr.clone();
    let lines = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
    let lines = match settings.log_json {
        true => lines.json().boxed(),
        false => lines.with_ansi(false).boxed(),
    };
    tracing_subscriber::registry().with(lines).with(filter).init();
    log_panics(stderr);

    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full("tower_webhook_request_seconds".to_owned()), &DURATIONS)?
        .set_buckets_for_metric(Matcher::Full("tower_webhook_attempt_seconds".to_owned()), &DURATIONS)?
        .set_buckets_for_metric(Matcher::Full("tower_webhook_delivery_seconds".to_owned()), &DELIVERIES)?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| "a metrics recorder is installed already")?;
    describe();
    let upkeep = handle.clone();
    tokio::spawn(async move {
        // Histograms grow until they are drained, even if nobody scrapes.
        loop {
            tokio::time::sleep(Duration::from_secs(5)).await;
            upkeep.run_upkeep();
        }
    });
    Ok(handle)
}

/// Adds the help texts, and the metrics that are there from the start.
fn describe() {
    tower_webhook::receiver::describe_metrics();
    COUNTERS.iter().for_each(|(name, help)| metrics::describe_counter!(*name, *help));
    GAUGES.iter().for_each(|(name, help)| metrics::describe_gauge!(*name, *help));
    metrics::gauge!("tower_webhook_build_info", "version" => VERSION).set(1.0);
    stderr::describe();
}

/// Levels, for all targets or for targets with a prefix: `warn,tower_webhook=debug`.
fn filter(text: &str) -> Option<Targets> {
    let parts: Vec<_> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    // `Targets` would take any text that is not a level for the name of a target.
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || b"_-:=".contains(&byte);
    match !parts.is_empty() && parts.iter().all(|part| part.bytes().all(is_known)) {
        true => parts.join(",").parse().ok(),
        false => None,
    }
}

/// Logs panics like everything else. The hook of std writes to stderr directly and would wait for its reader.
fn log_panics(stderr: Stderr) {
    // Each event may cause the same panic.
    let limit = LogLimit::default();
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string);
        let Some(left_out) = limit.admit(place) else { return };
        let left_out = (left_out > 0).then_some(left_out);
        let backtrace = Backtrace::capture();
        let backtrace = matches!(backtrace.status(), BacktraceStatus::Captured).then(|| backtrace.to_string());
        match tracing::enabled!(tracing::Level::ERROR) {
            true => tracing::error!(backtrace, left_out, "{panic}"),
            // A panic is logged whatever the filter says.
            false => stderr.line(&format!("{panic}\n{}", backtrace.unwrap_or_default())),
        }
    }));
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::filter;

    #[test]
    fn a_filter_has_levels_for_all_targets_and_for_some() {
        let filter = filter(" info, tower_webhook::rejection=warn,gateway=DEBUG,").unwrap();
        assert!(filter.would_enable("hyper", &Level::INFO) && !filter.would_enable("hyper", &Level::DEBUG));
        assert!(!filter.would_enable("tower_webhook::rejection", &Level::INFO));
        assert!(filter.would_enable("gateway::server", &Level::DEBUG));
        assert!(!super::filter("off").unwrap().would_enable("gateway", &Level::ERROR));
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for text in ["", " , ", "[", "info;debug", "tower_webhook=nonsense", "a=b=c", "gateway[span]=info"] {
            assert!(filter(text).is_none(), "{text}");
        }
    }
}
