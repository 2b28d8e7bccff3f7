//! The modules and kinds of connections that open network connections.

use super::Registry;
#[cfg(any(feature = "http-webhook", feature = "redis", feature = "websocket"))]
use crate::module::ConfigModule;
use crate::module::Egress;

impl Registry {
    /// Makes every module and every kind of connections in this crate that opens network connections do so through
    /// `egress`: `http_webhook`, connections of type `http`, and those of brokers, as far as their features are on. Adds
    /// or replaces all of them.
    #[must_use]
    pub fn egress(self, egress: &Egress) -> Self {
        // A line for each feature: each module gets a clone of its own.
        let registry = self;
        #[cfg(feature = "activemq")]
        let registry = registry.egress_of_activemq(egress.clone());
        #[cfg(feature = "http-webhook")]
        let registry = registry.egress_of_http(egress.clone());
        #[cfg(feature = "kafka")]
        let registry = registry.egress_of_kafka(egress.clone());
        #[cfg(feature = "mqtt")]
        let registry = registry.egress_of_mqtt(egress.clone());
        #[cfg(feature = "rabbitmq")]
        let registry = registry.egress_of_rabbitmq(egress.clone());
        #[cfg(feature = "nats")]
        let registry = registry.egress_of_nats(egress.clone());
        #[cfg(feature = "redis")]
        let registry = registry.egress_of_redis(egress.clone());
        #[cfg(feature = "websocket")]
        let registry = registry.egress_of_websocket(egress.clone());
        #[cfg(feature = "zeromq")]
        let registry = registry.egress_of_zeromq(egress.clone());
        registry
    }

    #[cfg(feature = "activemq")]
    fn egress_of_activemq(self, egress: Egress) -> Self {
        use crate::module::{ActiveMq, ActiveMqConnection};
        self.module::<ActiveMq>().connection_fn(move |config, _| ActiveMqConnection::new(&egress, config))
    }

    #[cfg(feature = "rabbitmq")]
    fn egress_of_rabbitmq(self, egress: Egress) -> Self {
        use crate::module::{RabbitMq, RabbitMqConnection};
        self.module::<RabbitMq>().connection_fn(move |config, cx| RabbitMqConnection::new(&egress, config, cx))
    }

    #[cfg(feature = "kafka")]
    fn egress_of_kafka(self, egress: Egress) -> Self {
        use crate::module::{Kafka, KafkaConnection};
        self.module::<Kafka>().connection_fn(move |config, _| KafkaConnection::new(&egress, config))
    }

    #[cfg(feature = "mqtt")]
    fn egress_of_mqtt(self, egress: Egress) -> Self {
        use crate::module::{Mqtt, MqttConnection};
        self.module::<Mqtt>().connection_fn(move |config, _| MqttConnection::new(&egress, config))
    }

    #[cfg(feature = "nats")]
    fn egress_of_nats(self, egress: Egress) -> Self {
        use crate::module::{Nats, NatsConnection};
        self.module::<Nats>().connection_fn(move |config, _| NatsConnection::new(&egress, config))
    }

    #[cfg(feature = "redis")]
    fn egress_of_redis(self, egress: Egress) -> Self {
        use crate::module::{RedisConnection, RedisPublish, RedisRq, RedisStream};
        let of_modules = egress.clone();
        self.module_fn(RedisPublish::NAME, move |config, cx| RedisPublish::new(&of_modules, config, cx))
            .module::<RedisRq>()
            .module::<RedisStream>()
            .connection_fn(move |config, _| RedisConnection::new(&egress, config))
    }

    #[cfg(feature = "websocket")]
    fn egress_of_websocket(self, egress: Egress) -> Self {
        use crate::module::{WebSocket, WebSocketConnection};
        let of_modules = egress.clone();
        self.module_fn(WebSocket::NAME, move |config, cx| WebSocket::new(&of_modules, config, cx))
            .connection_fn(move |config, _| WebSocketConnection::new(&egress, config))
    }

    #[cfg(feature = "zeromq")]
    fn egress_of_zeromq(self, egress: Egress) -> Self {
        use crate::module::{ZeroMq, ZeroMqConnection};
        self.module::<ZeroMq>().connection_fn(move |config, _| ZeroMqConnection::new(&egress, &config))
    }

    #[cfg(feature = "http-webhook")]
    fn egress_of_http(self, egress: Egress) -> Self {
        use crate::module::{HttpConnection, HttpWebhook};
        let of_connections = egress.clone();
        self.module_fn(HttpWebhook::NAME, move |config, cx| HttpWebhook::configured(&egress, config, cx))
            .connection_fn(move |config, _| HttpConnection::new(&of_connections, config))
    }
}
