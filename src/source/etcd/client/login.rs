//! Credentials, for a cluster that may or may not ask for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use etcd_client::{Client, Error, StatusResponse};

use super::fault::fault;
use crate::source::etcd::machine::Fault;

/// etcd's error when it gets credentials, or even a token, while its authentication is off.
const NOT_ENABLED: &str = "authentication is not enabled";

/// Errors that a new token, or none, may resolve: the list `shouldRefreshToken` of etcd's own client, and the case that
/// authentication was switched off.
const RESOLVED_BY_RENEWING: [&str; 4] =
    ["user name is empty", "invalid auth token", "revision of auth store is old", NOT_ENABLED];

/// How one connection logs in: with a token while etcd's authentication is on, without one while it is off.
#[derive(Clone)]
pub(super) struct Login {
    client: Client,
    user: Option<(String, String)>,
    /// Whether there is a user that etcd does not ask for.
    idle: Arc<AtomicBool>,
}

impl Login {
    pub(super) fn new(client: Client, user: Option<(String, String)>) -> Self {
        Self { client, user, idle: Arc::default() }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.idle.load(Ordering::Relaxed)
    }

    /// Whether a new token, or none, may resolve the error.
    pub(super) fn may_resolve(&self, fault: &Fault) -> bool {
        self.user.is_some() && RESOLVED_BY_RENEWING.iter().any(|words| fault.reason.contains(words))
    }

    /// Gets a token, if etcd issues one. Everything made from this client uses the token from then on.
    pub(super) async fn renew(&mut self) -> Result<(), Fault> {
        let Some(user) = self.user.clone() else { return Ok(()) };
        let idle = match self.client.update_user(Some(user)).await {
            Ok(()) => false,
            Err(Error::GRpcStatus(status)) if status.message().contains(NOT_ENABLED) => {
                self.client.update_user(None).await.map_err(fault)?;
                true
            }
            Err(error) => return Err(fault(error)),
        };
        self.idle.store(idle, Ordering::Relaxed);
        Ok(())
    }

    pub(super) async fn status(&self) -> Result<StatusResponse, Error> {
        self.client.maintenance_client().status().await
    }
}
