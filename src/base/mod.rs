//! The ground floor: tools that know nothing of requests, events and webhooks.

#[cfg(any(feature = "durable", feature = "history", feature = "queue-disk"))]
pub(crate) mod clock;
pub(crate) mod deadline;
#[cfg(any(
    feature = "durable",
    feature = "etcd",
    feature = "history",
    feature = "queue-disk",
    feature = "save-to-disk"
))]
pub(crate) mod directory;
pub(crate) mod group;
#[cfg(feature = "_egress")]
pub(crate) mod host;
pub(crate) mod lock;
pub(crate) mod log_limit;
pub(crate) mod metrics;
pub(crate) mod network;
pub(crate) mod network_set;
#[cfg(feature = "etcd")]
pub(crate) mod private;
pub(crate) mod rfc3339;
pub(crate) mod secret;
pub(crate) mod secret_names;
pub(crate) mod shares;
pub(crate) mod shown;
pub(crate) mod stamp;
pub(crate) mod wall_clock;
