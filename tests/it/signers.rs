//! Requests that the libraries of providers have signed: all of them are let in, and none that was changed.
//!
//! The libraries run in Node and Python. `make test` installs them; `SIGNERS` names their directory.

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

/// Another secret of the same sender: text, base64 and hex at the same time.
const ANOTHER: &str = "0123456789abcdef0123456789abcdef0123456789abcdef";

#[derive(Deserialize)]
struct Signed {
    preset: String,
    secret: String,
    uri: String,
    headers: BTreeMap<String, String>,
    body: String,
    now: u64,
}

/// The directory of the libraries.
fn libraries() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tools/signers");
    let directory = std::env::var_os("SIGNERS").map_or(own, PathBuf::from);
    for part in ["node_modules", "python"] {
        let part = directory.join(part);
        assert!(part.exists(), "SIGNERS: there is no {}; run `make test`, which brings it", part.display());
    }
    directory
}

/// Requests that the libraries of npm have signed, other ones in each run.
async fn signed_in_node(count: usize) -> Vec<Signed> {
    let mut node = Command::new("node");
    node.args(["--input-type=module", "-"]);
    signed(node, include_bytes!("../signers/sign.mjs"), 9, count).await
}

/// Requests that the libraries of PyPI have signed, other ones in each run.
async fn signed_in_python(count: usize) -> Vec<Signed> {
    let mut python = Command::new("python3");
    python.arg("-").env("PYTHONPATH", libraries().join("python"));
    signed(python, include_bytes!("../signers/sign.py"), 4, count).await
}

/// `count` requests for each of the script's `providers`.
async fn signed(mut interpreter: Command, script: &[u8], providers: usize, count: usize) -> Vec<Signed> {
    let seed = UNIX_EPOCH.elapsed().unwrap().as_nanos() % 1_000_000_007;
    let mut child = interpreter
        .args([count.to_string(), seed.to_string()])
        .current_dir(libraries())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(script).await.unwrap();
    let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success(), "seed {seed}");
    let signed: Vec<Signed> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(signed.len(), providers * count, "seed {seed}");
    signed
}

impl Signed {
    async fn send(&self, body: &str) -> u16 {
        let now = UNIX_EPOCH + Duration::from_secs(self.now);
        let signature = Signature::builder()
            .preset(&self.preset)
            .secrets([ANOTHER, &self.secret])
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
async fn what_the_libraries_of_npm_sign_is_let_in_and_nothing_else() {
    judge(signed_in_node(40).await).await;
}

#[tokio::test]
async fn what_the_libraries_of_pypi_sign_is_let_in_and_nothing_else() {
    judge(signed_in_python(40).await).await;
}

async fn judge(requests: Vec<Signed>) {
    for signed in requests {
        let told = format!("{}, {}: {}", signed.preset, signed.secret, signed.body);
        assert_eq!(signed.send(&signed.body).await, 200, "{told}");
        assert_eq!(signed.send(&format!("{}x", signed.body)).await, 401, "{told}");
    }
}
