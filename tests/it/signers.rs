//! Requests that the libraries of providers have signed: all of them are let in, and none that was changed.
//!
//! The libraries run in Node. `make test` installs them; `SIGNERS` names their directory.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tower::{ServiceBuilder, ServiceExt};
use tower_webhook::auth::{Signature, WallClock};
use tower_webhook::layers::{CollectBodyLayer, RequireAuthLayer, VerifyBodyLayer};
use tower_webhook::request::Collected;

use crate::support::within;

#[derive(Deserialize)]
struct Signed {
    preset: String,
    secret: String,
    uri: String,
    headers: BTreeMap<String, String>,
    body: String,
    now: u64,
}

/// Requests that each of the libraries has signed, other ones in each run.
async fn signed(count: usize) -> Vec<Signed> {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tools/signers");
    let directory = std::env::var_os("SIGNERS").map_or(own, PathBuf::from);
    let installed = directory.join("node_modules");
    assert!(installed.exists(), "SIGNERS: there is no {}; run `make test`, which brings it", installed.display());
    let seed = UNIX_EPOCH.elapsed().unwrap().as_nanos() % 1_000_000_007;
    let mut node = Command::new("node")
        .args(["--input-type=module", "-", &count.to_string(), &seed.to_string()])
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    node.stdin.take().unwrap().write_all(include_bytes!("../signers/sign.mjs")).await.unwrap();
    let output = tokio::time::timeout(Duration::from_secs(60), node.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success());
    let signed: Vec<Signed> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(signed.len(), 5 * count, "seed {seed}");
    signed
}

impl Signed {
    async fn send(&self, body: &str) -> u16 {
        let now = UNIX_EPOCH + Duration::from_secs(self.now);
        let signature = Signature::builder()
            .preset(&self.preset)
            .secrets(["YW5vdGhlciBzZWNyZXQgb2YgdGhlIHNhbWUgc2VuZGVy", &self.secret])
            .public_url("https://hooks.example.com/in")
            .clock(WallClock::from_fn(move || now))
            .build()
            .unwrap();
        let service = ServiceBuilder::new()
            .layer(RequireAuthLayer::new(signature).verify_body_follows())
            .layer(CollectBodyLayer::new())
            .layer(VerifyBodyLayer::new())
            .service_fn(|_: Request<Collected>| async { Ok::<_, Infallible>(Response::new(())) });
        let request =
            self.headers.iter().fold(Request::post(&self.uri), |request, (name, value)| request.header(name, value));
        let request = request.body(Full::<Bytes>::from(body.to_owned())).unwrap();
        within("the answer", service.oneshot(request)).await.unwrap().status().as_u16()
    }
}

#[tokio::test]
async fn what_the_libraries_of_providers_sign_is_let_in_and_nothing_else() {
    for signed in signed(40).await {
        let told = format!("{}, {}: {}", signed.preset, signed.secret, signed.body);
        assert_eq!(signed.send(&signed.body).await, 200, "{told}");
        assert_eq!(signed.send(&format!("{}x", signed.body)).await, 401, "{told}");
    }
}
