//! The rates of the modules beside that of the bare client, with the same command.

use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use tower_webhook::event::Delivery;
use tower_webhook::module::{RedisPublish, RedisRq, RedisStream};

use super::server::Redis;
use super::{connection, hook, stream};
use crate::suite::{Access, PASSWORD};
use crate::support::alone;
use crate::support::speed::{RECEIVED_AT, SENT_ON, Subject, WEBHOOK};

/// A server that syncs once a second, because one that syncs each write measures the disk.
async fn server() -> (Redis, Value, MultiplexedConnection) {
    let redis = Redis::with("redis-server", PASSWORD, None, &["--appendfsync", "everysec"]).await;
    let url = format!("redis://:{PASSWORD}@127.0.0.1:{}/", redis.port);
    let bare = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let connection = connection(&Access::at(redis.port));
    (redis, connection, bare)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; `make bench-targets` runs it"]
async fn redis_stream_beside_the_bare_client() {
    let _alone = alone().await;
    let (redis, connection, bare) = server().await;
    let module = Subject::<RedisStream>::new(&connection, &stream(json!({"maxlen": 1000}))).await;
    let append = move |event: Delivery| {
        let mut bare = bare.clone();
        async move {
            let mut append = redis::cmd("XADD");
            append.arg("events:{bare}").arg("MAXLEN").arg("~").arg(1000).arg("*");
            append
                .arg("id")
                .arg(event.id().to_string())
                .arg("body")
                .arg(&event.body()[..])
                .arg("namespace")
                .arg("shop")
                .arg("webhook")
                .arg(WEBHOOK);
            append.arg("received_at").arg(RECEIVED_AT).arg("content_type").arg("application/json");
            append.query_async::<redis::Value>(&mut bare).await.unwrap();
        }
    };
    module.beside("redis_stream", append, async || drop(redis.cli(&["FLUSHALL"]).await)).await;
}

/// The headers in the envelope and in the job.
fn headers(event: &Delivery) -> String {
    let [(agent, agent_value), (kind, kind_value)] = SENT_ON;
    format!(
        r#"{{"content-type":"application/json","x-event-id":"{}","x-namespace":"shop","x-webhook":"{WEBHOOK}","x-received-at":"{RECEIVED_AT}","{agent}":"{agent_value}","{kind}":"{kind_value}"}}"#,
        event.id()
    )
}

/// Nobody is subscribed, so that the server does the least.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; `make bench-targets` runs it"]
async fn redis_publish_beside_the_bare_client() {
    let _alone = alone().await;
    let (redis, connection, bare) = server().await;
    let config = json!({"channel": "events:{namespace}", "require_receiver": false});
    let module = Subject::<RedisPublish>::new(&connection, &hook("redis_publish", config, json!({}))).await;
    let publish = move |event: Delivery| {
        let mut bare = bare.clone();
        async move {
            let headers = headers(&event);
            let message = [br#"{"payload":"#, &event.body()[..], br#","headers":"#, headers.as_bytes(), b"}"].concat();
            redis::cmd("PUBLISH").arg("events:bare").arg(message).query_async::<u64>(&mut bare).await.unwrap();
        }
    };
    module.beside("redis_publish", publish, async || drop(redis.cli(&["FLUSHALL"]).await)).await;
}

/// The bare client sends the same transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; `make bench-targets` runs it"]
async fn redis_rq_beside_the_bare_client() {
    let _alone = alone().await;
    let (redis, connection, bare) = server().await;
    let config = json!({"queue_name": "events", "function": "tasks.handle", "serializer": "json"});
    let module = Subject::<RedisRq>::new(&connection, &hook("redis_rq", config, json!({}))).await;
    let enqueue = move |event: Delivery| {
        let mut bare = bare.clone();
        async move {
            let (id, headers) = (event.id().to_string(), headers(&event));
            let job = [br#"["tasks.handle",null,["#, &event.body()[..], b",", headers.as_bytes(), b"],{}]"].concat();
            let key = format!("rq:job:{id}");
            let mut transaction = redis::pipe();
            transaction.atomic().cmd("SADD").arg("rq:queues").arg("rq:queue:bare").ignore();
            transaction.cmd("HSET").arg(&key);
            for (name, value) in [
                ("created_at", "2026-11-27T12:00:00.000000Z".as_bytes()),
                ("enqueued_at", b"2026-11-27T12:00:00.000000Z"),
                ("data", &job),
                ("origin", b"bare"),
                ("description", b"tasks.handle"),
                ("timeout", b"180"),
                ("status", b"queued"),
                ("started_at", b""),
                ("ended_at", b""),
                ("last_heartbeat", b""),
                ("worker_name", b""),
            ] {
                transaction.arg(name).arg(value);
            }
            transaction.ignore().cmd("PERSIST").arg(&key).ignore();
            transaction.cmd("RPUSH").arg("rq:queue:bare").arg(&id);
            transaction.query_async::<redis::Value>(&mut bare).await.unwrap();
        }
    };
    module.beside("redis_rq", enqueue, async || drop(redis.cli(&["FLUSHALL"]).await)).await;
}
