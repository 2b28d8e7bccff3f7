//! A password that changes in a real etcd while the gateway runs: the new one is used without a restart, the old client is
//! closed, and no accepted event is lost.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::kafka::Guarded;
use crate::nats::{Nats, V215};
use crate::rabbitmq::RabbitMq;
use crate::redis::Redis;
use crate::suite::{Access, Broker};
use crate::support::gateway::Gateway;
use crate::support::{eventually, seat};

async fn changes<B: Broker>() {
    let _seat = seat().await;
    let (mut broker, gateway) = tokio::join!(B::start(None), Gateway::start());
    let port = broker.port();
    gateway.connection("c", &broker.connection(&Access::at(port))).await;
    let mut webhook = broker.webhook();
    webhook["ack"] = json!("accepted");
    // A server that refuses the old password meanwhile is no reason to give up.
    webhook["retry"] = json!({"enabled": true, "max_attempts": 20, "initial_delay": 0.2, "max_delay": 15, "retryable_errors": ["any"]});
    gateway.webhook("a", &webhook).await;
    let mut sent = send(&gateway, 20).await;
    gateway.drained().await;
    let old = gateway.connections_to(port);
    assert!(!old.is_empty(), "it has no connection to the server");

    broker.change_password("another").await;
    sent.extend(send(&gateway, 20).await);
    let value = broker.connection(&Access { password: "another", ..Access::at(port) });
    let (during, ()) = tokio::join!(send(&gateway, 200), gateway.connection("c", &value));
    sent.extend(during);
    eventually("the old client to be closed", async || gateway.connections_to(port).is_disjoint(&old)).await;
    gateway.drained().await;
    broker.settle().await;
    // After a restart the server asks each client again.
    broker.server().kill();
    broker.server().start_again().await;
    sent.extend(send(&gateway, 20).await);
    gateway.drained().await;
    assert!(!gateway.connections_to(port).is_empty());
    assert_eq!(gateway.dead_letters().await, Vec::<String>::new());
    let arrived: Vec<_> = broker.consume().await.into_iter().map(|message| message.id).collect();
    let missing = sent.iter().filter(|id| !arrived.contains(id)).count();
    assert_eq!(missing, 0, "of {} accepted events, {missing} are lost", sent.len());
    println!("{} events arrived, {} of them twice", sent.len(), arrived.len() - sent.len());
}

/// Sends events, a few at a time. Returns their ids.
async fn send(gateway: &Gateway, events: usize) -> Vec<String> {
    let mut sent = Vec::new();
    while sent.len() < events {
        for (status, id) in join_all((0..10).map(|_| gateway.post("a", "{}"))).await {
            assert_eq!(status, 202);
            sent.push(id);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sent
}

macro_rules! tests {
    ($($name:ident => $broker:ty),+ $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        #[ignore = "takes half a minute; `make test-targets` runs it"]
        async fn $name() {
            changes::<$broker>().await;
        })+
    };
}

tests! {
    a_new_password_of_redis_is_used_without_a_restart => Redis,
    a_new_password_of_rabbitmq_is_used_without_a_restart => RabbitMq,
    a_new_password_of_nats_is_used_without_a_restart => Nats<V215>,
    a_new_password_of_kafka_is_used_without_a_restart => Guarded,
}
