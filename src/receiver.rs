//! The layers in their recommended order, written once: [`guide::layers`](crate::guide::layers) has the table.
//!
//! A receiver is an ordinary tower service. In axum:
//!
//! ```
//! use std::time::Duration;
//!
//! use axum::Router;
//! use tower_webhook::source::FixedSource;
//! use tower_webhook::{Registry, receiver, reflect};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let source = FixedSource::new()
//!     .webhook("default", "orders", r#"{"module": "discard", "authorization": "Bearer s3cret"}"#)
//!     .unwrap();
//! let (store, reflector) = reflect(source, Registry::builtin());
//! tokio::spawn(reflector.run());
//! store.wait_ready(Duration::from_secs(10)).await.unwrap();
//!
//! let app: Router = Router::new().nest_service("/webhook", receiver(store));
//!
//! use http::Request;
//! use tower::ServiceExt;
//! let request = Request::post("/webhook/orders")
//!     .header("authorization", "Bearer s3cret")
//!     .body(axum::body::Body::from("{}"))
//!     .unwrap();
//! assert_eq!(app.oneshot(request).await.unwrap().status(), 200);
//! # }
//! ```

pub(crate) mod assembly;
mod process;
mod tasks;

pub use self::assembly::{Live, ReceiverBuilder, ReceiverFuture, Running};
pub use self::tasks::{TaskEnded, Tasks};
#[cfg(feature = "metrics")]
pub use crate::base::metrics::describe_metrics;
pub use crate::delivery::{CountBy, WebhookCounters};
