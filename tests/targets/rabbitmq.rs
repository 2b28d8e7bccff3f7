//! The module `rabbitmq` against RabbitMQ 3.10. The consumer is pika.

mod answers;
pub(crate) mod server;
mod speed;

use serde_json::{Value, json};

pub(crate) use self::server::RabbitMq;
use self::server::USER;
use crate::suite::{self, Access, Broker, PASSWORD, long, short};
use crate::support::certificates::Certificates;
use crate::support::client::{Message, messages};
use crate::support::server::Server;

const QUEUE: &str = "events";

/// The largest message of the tests' server, in bytes.
const MAX_MESSAGE: usize = 1_000_000;

impl Broker for RabbitMq {
    const FULL: &[&str] = &["unavailable"];

    async fn start(certificates: Option<&Certificates>) -> Self {
        Self::start_with(PASSWORD, certificates).await
    }

    fn server(&mut self) -> &mut Server {
        &mut self.server
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn tls_port(&self) -> u16 {
        self.tls_port
    }

    fn connection(&self, access: &Access<'_>) -> Value {
        let Access { port, password, tls } = access;
        let mut value = json!({"type": "rabbitmq", "host": "127.0.0.1", "port": port, "user": USER, "pass": password});
        if let Some(tls) = tls {
            value["tls"] = json!({"ca": tls.ca});
            if let Some(client) = tls.client {
                value["tls"]["client_cert"] = json!(client.certificate);
                value["tls"]["client_key"] = json!(client.key);
            }
        }
        value
    }

    fn webhook(&self) -> Value {
        json!({"module": "rabbitmq", "connection": "c", "module-config": {"queue_name": QUEUE}})
    }

    fn unroutable(&self) -> Option<Value> {
        let config = json!({"queue_name": "missing", "declare": false});
        Some(json!({"module": "rabbitmq", "connection": "c", "module-config": config}))
    }

    async fn consume(&mut self) -> Vec<Message> {
        self.take(QUEUE).await
    }

    fn too_large(&self) -> Option<usize> {
        Some(MAX_MESSAGE + 1)
    }

    async fn fill(&mut self) {
        self.control(&["set_vm_memory_high_watermark", "absolute", "1MB"]).await;
    }

    async fn empty(&mut self) {
        self.control(&["set_vm_memory_high_watermark", "absolute", "2GB"]).await;
    }

    async fn change_password(&mut self, password: &str) {
        self.control(&["change_password", USER, password]).await;
        self.password = password.to_owned();
    }

    async fn settle(&mut self) {
        self.write_to_disk().await;
    }
}

impl RabbitMq {
    async fn take(&self, queue: &str) -> Vec<Message> {
        messages("rabbitmq.py", &[&self.port.to_string(), USER, &self.password, queue]).await
    }
}

short! {
    events_arrive_byte_for_byte => suite::works::<RabbitMq>(),
    five_hundred_events_survive_a_kill => suite::survives_a_kill::<RabbitMq>(500),
    a_wrong_password_is_told_apart => suite::wrong_password::<RabbitMq>(),
    a_missing_queue_is_told_apart => suite::unroutable::<RabbitMq>(),
}

long! {
    five_thousand_events_survive_a_kill => suite::survives_a_kill::<RabbitMq>(5_000),
    a_frozen_server_is_a_timeout => suite::frozen::<RabbitMq>(),
    a_silent_connection_is_a_timeout => suite::silent::<RabbitMq>(),
    a_connection_is_cut_in_the_middle_of_a_message => suite::cut_in_the_middle::<RabbitMq>(),
    a_foreign_authority_is_refused => suite::foreign_authority::<RabbitMq>(),
    a_message_that_is_too_large_is_permanent => suite::too_large::<RabbitMq>(),
    a_server_without_memory_is_unavailable => suite::full::<RabbitMq>(),
    a_password_is_changed_while_it_runs => suite::credentials_change::<RabbitMq>(),
    a_server_that_is_down_fails_at_once => suite::down::<RabbitMq>(),
    a_server_that_takes_nothing_costs_bounded_memory => suite::bounded_memory::<RabbitMq>(),
    a_stop_loses_nothing => suite::stops_gracefully::<RabbitMq>(),
}
