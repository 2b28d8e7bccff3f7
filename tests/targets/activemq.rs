//! The module `activemq` against RabbitMQ 3.10 with its STOMP plugin, and against ActiveMQ 5.17. The consumer is stomp.py.

mod answers;
mod server;
mod speed;

use serde_json::{Value, json};

use self::server::{ActiveMq, MAX_FRAME, USER};
use crate::rabbitmq::server::{RabbitMq, USER as RABBITMQ_USER};
use crate::suite::{self, Access, Broker, PASSWORD, long, short};
use crate::support::certificates::Certificates;
use crate::support::client::{Message, messages, python};
use crate::support::server::{Server, free_port};

const QUEUE: &str = "events";

/// The largest message of the tests' RabbitMQ, in bytes.
const MAX_MESSAGE: usize = 1_000_000;

fn to(config: Value) -> Value {
    json!({"module": "activemq", "connection": "c", "module-config": config})
}

fn connection(user: &str, access: &Access<'_>) -> Value {
    let Access { port, password, tls } = access;
    let mut value = json!({"type": "activemq", "host": "127.0.0.1", "port": port, "user": user, "password": password});
    if let Some(tls) = tls {
        value["tls"] = json!({"ca": tls.ca});
        if let Some(client) = tls.client {
            value["tls"]["client_cert"] = json!(client.certificate);
            value["tls"]["client_key"] = json!(client.key);
        }
    }
    value
}

/// RabbitMQ with its plugin for STOMP.
struct Stomp {
    rabbitmq: RabbitMq,
    port: u16,
    tls_port: u16,
}

impl Stomp {
    async fn start_as(certificates: Option<&Certificates>, is_strict: bool) -> Self {
        let (port, tls_port) = (free_port(), free_port());
        let mut lines = vec![format!("stomp.listeners.tcp.1 = 127.0.0.1:{port}")];
        if certificates.is_some() {
            lines.push(format!("stomp.listeners.ssl.1 = 127.0.0.1:{tls_port}"));
        }
        let rabbitmq = RabbitMq::start_as(PASSWORD, certificates, is_strict, &["rabbitmq_stomp"], lines).await;
        Self { rabbitmq, port, tls_port }
    }

    async fn take(&self, destination: &str) -> Vec<Message> {
        let (port, password) = (self.port.to_string(), &self.rabbitmq.password);
        messages("read_stomp.py", &[&port, RABBITMQ_USER, password, destination]).await
    }
}

impl Broker for Stomp {
    /// It reads nothing more from the connection, and STOMP has no word for that.
    const FULL: &[&str] = &["timeout"];

    async fn start(certificates: Option<&Certificates>) -> Self {
        Self::start_as(certificates, false).await
    }

    fn server(&mut self) -> &mut Server {
        &mut self.rabbitmq.server
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn tls_port(&self) -> u16 {
        self.tls_port
    }

    fn connection(&self, access: &Access<'_>) -> Value {
        connection(RABBITMQ_USER, access)
    }

    fn webhook(&self) -> Value {
        to(json!({"destination": QUEUE}))
    }

    fn impatient(&self) -> Value {
        to(json!({"destination": QUEUE, "timeout": 3}))
    }

    fn unroutable(&self) -> Option<Value> {
        Some(to(json!({"destination": "/exchange/missing/key"})))
    }

    async fn consume(&mut self) -> Vec<Message> {
        self.take(&format!("/queue/{QUEUE}")).await
    }

    fn too_large(&self) -> Option<usize> {
        Some(MAX_MESSAGE + 1)
    }

    async fn fill(&mut self) {
        self.rabbitmq.control(&["set_vm_memory_high_watermark", "absolute", "1MB"]).await;
    }

    async fn empty(&mut self) {
        self.rabbitmq.control(&["set_vm_memory_high_watermark", "absolute", "2GB"]).await;
    }

    async fn change_password(&mut self, password: &str) {
        self.rabbitmq.control(&["change_password", RABBITMQ_USER, password]).await;
        self.rabbitmq.password = password.to_owned();
    }

    async fn settle(&mut self) {
        self.rabbitmq.write_to_disk().await;
    }
}

impl Broker for ActiveMq {
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
        connection(USER, access)
    }

    fn webhook(&self) -> Value {
        to(json!({"destination": QUEUE, "destination_type": "queue"}))
    }

    fn unroutable(&self) -> Option<Value> {
        Some(to(json!({"destination": "forbidden"})))
    }

    async fn consume(&mut self) -> Vec<Message> {
        messages("read_stomp.py", &[&self.port.to_string(), USER, &self.password, &format!("/queue/{QUEUE}")]).await
    }

    fn too_large(&self) -> Option<usize> {
        Some(MAX_FRAME + 1)
    }

    async fn fill(&mut self) {
        python("fill_stomp.py", &[&self.port.to_string(), USER, &self.password, "fill"]).await;
    }

    async fn empty(&mut self) {
        python("fill_stomp.py", &[&self.port.to_string(), USER, &self.password, "empty"]).await;
    }

    async fn change_password(&mut self, password: &str) {
        self.set_password(password);
    }
}

short! {
    events_arrive_byte_for_byte => suite::works::<Stomp>(),
    five_hundred_events_survive_a_kill => suite::survives_a_kill::<Stomp>(500),
    a_wrong_password_is_told_apart => suite::wrong_password::<Stomp>(),
    a_missing_exchange_is_told_apart => suite::unroutable::<Stomp>(),
}

long! {
    five_thousand_events_survive_a_kill => suite::survives_a_kill::<Stomp>(5_000),
    a_frozen_server_is_a_timeout => suite::frozen::<Stomp>(),
    a_silent_connection_is_a_timeout => suite::silent::<Stomp>(),
    a_connection_is_cut_in_the_middle_of_a_message => suite::cut_in_the_middle::<Stomp>(),
    a_foreign_authority_is_refused => suite::foreign_authority::<Stomp>(),
    a_message_that_is_too_large_is_permanent => suite::too_large::<Stomp>(),
    a_server_without_memory_is_a_timeout => suite::full::<Stomp>(),
    a_password_is_changed_while_it_runs => suite::credentials_change::<Stomp>(),
    a_server_that_is_down_fails_at_once => suite::down::<Stomp>(),
    a_stop_loses_nothing => suite::stops_gracefully::<Stomp>(),
    // ActiveMQ itself.
    of_activemq_events_arrive_byte_for_byte => suite::works::<ActiveMq>(),
    of_activemq_five_thousand_events_survive_a_kill => suite::survives_a_kill::<ActiveMq>(5_000),
    of_activemq_a_wrong_password_is_told_apart => suite::wrong_password::<ActiveMq>(),
    of_activemq_a_destination_without_the_permission_is_told_apart => suite::unroutable::<ActiveMq>(),
    of_activemq_a_frozen_server_is_a_timeout => suite::frozen::<ActiveMq>(),
    of_activemq_a_silent_connection_is_a_timeout => suite::silent::<ActiveMq>(),
    of_activemq_a_connection_is_cut_in_the_middle_of_a_message => suite::cut_in_the_middle::<ActiveMq>(),
    of_activemq_a_foreign_authority_is_refused => suite::foreign_authority::<ActiveMq>(),
    of_activemq_a_message_that_is_too_large_is_permanent => suite::too_large::<ActiveMq>(),
    of_activemq_a_full_store_is_unavailable => suite::full::<ActiveMq>(),
    of_activemq_a_password_is_changed_while_it_runs => suite::credentials_change::<ActiveMq>(),
    of_activemq_a_server_that_is_down_fails_at_once => suite::down::<ActiveMq>(),
    of_activemq_a_stop_loses_nothing => suite::stops_gracefully::<ActiveMq>(),
}
