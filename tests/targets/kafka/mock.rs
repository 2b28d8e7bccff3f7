//! librdkafka's own mock of a cluster, for answers that Tansu never gives. It is a mock: the same library as the client.

use rdkafka::mocking::MockCluster;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use serde_json::{Value, json};

use crate::support::rig::Rig;
use crate::support::{SOON, eventually, seat};

fn connection(cluster: &MockCluster<'_, impl rdkafka::ClientContext>) -> Value {
    json!({"type": "kafka", "bootstrap_servers": cluster.bootstrap_servers(), "timeout": 3})
}

fn webhook() -> Value {
    json!({"module": "kafka", "connection": "c", "module-config": {"topic": "orders"}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_brokers_are_told_apart() {
    let _seat = seat().await;
    let cluster = MockCluster::new(3).unwrap();
    cluster.create_topic("orders", 3, 3).unwrap();
    let rig = Rig::start().await;
    rig.connection("c", &connection(&cluster)).await;
    rig.attempt(&webhook(), "{}").await.was_delivered();
    use RDKafkaRespErr as E;
    for (error, kind) in [
        (E::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, "permanent"),
        (E::RD_KAFKA_RESP_ERR_INVALID_RECORD, "permanent"),
        (E::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, "config"),
        (E::RD_KAFKA_RESP_ERR_POLICY_VIOLATION, "config"),
        (E::RD_KAFKA_RESP_ERR_THROTTLING_QUOTA_EXCEEDED, "throttled"),
        (E::RD_KAFKA_RESP_ERR_UNKNOWN, "unavailable"),
    ] {
        cluster.request_errors(RDKafkaApiKey::Produce, &[error]);
        let attempt = rig.attempt(&webhook(), "{}").await;
        let reason = attempt.failed_as(&[kind]);
        assert!(reason.contains("topic orders: "), "{error:?}: {reason}");
        // librdkafka takes some answers for true until it has read the topic's metadata again.
        eventually("the topic to take events", async || rig.attempt(&webhook(), "{}").await.error.is_none()).await;
    }
    // The client itself sends it again.
    cluster.request_errors(RDKafkaApiKey::Produce, &[E::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 3]);
    rig.attempt(&webhook(), "{}").await.was_delivered();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_topic_is_told_apart() {
    let _seat = seat().await;
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("orders", 1, 1).unwrap();
    cluster.topic_error("missing", RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
    let rig = Rig::start().await;
    rig.connection("c", &connection(&cluster)).await;
    let mut missing = webhook();
    missing["module-config"]["topic"] = json!("missing");
    let attempt = rig.attempt(&missing, "{}").await;
    assert!(attempt.failed_as(&["config"]).contains("topic missing: "), "{attempt:?}");
    rig.attempt(&webhook(), "{}").await.was_delivered();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_is_replaced_and_a_cluster_that_dies_is_a_connect_error() {
    let _seat = seat().await;
    let cluster = MockCluster::new(3).unwrap();
    cluster.create_topic("orders", 1, 3).unwrap();
    cluster.partition_leader("orders", 0, Some(1)).unwrap();
    let rig = Rig::start().await;
    rig.connection("c", &connection(&cluster)).await;
    rig.attempt(&webhook(), "{}").await.was_delivered();
    cluster.partition_leader("orders", 0, Some(2)).unwrap();
    cluster.broker_down(1).unwrap();
    rig.attempt(&webhook(), "{}").await.was_delivered();
    for broker in [2, 3] {
        cluster.broker_down(broker).unwrap();
    }
    let attempt = rig.attempt(&webhook(), "{}").await;
    attempt.failed_as(&["connect"]);
    assert!(attempt.took < SOON, "{attempt:?}");
    for broker in [1, 2, 3] {
        cluster.broker_up(broker).unwrap();
    }
    eventually("the cluster to take events", async || rig.attempt(&webhook(), "{}").await.error.is_none()).await;
}
