//! `redis_publish`, `redis_stream` and `redis_rq`: events for Redis, and for servers that speak its protocol.
//!
//! One file for each module, and `connection.rs` for their connections. Each network connection is made by the
//! [`Egress`](super::Egress), and no address that a server names is followed.

mod batched;
mod client;
mod connection;
mod error;
mod job;
mod publish;
mod rq;
mod stream;
mod wait;

pub use self::client::RedisClient;
pub use self::connection::{RedisConnection, RedisConnectionConfig};
pub use self::publish::{RedisFormat, RedisPublish, RedisPublishConfig, RedisServer};
pub use self::rq::{RedisRq, RedisRqConfig, RqSerializer};
pub use self::stream::{RedisStream, RedisStreamConfig};
pub use self::wait::RedisWait;
