//! A signature's secret is rotated while senders use it.

use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use http::Request;
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use sha2::Sha256;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::support::PATIENCE;
use crate::support::etcd::{Etcd, Version};
use crate::support::gateway::Gateway;

const KEY: &str = "default/webhooks/github";
const SENDERS_PER_SECRET: usize = 2;
/// The least number of requests with each secret while a value is served.
const ENOUGH: usize = 300;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Secret {
    Old,
    New,
    Wrong,
}

impl Secret {
    const ALL: [Self; 3] = [Self::Old, Self::New, Self::Wrong];

    fn text(self) -> &'static str {
        match self {
            Self::Old => "the old secret of the webhook",
            Self::New => "the new secret of the webhook",
            Self::Wrong => "a secret of another webhook",
        }
    }

    fn signature(self, body: &str) -> String {
        let mac = Hmac::<Sha256>::new_from_slice(self.text().as_bytes()).unwrap().chain_update(body);
        mac.finalize().into_bytes().iter().fold("sha256=".to_owned(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
    }
}

/// A request that has been answered, or has failed.
#[derive(Clone, Debug)]
struct Sent {
    secret: Secret,
    begun: Instant,
    ended: Instant,
    outcome: Result<u16, String>,
}

type Record = Arc<Mutex<Vec<Sent>>>;

/// A value in etcd: no reader had it before `written`, and each has it from `served` on.
#[derive(Clone, Copy, Debug)]
struct Change {
    written: Instant,
    served: Instant,
}

impl Change {
    async fn to(secrets: &[Secret], etcd: &Etcd, gateway: &Gateway) -> Self {
        let secrets: Vec<_> = secrets.iter().map(|secret| secret.text()).collect();
        let signature = json!({"preset": "github", "secrets": secrets});
        let value = json!({"module": "discard", "data_type": "blob", "signature": signature});
        let written = Instant::now();
        let revision = etcd.put(KEY, value.to_string()).await;
        let ready = format!("/ready?min_revision={revision}");
        while gateway.get(&ready).await != Some(200) {
            assert!(written.elapsed() < PATIENCE, "revision {revision} is not served: {:?}", gateway.log(""));
            sleep(Duration::from_millis(20)).await;
        }
        Self { written, served: Instant::now() }
    }
}

/// The status that a request must get; `None` while either value may be served, when 200 and 401 are both right.
fn expected(sent: &Sent, both: Change, only_new: Change) -> Option<u16> {
    let (change, before, after) = match sent.secret {
        Secret::Old => (only_new, 200, 401),
        Secret::New => (both, 401, 200),
        Secret::Wrong => return Some(401),
    };
    match sent {
        sent if sent.ended < change.written => Some(before),
        sent if sent.begun > change.served => Some(after),
        _ => None,
    }
}

/// Sends one request after the other.
async fn send(secret: Secret, uri: String, record: Record) {
    let client: Client<HttpConnector, String> = Client::builder(TokioExecutor::new()).build_http();
    for number in 0_u64.. {
        let body = format!("event {number}");
        let signature = secret.signature(&body);
        let request = Request::post(&uri).header("x-hub-signature-256", signature).body(body).unwrap();
        let begun = Instant::now();
        let answer = timeout(PATIENCE, client.request(request)).await;
        let ended = Instant::now();
        let outcome = match answer {
            Ok(Ok(answer)) => {
                let status = answer.status().as_u16();
                // The connection is used again once the body has been read.
                answer.into_body().collect().await.map(|_| status).map_err(|error| format!("{error:?}"))
            }
            Ok(Err(error)) => Err(format!("{error:?}")),
            Err(_) => Err("no answer".to_owned()),
        };
        record.lock().unwrap().push(Sent { secret, begun, ended, outcome });
    }
}

/// Waits until enough requests with each secret have begun and ended since then.
async fn enough_since(began: Instant, record: &Record) {
    loop {
        let counts = Secret::ALL.map(|secret| {
            let record = record.lock().unwrap();
            record.iter().rev().filter(|sent| sent.secret == secret && sent.begun > began).count()
        });
        if counts.iter().all(|count| *count >= ENOUGH) {
            println!("{counts:?} requests with the old, the new and the wrong secret");
            return;
        }
        assert!(began.elapsed() < PATIENCE, "only {counts:?} requests of {ENOUGH}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Once the status of a secret has changed, no later request gets the earlier status.
fn assert_no_way_back(record: &[Sent], secret: Secret, before: u16, after: u16) {
    let with = |status| record.iter().filter(move |sent| sent.secret == secret && sent.outcome == Ok(status));
    let first = with(after).map(|sent| sent.ended).min().expect("the status has not changed");
    let back: Vec<_> = with(before).filter(|sent| sent.begun > first).collect();
    assert!(back.is_empty(), "{} requests, such as {:?}", back.len(), back[0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_rotated_under_load_without_one_wrong_answer() {
    let etcd = Etcd::start(Version::V35).await;
    let gateway = Gateway::with(&[("ETCD_ENDPOINTS", &etcd.endpoint())]).await;
    let only_old = Change::to(&[Secret::Old], &etcd, &gateway).await;

    let record = Record::default();
    let mut senders = JoinSet::new();
    let uri = format!("http://127.0.0.1:{}/webhook/github", gateway.port());
    for secret in Secret::ALL {
        for _ in 0..SENDERS_PER_SECRET {
            senders.spawn(send(secret, uri.clone(), Arc::clone(&record)));
        }
    }
    enough_since(only_old.served, &record).await;
    let both = Change::to(&[Secret::Old, Secret::New], &etcd, &gateway).await;
    enough_since(both.served, &record).await;
    let only_new = Change::to(&[Secret::New], &etcd, &gateway).await;
    enough_since(only_new.served, &record).await;
    senders.shutdown().await;

    let record = record.lock().unwrap();
    let wrong: Vec<_> = record
        .iter()
        .filter(|sent| match expected(sent, both, only_new) {
            Some(status) => sent.outcome != Ok(status),
            None => !matches!(sent.outcome, Ok(200 | 401)),
        })
        .collect();
    println!("{} requests; {} s", record.len(), only_old.served.elapsed().as_secs_f64());
    assert!(
        wrong.is_empty(),
        "{} of {} answers are wrong, such as {:?}, with {both:?} and {only_new:?}",
        wrong.len(),
        record.len(),
        wrong[0]
    );
    assert_no_way_back(&record, Secret::New, 401, 200);
    assert_no_way_back(&record, Secret::Old, 200, 401);
}
