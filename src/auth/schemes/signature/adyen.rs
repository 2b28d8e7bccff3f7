//! Adyen's notifications: each item of the body has its own signature over eight of its fields.

use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::key::{Algorithm, Encoding, Key, Message};
use super::plan::bad_signature;
use crate::auth::{AuthError, Position, Secrets, WallClock};

/// Only the fields that the signature covers. A duplicate field is an error, because a consumer might read the other copy.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Notifications<'a> {
    #[serde(borrow)]
    notification_items: Vec<Notification<'a>>,
}

#[derive(Deserialize)]
struct Notification<'a> {
    #[serde(borrow, rename = "NotificationRequestItem")]
    item: Item<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item<'a> {
    #[serde(borrow)]
    psp_reference: Option<&'a RawValue>,
    #[serde(borrow)]
    original_reference: Option<&'a RawValue>,
    #[serde(borrow)]
    merchant_account_code: Option<&'a RawValue>,
    #[serde(borrow)]
    merchant_reference: Option<&'a RawValue>,
    #[serde(borrow)]
    amount: Option<Amount<'a>>,
    #[serde(borrow)]
    event_code: Option<&'a RawValue>,
    #[serde(borrow)]
    success: Option<&'a RawValue>,
    additional_data: Signature,
}

#[derive(Default, Deserialize)]
struct Amount<'a> {
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    currency: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Signature {
    hmac_signature: String,
}

/// A notification has no more items.
const MOST: usize = 100;

/// The position of the secret that fits every item.
pub(super) fn check_body(body: &[u8], secrets: &Secrets<Key>, clock: &WallClock) -> Result<Position, AuthError> {
    let notifications: Notifications<'_> = serde_json::from_slice(body).map_err(|_| AuthError::Malformed)?;
    let items = notifications.notification_items;
    if items.is_empty() || items.len() > MOST {
        return Err(AuthError::Malformed);
    }
    let signed = items.iter().map(|Notification { item }| {
        let signature = Encoding::Base64.decode(item.additional_data.hmac_signature.as_bytes());
        let is_one = |length: usize| Algorithm::HmacSha256.lengths().contains(&length);
        let signature = signature.filter(|bytes| is_one(bytes.len())).ok_or(AuthError::Malformed)?;
        let mut message = Message::default();
        message.add(item.text()?.into_bytes());
        Ok((message, [signature]))
    });
    let signed = signed.collect::<Result<Vec<_>, AuthError>>()?;
    let fits_all = |key: &Key| signed.iter().fold(true, |all, (message, signature)| all & key.fits(message, signature));
    secrets.find(clock, fits_all).map_err(bad_signature)
}

impl Item<'_> {
    fn text(&self) -> Result<String, AuthError> {
        static NONE: LazyLock<Amount<'static>> = LazyLock::new(Amount::default);
        let amount = self.amount.as_ref().unwrap_or(&NONE);
        let fields = [
            self.psp_reference,
            self.original_reference,
            self.merchant_account_code,
            self.merchant_reference,
            amount.value,
            amount.currency,
            self.event_code,
            self.success,
        ];
        let fields = fields.into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
        Ok(fields.join(":"))
    }
}

/// The text of a string, number or boolean, numbers as written. A missing field is empty.
fn text(raw: Option<&RawValue>) -> Result<String, AuthError> {
    let Some(raw) = raw.map(RawValue::get) else { return Ok(String::new()) };
    match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str(raw).map_err(|_| AuthError::Malformed),
        Some(b'{' | b'[') | None => Err(AuthError::Malformed),
        Some(_) => Ok(raw.to_owned()),
    }
}
