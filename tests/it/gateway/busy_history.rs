//! A history under a steady stream of events: nothing is left out.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::process::{AUTHORIZATION, Gateway};
use crate::support::raw::text;
use crate::support::{eventually, within};

const SENDERS: usize = 10;

/// How often each sender sends its share.
const EVERY: Duration = Duration::from_millis(20);

/// An event of 1 KiB whose words are not all alike.
fn event(nth: usize) -> Vec<u8> {
    let mut body = format!(r#"{{"id": "evt_{nth}", "note": ""#);
    for at in 0.. {
        let word = format!("w{} ", (nth * 31 + at * 7) % 5000);
        if body.len() + word.len() + 2 > 1024 {
            break;
        }
        body.push_str(&word);
    }
    body.push_str(&"x".repeat(1022 - body.len()));
    body.push_str(r#""}"#);
    assert_eq!(body.len(), 1024);
    text(&["POST /webhook/guarded HTTP/1.1", AUTHORIZATION], body)
}

/// Sends `rate` events a second for this time, as far as the machine can. Each must be answered with 200.
async fn stream(gateway: &Gateway, rate: usize, time: Duration) -> usize {
    let share = rate * EVERY.as_millis() as usize / 1000 / SENDERS;
    let turns = (time.as_millis() / EVERY.as_millis()) as usize;
    let mut senders = JoinSet::new();
    for sender in 0..SENDERS {
        let address = gateway.address;
        senders.spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let mut clock = tokio::time::interval(EVERY);
            for turn in 0..turns {
                clock.tick().await;
                let events = (0..share).map(|nth| event((turn * SENDERS + sender) * share + nth));
                within("the gateway to read", stream.write_all(&events.collect::<Vec<_>>().concat())).await.unwrap();
                let (mut answers, mut chunk) = (Vec::new(), vec![0; 64 << 10]);
                let line = b"HTTP/1.1 200 ";
                while answers.windows(line.len()).filter(|at| at == line).count() < share {
                    let read = within("an answer", stream.read(&mut chunk)).await.unwrap();
                    assert!(read > 0, "the connection has ended: {}", String::from_utf8_lossy(&answers));
                    answers.extend_from_slice(&chunk[..read]);
                }
            }
        });
    }
    senders.join_all().await;
    turns * share * SENDERS
}

/// The sum of a metric over its labels.
fn sum(metrics: &str, name: &str) -> f64 {
    let of = |line: &str| {
        let is_it = line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        is_it.then(|| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
    };
    metrics.lines().filter_map(of).sum()
}

/// Checks that a history keeps all of `rate` events a second.
pub(super) async fn assert_keeps_all(rate: usize, time: Duration) {
    let gateway = Gateway::start(&[("HISTORY_DIR", "history")]).await;
    let began = Instant::now();
    let sent = stream(&gateway, rate, time).await;
    let seconds = began.elapsed().as_secs_f64();
    let metrics = async || gateway.get("/metrics").await.text().to_owned();
    // The event and its one attempt.
    eventually("all entries to be written or left out", async || {
        let metrics = metrics().await;
        let names = ["tower_webhook_history_entries_total", "tower_webhook_history_dropped_total"];
        names.iter().map(|name| sum(&metrics, name)).sum::<f64>() >= 2.0 * sent as f64
    })
    .await;
    let metrics = metrics().await;
    println!("{sent} events in {seconds:.1} s, {:.0} a second", sent as f64 / seconds);
    assert_eq!(sum(&metrics, "tower_webhook_history_dropped_total"), 0.0, "{metrics}");
    assert_eq!(sum(&metrics, "tower_webhook_history_entries_total"), 2.0 * sent as f64);
}

/// At a rate that an unoptimised build on a busy machine can write; `attacks` has the full rate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_steady_stream_of_events_is_kept_without_a_gap() {
    assert_keeps_all(500, Duration::from_secs(4)).await;
}
