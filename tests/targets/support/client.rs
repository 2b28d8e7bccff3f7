//! Clients that nobody here wrote, from PyPI: they read what a module has sent.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use tokio::process::Command;

use super::tool;

/// A client may read 100,000 messages.
const LONGEST: Duration = Duration::from_secs(600);

/// A message as the client has read it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Message {
    /// The event's id, from where the module puts it.
    pub(crate) id: String,
    pub(crate) body: Vec<u8>,
    /// Headers and properties, as text.
    pub(crate) headers: BTreeMap<String, String>,
}

/// A line of a script's output.
#[derive(Deserialize)]
struct Line {
    id: String,
    /// In Base64.
    body: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

/// Runs `consumers/{script}` with the clients in `target/tools/clients`. Returns what it has printed.
pub(crate) async fn python(script: &str, arguments: &[&str]) -> String {
    let mut command = reader(script, arguments);
    let output = tokio::time::timeout(LONGEST, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{script} has not ended in {LONGEST:?}")).unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The command that runs `consumers/{script}`. Its process ends when it is dropped.
pub(crate) fn reader(script: &str, arguments: &[&str]) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/targets/consumers").join(script);
    let mut command = Command::new("python3");
    command.arg(path).args(arguments).env("PYTHONPATH", tool("clients")).env("PYTHONDONTWRITEBYTECODE", "1");
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs a script that prints each message as a line `{"id": …, "body": …, "headers": {…}}`, the body in Base64.
pub(crate) async fn messages(script: &str, arguments: &[&str]) -> Vec<Message> {
    let lines = python(script, arguments).await;
    lines.lines().map(message).collect()
}

/// The message in a line of a script's output.
pub(crate) fn message(line: &str) -> Message {
    let Line { id, body, headers } = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    Message { id, body: BASE64_STANDARD.decode(body).unwrap(), headers }
}
