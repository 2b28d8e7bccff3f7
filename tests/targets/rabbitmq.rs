//! The module `rabbitmq` against RabbitMQ 3.10. The consumer is pika.

mod server;
