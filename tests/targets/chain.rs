//! A chain that gives each event to RabbitMQ, Kafka and Redis: configured in a real etcd, through the gateway as a process.
//! Each of the three servers is killed once while accepted events are delivered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::kafka::Tansu;
use crate::rabbitmq::RabbitMq;
use crate::redis::Redis;
use crate::suite::{Access, Broker};
use crate::support::client::Message;
use crate::support::gateway::Gateway;
use crate::support::rig::AT_A_TIME;
use crate::support::{PATIENCE, alone, eventually, seat};

/// Senders that wait for the answer to each of their events.
const SENDERS: usize = 32;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_events_survive_a_kill_of_each_server() {
    let _seat = seat().await;
    // Shorter waits than without the key, so that the test is.
    let retry = json!({"enabled": true, "max_attempts": 20, "initial_delay": 0.2, "max_delay": 15});
    survives_three_kills(1_000, Some(retry)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; `make test-targets` runs it"]
async fn a_hundred_thousand_events_survive_a_kill_of_each_server() {
    let _alone = alone().await;
    survives_three_kills(100_000, None).await;
}

async fn survives_three_kills(events: usize, retry: Option<Value>) {
    let (mut rabbit, mut tansu, mut redis, gateway) = tokio::join!(
        RabbitMq::start(None),
        <Tansu as Broker>::start(None),
        <Redis as Broker>::start(None),
        Gateway::start()
    );
    gateway.connection("rabbit", &rabbit.connection(&Access::at(rabbit.port))).await;
    gateway.connection("kafka", &tansu.connection(&Access::at(tansu.port))).await;
    gateway.connection("redis", &redis.connection(&Access::at(redis.port))).await;
    let items = [item("rabbit", &rabbit), item("kafka", &tansu), item("redis", &redis)];
    let mut webhook = json!({"ack": "accepted", "chain": items, "chain-config": {"execution": "parallel"}});
    if let Some(retry) = retry {
        webhook["retry"] = retry;
    }
    gateway.webhook("a", &webhook).await;

    let (status, first) = gateway.post("a", "{}").await;
    assert_eq!(status, 202);
    gateway.drained().await;
    rabbit.settle().await;

    let began = Instant::now();
    let (gateway, accepted) = (Arc::new(gateway), Arc::new(AtomicUsize::new(0)));
    let quarter = events / 4;
    // More events follow each kill, however quickly those before were delivered.
    let may_send = Arc::new(Semaphore::new(quarter + quarter / 2));
    let more = || may_send.add_permits(quarter);
    let sending = tokio::spawn(send(Arc::clone(&gateway), events, Arc::clone(&accepted), Arc::clone(&may_send)));
    delivered(&gateway, &accepted, quarter).await;
    kill("RabbitMQ", &mut rabbit, &gateway, more).await;
    delivered(&gateway, &accepted, 2 * quarter).await;
    kill("Kafka", &mut tansu, &gateway, more).await;
    delivered(&gateway, &accepted, 3 * quarter).await;
    kill("Redis", &mut redis, &gateway, more).await;
    let mut sent = sending.await.unwrap();
    assert_eq!(sent.len(), events);
    sent.insert(first, b"{}".to_vec());
    gateway.drained().await;
    println!("all of them delivered in {:?}", began.elapsed());
    assert_eq!(gateway.dead_letters().await, Vec::<String>::new());

    let (in_rabbit, in_tansu, in_redis) = tokio::join!(rabbit.consume(), tansu.consume(), redis.consume());
    for (name, messages) in [("RabbitMQ", in_rabbit), ("Kafka", in_tansu), ("Redis", in_redis)] {
        let twice = compare(name, &sent, messages);
        println!("{name}: {} events, {twice} of them twice", sent.len());
        assert!(
            twice <= AT_A_TIME,
            "{name} has {twice} events twice, and {AT_A_TIME} were under way when it was killed"
        );
    }
}

/// An item of the chain.
fn item<B: Broker>(connection: &str, broker: &B) -> Value {
    let webhook = broker.webhook();
    json!({"module": webhook["module"], "connection": connection, "module-config": webhook["module-config"]})
}

/// Sends `events` events, each with a permit. Returns the bodies by the ids of the events.
async fn send(
    gateway: Arc<Gateway>,
    events: usize,
    accepted: Arc<AtomicUsize>,
    may_send: Arc<Semaphore>,
) -> BTreeMap<String, Vec<u8>> {
    let next = Arc::new(AtomicUsize::new(0));
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (gateway, next, accepted) = (Arc::clone(&gateway), Arc::clone(&next), Arc::clone(&accepted));
            let may_send = Arc::clone(&may_send);
            tokio::spawn(async move {
                let mut sent = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= events {
                        return sent;
                    }
                    may_send.acquire().await.unwrap().forget();
                    let body = format!(r#"{{"number": {number}, "text": "as it was sent, \u00e9"}}"#).into_bytes();
                    let (status, id) = gateway.post("a", body.clone()).await;
                    assert_eq!(status, 202, "the event {number}");
                    accepted.fetch_add(1, Ordering::SeqCst);
                    sent.push((id, body));
                }
            })
        })
        .collect();
    let mut sent = BTreeMap::new();
    for sender in senders {
        sent.extend(sender.await.unwrap());
    }
    sent
}

/// Waits until `number` events were delivered: for as long as it goes on.
async fn delivered(gateway: &Gateway, accepted: &AtomicUsize, number: usize) {
    let (mut most, mut since) = (0, Instant::now());
    while most < number {
        let accepted = accepted.load(Ordering::SeqCst);
        let delivered = accepted.saturating_sub(gateway.waiting().await);
        if delivered > most {
            (most, since) = (delivered, Instant::now());
        }
        assert!(since.elapsed() < PATIENCE, "{delivered} of {accepted} are delivered, and no more for {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Kills the server, lets `more` events come, and starts it again once events wait for it.
async fn kill<B: Broker>(name: &str, broker: &mut B, gateway: &Gateway, more: impl FnOnce()) {
    broker.server().kill();
    more();
    eventually("events that wait for the server", async || gateway.waiting().await > 0).await;
    println!("{name} is killed, {} events wait", gateway.waiting().await);
    let began = Instant::now();
    broker.server().start_again().await;
    println!("{name} is back after {:?}", began.elapsed());
}

/// Checks that each event is there with its body. Returns how many are there more than once.
#[track_caller]
fn compare(name: &str, sent: &BTreeMap<String, Vec<u8>>, messages: Vec<Message>) -> usize {
    let count = messages.len();
    let arrived: BTreeMap<_, _> = messages.into_iter().map(|message| (message.id, message.body)).collect();
    let missing = sent.keys().filter(|id| !arrived.contains_key(*id)).count();
    assert_eq!(missing, 0, "{name}: of {} accepted events, {missing} are lost", sent.len());
    assert!(arrived == *sent, "{name}: an event has another body, or was not sent");
    count - arrived.len()
}
