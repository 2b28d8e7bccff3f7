//! Fills a history for the tests of the inspector: `fill_history DIRECTORY EVENTS`. The events are of the last six hours,
//! of ten webhooks and of several outcomes; each has a head and a body of its own. None is refused: of many refused
//! requests the history keeps a sample.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tower_webhook::config::{DataType, WebhookKey};
use tower_webhook::event::EventId;
use tower_webhook::history::sqlite::SqliteHistory;
use tower_webhook::history::{Body, Entry, Outcome, Received, Step};

/// Events between two waits for the disk: fewer than the history keeps in memory.
const BATCH: u64 = 2000;

/// The time that the events are spread over.
const SPAN: Duration = Duration::from_secs(6 * 3600);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(directory), Some(events)) = (arguments.next(), arguments.next()) else {
        return Err("expected two arguments: a directory, and a number of events".into());
    };
    let (events, began): (u64, _) = (events.parse()?, SystemTime::now() - SPAN);
    let history = SqliteHistory::new(directory).open()?;
    for n in 0..events {
        let at = began + SPAN.mul_f64(n as f64 / events as f64);
        history.record(Entry::Received(Box::new(event(n, at)?)));
        if n % BATCH == BATCH - 1 {
            history.flush().await?;
        }
    }
    history.flush().await?;
    let status = history.status();
    println!("{} events, {} left out, {} bodies left out", status.events, status.dropped, status.dropped_bodies);
    Ok(())
}

fn event(n: u64, at: SystemTime) -> Result<Received, Box<dyn Error>> {
    let (outcome, status, kind, reason) = match n % 50 {
        0 => (Outcome::Failed, StatusCode::GATEWAY_TIMEOUT, Some("timeout"), Some("no answer within 30 s")),
        1 => (Outcome::Failed, StatusCode::BAD_GATEWAY, Some("unavailable"), Some("the target answered 503")),
        2 => (Outcome::Skipped, StatusCode::OK, Some("duplicate"), None),
        _ => (Outcome::Delivered, StatusCode::OK, None, None),
    };
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers.insert("x-number", n.into());
    let body = format!(r#"{{"number":{n},"word":"word{}","text":"a body like many others"}}"#, n % 997);
    Ok(Received {
        id: id(n, at)?,
        at,
        webhook: WebhookKey::new("default", &format!("hook-{}", n % 10))?,
        module: "discard".into(),
        data_type: DataType::Json,
        revision: 1,
        is_accepted: false,
        peer: Some(IpAddr::V4(Ipv4Addr::new(203, 0, 113, (n % 250) as u8))),
        method: Method::POST,
        path: format!("/webhook/hook-{}", n % 10).into(),
        headers,
        body: Body::Whole(Bytes::from(body)),
        outcome,
        status,
        duration: Duration::from_micros(300 + n % 5000),
        kind,
        reason: reason.map(Box::from),
        dedup: None,
        secrets: Vec::new(),
        steps: vec![Step { name: "body", at: Duration::ZERO, duration: Duration::from_micros(200) }],
    })
}

/// A UUID of version 7, in the order of the events.
fn id(n: u64, at: SystemTime) -> Result<EventId, Box<dyn Error>> {
    let millis = at.duration_since(UNIX_EPOCH)?.as_millis();
    let time = format!("{millis:012x}");
    let (first, second) = time.split_at(8);
    format!("{first}-{second}-7{:03x}-8000-{n:012x}", n % 0x1000).parse().map_err(|_| "the id is no UUID".into())
}
