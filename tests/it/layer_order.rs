//! A stack in a wrong order, or with a missing layer, refuses requests or does not compile; it never lets a sender
//! without a credential in.

mod dedup;
mod handshakes;
mod permits;
mod sequences;
mod types;

use std::convert::Infallible;

use http::{Request, Response};
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service};
use tower_webhook::request::Collected;
use tower_webhook::request::ResponseBody;

/// A stack that is made at run time.
type Boxed = BoxCloneSyncService<Request<Collected>, Response<ResponseBody>, Infallible>;

fn boxed<L>(layer: L, inner: Boxed) -> Boxed
where
    L: Layer<Boxed>,
    L::Service: Service<Request<Collected>, Response = Response<ResponseBody>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    <L::Service as Service<Request<Collected>>>::Future: Send + 'static,
{
    BoxCloneSyncService::new(layer.layer(inner))
}
