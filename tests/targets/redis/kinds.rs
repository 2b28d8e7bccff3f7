//! The faults for `redis_rq` and `redis_publish`. The consumers are a worker of RQ, and a subscriber that connects again.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use super::server::Redis;
use super::{calls, connection, hook};
use crate::suite::{self, Access, Broker, PASSWORD, long, short};
use crate::support::certificates::Certificates;
use crate::support::client::{Message, reader};
use crate::support::rig::{AT_A_TIME, Rig};
use crate::support::server::{Directory, Server};
use crate::support::{eventually, seat};

const QUEUE: &str = "jobs";

const CHANNEL: &str = "ch:shop";

/// `redis_rq`.
struct Rq(Redis);

/// `redis_publish`, with a subscriber.
struct Publish {
    redis: Redis,
    heard: Arc<Mutex<Vec<Message>>>,
    _subscriber: Child,
    /// With the password for the subscriber.
    directory: Directory,
}

impl Broker for Rq {
    const FULL: &[&str] = &["unavailable"];

    async fn start(certificates: Option<&Certificates>) -> Self {
        let redis = Redis::start(PASSWORD, certificates).await;
        redis.cli(&["SET", "rq:queue:no-list", "x"]).await;
        Self(redis)
    }

    fn server(&mut self) -> &mut Server {
        &mut self.0.server
    }

    fn port(&self) -> u16 {
        self.0.port
    }

    fn tls_port(&self) -> u16 {
        self.0.tls_port
    }

    fn connection(&self, access: &Access<'_>) -> Value {
        connection(access)
    }

    fn webhook(&self) -> Value {
        job(QUEUE)
    }

    fn unroutable(&self) -> Option<Value> {
        Some(job("no-list"))
    }

    async fn consume(&mut self) -> Vec<Message> {
        let calls = calls(&self.0, QUEUE, "pickle").await;
        calls.iter().map(|call| message(&call["job"], &call["payload"]["bytes"])).collect()
    }

    fn too_large(&self) -> Option<usize> {
        Some((4 << 20) + 1)
    }

    async fn fill(&mut self) {
        self.0.fill().await;
    }

    async fn empty(&mut self) {
        self.0.empty().await;
    }

    async fn change_password(&mut self, password: &str) {
        self.0.change_password(password).await;
    }
}

/// The bodies are blobs, which the function gets byte for byte.
fn job(queue: &str) -> Value {
    let mut webhook = hook("redis_rq", json!({"queue_name": queue, "function": "rq_worker.handle"}), json!({}));
    webhook["data_type"] = json!("blob");
    webhook
}

fn message(id: &Value, body: &Value) -> Message {
    let body = BASE64_STANDARD.decode(body.as_str().unwrap()).unwrap();
    Message { id: id.as_str().unwrap().to_owned(), body, headers: Default::default() }
}

impl Broker for Publish {
    // PUBLISH needs no memory that `maxmemory` counts.
    const FULL: &[&str] = &[];

    async fn start(certificates: Option<&Certificates>) -> Self {
        let redis = Redis::start(PASSWORD, certificates).await;
        let directory = Directory::new("subscriber");
        let password = directory.write("password", PASSWORD).display().to_string();
        let mut command = reader("redis_listen.py", &[&redis.port.to_string(), &password, CHANNEL]);
        let mut subscriber = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(subscriber.stdout.take().unwrap()).lines();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Some(line) = lines.next_line().await.unwrap() {
                let envelope = BASE64_STANDARD.decode(line).unwrap();
                let envelope: Value = serde_json::from_slice(&envelope).unwrap();
                all.lock().unwrap().push(message(&envelope["headers"]["x-event-id"], &envelope["payload"]));
            }
        });
        let publish = Self { redis, heard, _subscriber: subscriber, directory };
        publish.subscribed().await;
        publish
    }

    fn server(&mut self) -> &mut Server {
        &mut self.redis.server
    }

    fn port(&self) -> u16 {
        self.redis.port
    }

    fn tls_port(&self) -> u16 {
        self.redis.tls_port
    }

    fn connection(&self, access: &Access<'_>) -> Value {
        connection(access)
    }

    fn webhook(&self) -> Value {
        let mut webhook = hook("redis_publish", json!({"channel": CHANNEL}), json!({}));
        webhook["data_type"] = json!("blob");
        webhook
    }

    fn unroutable(&self) -> Option<Value> {
        None
    }

    /// All that the subscriber has heard so far, and what is on its way to it.
    async fn consume(&mut self) -> Vec<Message> {
        self.subscribed().await;
        let mark = json!({"payload": "", "headers": {"x-event-id": "mark"}}).to_string();
        self.redis.cli(&["PUBLISH", CHANNEL, &mark]).await;
        let is_mark = |message: &Message| message.id == "mark";
        eventually("the last message", async || self.heard.lock().unwrap().iter().any(is_mark)).await;
        let mut heard = std::mem::take(&mut *self.heard.lock().unwrap());
        heard.retain(|message| !is_mark(message));
        heard
    }

    fn too_large(&self) -> Option<usize> {
        Some((4 << 20) + 1)
    }

    async fn fill(&mut self) {
        unreachable!("it cannot be filled")
    }

    async fn empty(&mut self) {
        unreachable!("it cannot be filled")
    }

    async fn change_password(&mut self, password: &str) {
        self.directory.write("password", password);
        self.redis.change_password(password).await;
    }
}

impl Publish {
    async fn subscribed(&self) {
        let count = async || self.redis.cli(&["PUBSUB", "NUMSUB", CHANNEL]).await;
        eventually("the subscriber", async || count().await.ends_with('1')).await;
    }
}

/// The kinds of what an ACL of the server refuses, and of a lack of memory under a transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_the_permission_is_told_apart() {
    let _seat = seat().await;
    let redis = Redis::start(PASSWORD, None).await;
    let limited = ["on", ">s3cret", "~other:*", "resetchannels", "&other", "+@all"];
    redis.cli(&[&["ACL", "SETUSER", "limited"], &limited[..]].concat()).await;
    let rig = Rig::start().await;
    let mut value = connection(&Access::at(redis.port));
    value["user"] = json!("limited");
    rig.connection("c", &value).await;
    for webhook in [job(QUEUE), hook("redis_publish", json!({"channel": CHANNEL}), json!({}))] {
        let attempt = rig.attempt(&webhook, "{}").await;
        let reason = attempt.failed_as(&["config"]);
        assert!(reason.contains("NOPERM"), "{reason}");
    }
    let own = hook("redis_publish", json!({"channel": "other", "require_receiver": false}), json!({}));
    rig.attempt(&own, "{}").await.was_delivered();
}

mod rq {
    use super::*;

    short! {
        jobs_arrive_byte_for_byte => suite::works::<Rq>(),
        three_hundred_jobs_survive_a_kill => suite::survives_a_kill::<Rq>(300),
        a_wrong_password_is_told_apart => suite::wrong_password::<Rq>(),
        a_queue_that_is_no_list_is_told_apart => suite::unroutable::<Rq>(),
    }

    long! {
        five_thousand_jobs_survive_a_kill => suite::survives_a_kill::<Rq>(5_000),
        a_frozen_server_is_a_timeout => suite::frozen::<Rq>(),
        a_silent_connection_is_a_timeout => suite::silent::<Rq>(),
        a_connection_may_be_cut_in_the_middle_of_a_transaction => suite::cut_in_the_middle::<Rq>(),
        a_foreign_authority_is_refused => suite::foreign_authority::<Rq>(),
        a_job_that_is_too_large_is_refused_for_good => suite::too_large::<Rq>(),
        a_server_without_memory_is_unavailable => suite::full::<Rq>(),
        a_password_may_change_while_jobs_wait => suite::credentials_change::<Rq>(),
        a_server_that_is_down_delays_nothing => suite::down::<Rq>(),
        a_stop_waits_for_deliveries => suite::stops_gracefully::<Rq>(),
    }
}

mod publish {
    use super::*;

    short! {
        messages_arrive_byte_for_byte => suite::works::<Publish>(),
        a_wrong_password_is_told_apart => suite::wrong_password::<Publish>(),
        a_kill_loses_at_most_what_the_server_had_taken => loses_little(300),
    }

    long! {
        a_kill_under_five_thousand_events_loses_at_most_what_the_server_had_taken => loses_little(5_000),
        a_frozen_server_is_a_timeout => suite::frozen::<Publish>(),
        a_silent_connection_is_a_timeout => suite::silent::<Publish>(),
        a_connection_may_be_cut_in_the_middle_of_a_command => suite::cut_in_the_middle::<Publish>(),
        a_foreign_authority_is_refused => suite::foreign_authority::<Publish>(),
        a_message_that_is_too_large_is_refused_for_good => suite::too_large::<Publish>(),
        a_password_may_change_while_events_wait => suite::credentials_change::<Publish>(),
        a_server_that_is_down_delays_nothing => suite::down::<Publish>(),
        a_stop_waits_for_deliveries => suite::stops_gracefully::<Publish>(),
    }

    /// A subscriber does not confirm what it has read, so that a kill may lose messages that the server had answered. Events
    /// that are accepted while nobody is subscribed wait.
    async fn loses_little(events: usize) {
        let _seat = seat().await;
        let (mut broker, rig) = (Publish::start(None).await, Rig::start().await);
        rig.connection("c", &broker.connection(&Access::at(broker.port()))).await;
        let mut webhook = broker.webhook();
        webhook["ack"] = json!("accepted");
        webhook["retry"] = json!({"enabled": true, "max_attempts": 20, "initial_delay": 0.2, "max_delay": 10});
        rig.webhook("a", &webhook).await;
        let mut sent = Vec::new();
        for number in 0..events {
            sent.push(rig.post("a", format!("{number}")).await.event_id);
            if number == events / 2 {
                broker.server().kill();
                tokio::time::sleep(Duration::from_millis(300)).await;
                broker.server().start_again().await;
            }
        }
        rig.drained().await;
        assert_eq!(rig.dead_letters().await, Vec::<String>::new());
        let mut arrived: Vec<_> = broker.consume().await.into_iter().map(|message| message.id).collect();
        let all = arrived.len();
        arrived.sort_unstable();
        arrived.dedup();
        let missing = sent.iter().filter(|id| arrived.binary_search(id).is_err()).count();
        println!("{events} events, the server killed once: {missing} lost, {} twice", all - arrived.len());
        assert!(
            missing <= AT_A_TIME && all - arrived.len() <= AT_A_TIME,
            "{missing} of {events} are lost, {all} arrived"
        );
    }
}
