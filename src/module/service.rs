//! A module that is a tower service.

use std::error::Error;
use std::future::poll_fn;

use futures_util::future::BoxFuture;
use tower_service::Service;

use super::ErasedModule;
use crate::event::{Ack, DeliverError, DeliverErrorKind, Delivery};

pub(crate) struct ServiceModule<S> {
    service: S,
}

impl<S> ServiceModule<S> {
    pub(crate) fn new(service: S) -> Self {
        Self { service }
    }
}

impl<S> ErasedModule for ServiceModule<S>
where
    S: Service<Delivery, Response = ()> + Clone + Send + Sync + 'static,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    S::Future: Send,
{
    fn deliver(&self, delivery: Delivery) -> BoxFuture<'_, Result<Ack, DeliverError>> {
        let mut service = self.service.clone();
        Box::pin(async move {
            poll_fn(|cx| service.poll_ready(cx)).await.map_err(into_deliver_error)?;
            service.call(delivery).await.map_err(into_deliver_error)?;
            Ok(Ack::Delivered)
        })
    }
}

/// Middleware boxes the errors of the service that it wraps.
fn into_deliver_error(error: impl Into<Box<dyn Error + Send + Sync>>) -> DeliverError {
    match error.into().downcast() {
        Ok(error) => *error,
        Err(error) => DeliverError::new(DeliverErrorKind::Io, error.to_string()),
    }
}
