//! Microsoft Graph: each item of the body holds the secret itself.

use serde::Deserialize;

use super::key::Key;
use crate::auth::{AuthError, Position, Secrets, WallClock};

/// A duplicate field is an error.
#[derive(Deserialize)]
struct Notifications {
    value: Vec<Notification>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Notification {
    client_state: String,
}

/// A notification has no more items.
const MOST: usize = 1000;

/// The position of the secret that every item holds.
pub(super) fn check_body(body: &[u8], secrets: &Secrets<Key>, clock: &WallClock) -> Result<Position, AuthError> {
    let notifications: Notifications = serde_json::from_slice(body).map_err(|_| AuthError::Malformed)?;
    let items = notifications.value;
    if items.is_empty() || items.len() > MOST {
        return Err(AuthError::Malformed);
    }
    let is_in_all = |key: &Key| items.iter().fold(true, |all, item| all & key.is_token(item.client_state.as_bytes()));
    secrets.find(clock, is_in_all)
}
