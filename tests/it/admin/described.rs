//! The description of the routes, held against a running gateway by schemathesis.

use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::support::process::binary;

/// Longer than the thousand requests take on a busy machine.
const LONGEST: Duration = Duration::from_secs(300);

#[tokio::test]
async fn schemathesis_finds_no_answer_that_is_not_described() {
    let mut command = Command::new("bash");
    command.args(["tests/admin/schemathesis.sh"]).arg(binary()).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(LONGEST, command.output()).await.unwrap().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.contains("No issues found") && out.contains("Tested: 25"), "{out}");
}
