//! Each example, started as a process, asked over a socket, and stopped.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::LazyLock;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio::process::{Child, Command};

use crate::support::process::Output;
use crate::support::{Answer, eventually, raw, within};

/// Where the examples are. They are built once, with the features and the profile of this test.
static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo
        .args(["build", "--quiet", "--locked", "--all-features", "--examples"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success(), "the examples do not compile");
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("examples")
});

struct Example {
    child: Child,
    address: SocketAddr,
    out: Output,
}

impl Example {
    /// Starts it on a free port and waits until it listens.
    async fn start(name: &str, arguments: &[&OsStr]) -> Self {
        let mut child = Self::spawn(name, arguments);
        let out = Output::of(child.stdout.take().unwrap());
        let address = within("the example to listen", async {
            loop {
                let text = out.text();
                let line = text.lines().find_map(|line| line.strip_prefix("listening on "));
                if let Some(line) = line.filter(|_| text.ends_with('\n')) {
                    return line.split(';').next().unwrap().parse().unwrap();
                }
                assert!(child.try_wait().unwrap().is_none(), "{name} has ended: {text}");
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await;
        Self { child, address, out }
    }

    fn spawn(name: &str, arguments: &[&OsStr]) -> Child {
        let mut command = Command::new(BUILT.join(name));
        command.env("GITHUB_SECRET", SECRET).args(arguments).arg("127.0.0.1:0").stdin(Stdio::null()).kill_on_drop(true);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    async fn post(&self, path: &str, headers: &[&str], body: &str) -> Answer {
        let line = format!("POST {path} HTTP/1.1");
        raw::request(self.address, &[&[line.as_str()], headers].concat(), body).await
    }

    async fn status(&self, path: &str, headers: &[&str], body: &str) -> u16 {
        self.post(path, headers, body).await.status.as_u16()
    }

    /// Stops it as a supervisor does.
    async fn terminate(&mut self) -> ExitStatus {
        let id = self.child.id().expect("it has ended already");
        let status = Command::new("sh").args(["-c", &format!("kill -TERM {id}")]).status().await.unwrap();
        assert!(status.success());
        within("the example to end", self.child.wait()).await.unwrap()
    }
}

/// What the examples hold signatures to.
const SECRET: &str = "It's a Secret to Everybody";

const KNOWN: &str = "authorization: Bearer s3cret";
const WRONG: &str = "authorization: Bearer wrong";

#[tokio::test]
async fn axum_app_lets_the_handler_see_its_webhook() {
    let example = Example::start("axum_app", &[]).await;
    let json = "content-type: application/json";
    let answer = example.post("/orders", &[KNOWN, json], r#"{"item": 1}"#).await;
    assert_eq!(answer.status, 200);
    let seen: serde_json::Value = serde_json::from_str(answer.text()).unwrap();
    assert_eq!(seen["webhook"], "orders");
    assert_eq!(seen["metadata"]["warehouse"], "east");
    assert_eq!(seen["order"]["item"], 1);
    assert_eq!(example.status("/orders", &[WRONG, json], "{}").await, 401);
}

#[tokio::test]
async fn hyper_app_answers_what_its_layers_let_in() {
    let example = Example::start("hyper_app", &[]).await;
    let answer = example.post("/orders", &[KNOWN], "hello").await;
    assert_eq!((answer.status.as_u16(), answer.text().contains(r#""bytes":5"#)), (200, true));
    assert_eq!(example.status("/orders", &[WRONG], "hello").await, 401);
    assert_eq!(example.status("/returns", &[KNOWN], "hello").await, 404);
    assert_eq!(example.status("/orders", &[KNOWN], &"x".repeat(100_000)).await, 413);
}

#[tokio::test]
async fn custom_module_takes_events_with_both_of_its_modules() {
    let example = Example::start("custom_module", &[]).await;
    assert_eq!(example.status("/counted", &[], "{}").await, 200);
    assert_eq!(example.status("/counted", &[], "{}").await, 200);
    assert_eq!(example.status("/stored", &[], "{}").await, 200);
    assert_eq!(example.status("/stored", &[], &format!("{:2000}", 1)).await, 502);
    eventually("what the modules print", async || {
        let out = example.out.text();
        out.contains("makes 4\n") && out.contains("store: 2 bytes for default/stored\n")
    })
    .await;
}

/// A header line with the HMAC-SHA256 of `body`.
fn signed(name: &str, body: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap().chain_update(body);
    let digits: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{name}: sha256={digits}")
}

async fn lets_in_what_is_signed(example: &Example, path: &str, name: &str) {
    let json = "content-type: application/json";
    let body = r#"{"action": "opened"}"#;
    let right = signed(name, body);
    assert_eq!(example.status(path, &[&right, json], body).await, 200);
    assert_eq!(example.status(path, &[&right, json], r#"{"action": "closed"}"#).await, 401);
    assert_eq!(example.status(path, &[&right[..right.len() - 1], json], body).await, 401);
    assert_eq!(example.status(path, &[json], body).await, 401);
}

#[tokio::test]
async fn github_signature_lets_in_what_is_signed() {
    let example = Example::start("github_signature", &[]).await;
    lets_in_what_is_signed(&example, "/github", "x-hub-signature-256").await;
    eventually("the handler", async || example.out.text().contains(r#""opened""#)).await;
}

#[tokio::test]
async fn own_scheme_lets_in_what_is_signed() {
    let example = Example::start("own_scheme", &[]).await;
    lets_in_what_is_signed(&example, "/webhook/orders", "x-own-signature").await;
    let right = signed("x-own-signature", "{}");
    assert_eq!(example.status("/webhook/orders", &[&right, &right], "{}").await, 401);
}

#[tokio::test]
async fn live_config_changes_the_token_while_it_runs() {
    let example = Example::start("live_config", &[]).await;
    let (first, second) = ("authorization: Bearer first-token", "authorization: Bearer second-token");
    assert_eq!(example.status("/webhook/orders", &[first], "{}").await, 200);
    assert_eq!(example.status("/token", &[], "second-token").await, 200);
    assert_eq!(example.status("/webhook/orders", &[first], "{}").await, 401);
    assert_eq!(example.status("/webhook/orders", &[second], "{}").await, 200);
    // What does not compile changes nothing.
    assert_eq!(example.status("/token", &[], "").await, 422);
    assert_eq!(example.status("/webhook/orders", &[second], "{}").await, 200);
}

#[tokio::test]
async fn file_source_follows_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("webhooks.json");
    std::fs::write(&file, r#"{"orders": {"module": "discard", "authorization": "Bearer s3cret"}}"#).unwrap();
    let example = Example::start("file_source", &[folder.path().as_os_str()]).await;
    assert_eq!(example.status("/webhook/orders", &[KNOWN], "{}").await, 200);
    assert_eq!(example.status("/webhook/orders", &[WRONG], "{}").await, 401);
    std::fs::write(&file, r#"{"refunds": {"module": "discard"}}"#).unwrap();
    eventually("the change", async || example.status("/webhook/refunds", &[], "{}").await == 200).await;
    assert_eq!(example.status("/webhook/orders", &[KNOWN], "{}").await, 404);
}

#[tokio::test]
async fn file_source_names_the_file_that_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let child = Example::spawn("file_source", &[folder.path().as_os_str()]);
    let output = within("the end", child.wait_with_output()).await.unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains("webhooks.json does not exist"), "{text}");
}

#[tokio::test]
async fn graceful_stop_delivers_what_it_has_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let mut delivered = BTreeSet::new();
    for last in [false, true] {
        let mut example = Example::start("graceful_stop", &[folder.path().as_os_str()]).await;
        if !last {
            for n in 0..100 {
                let body = format!(r#"{{"number": {n}}}"#);
                assert_eq!(example.status("/webhook/orders", &[], &body).await, 202);
            }
        } else {
            // What the first process left is delivered by the second one.
            let rest = 100 - delivered.len();
            eventually("the rest", async || numbers(&example.out.text()).len() >= rest).await;
        }
        assert!(example.terminate().await.success());
        eventually("the end of its output", async || example.out.text().ends_with("stopped\n")).await;
        delivered.append(&mut numbers(&example.out.text()));
    }
    assert_eq!(delivered, (0..100).collect());
}

/// The different events that the module `log` has printed.
fn numbers(out: &str) -> BTreeSet<u64> {
    let number =
        |line: &str| line.split_once("\"number\":")?.1.trim().split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
    out.lines().filter_map(number).collect()
}

/// The texts of the Rust files in `folder` and below it.
fn rust_files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => rust_files(&path),
            false => vec![std::fs::read_to_string(path).unwrap()],
        })
        .collect()
}

#[test]
fn each_example_is_short_run_here_and_named_in_the_docs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = rust_files(&root.join("src")).concat();
    let tests = include_str!("examples.rs");
    for entry in std::fs::read_dir(root.join("examples")).unwrap() {
        let path = entry.unwrap().path();
        let Some(name) = path.file_name().and_then(OsStr::to_str).and_then(|name| name.strip_suffix(".rs")) else {
            continue;
        };
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 90, "{name} has {lines} lines, expected at most 90");
        assert!(tests.contains(&format!("\"{name}\"")), "{name} is started by no test");
        assert!(docs.contains(&format!("examples/{name}.rs")), "no page of the docs names examples/{name}.rs");
    }
}
