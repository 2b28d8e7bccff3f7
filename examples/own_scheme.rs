//! A guard of your own that needs the body: the sender signs each body with HMAC-SHA256, in the field `X-Own-Signature`.
//!
//! `cargo run --example own_scheme` listens on 127.0.0.1:3000 and prints the lines to try; an argument names
//! another address.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use axum::Router;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderValue;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;
use tower_webhook::auth::{AuthError, ConfigScheme, Proof, Scheme, check_secret};
use tower_webhook::config::{BuildContext, BuildError};
use tower_webhook::request::Head;
use tower_webhook::source::FixedSource;
use tower_webhook::{Registry, receiver, reflect};

struct OwnSignature {
    key: Hmac<Sha256>,
}

/// Shows nothing of the secret.
impl fmt::Debug for OwnSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnSignature").finish_non_exhaustive()
    }
}

impl Scheme for OwnSignature {
    /// Refuses a request without a signature before the body is read.
    fn check_head(&self, head: Head<'_>) -> Result<Proof, AuthError> {
        signature(head).map(|_| Proof::NeedsBody)
    }

    fn check_body(&self, head: Head<'_>, body: &[u8]) -> Result<Proof, AuthError> {
        let mac = self.key.clone().chain_update(body).finalize().into_bytes();
        let expected: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        // Compares in constant time.
        match expected.as_bytes().ct_eq(signature(head)?).into() {
            true => Ok(Proof::Complete),
            false => Err(AuthError::BadSignature),
        }
    }

    fn challenge(&self, _: AuthError) -> HeaderValue {
        HeaderValue::from_static("X-Own-Signature")
    }
}

/// The hexadecimal digits of the request's only signature, such as `sha256=9f86d0...`.
fn signature(head: Head<'_>) -> Result<&[u8], AuthError> {
    let mut values = head.headers.get_all("x-own-signature").iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(AuthError::Missing) };
    value.as_bytes().strip_prefix(b"sha256=").ok_or(AuthError::Malformed)
}

impl ConfigScheme for OwnSignature {
    const KEY: &'static str = "own_signature";
    type Config = String;

    fn build(secret: String, _: &BuildContext<'_>) -> Result<Self, BuildError> {
        check_secret(&secret)?;
        Ok(Self { key: Hmac::new_from_slice(secret.as_bytes())? })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // `{$SECRET}` in place of the secret would read it from the environment.
    let orders = r#"{"module": "log", "own_signature": "It's a Secret to Everybody"}"#;
    let source = FixedSource::new().webhook("default", "orders", orders)?;
    let (store, reflector) = reflect(source, Registry::builtin().scheme::<OwnSignature>());
    tokio::spawn(reflector.run());
    store.wait_ready(Duration::from_secs(10)).await?;
    let app = Router::new().nest_service("/webhook", receiver(store));

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3000".to_owned());
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    println!("listening on {address}; try:");
    println!("curl -i {address}/webhook/orders -d '{{}}'  # 401: no signature");
    axum::serve(listener, app).await?;
    Ok(())
}
