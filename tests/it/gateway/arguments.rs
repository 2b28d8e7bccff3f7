//! The arguments of the gateway, and its help.

use std::process::Output;

use crate::support::process::command;
use crate::support::within;

async fn run(arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let output = within("the end", command(directory.path()).args(arguments).output()).await;
    output.unwrap()
}

async fn printed(arguments: &[&str]) -> String {
    let output = run(arguments).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn help_and_version_are_printed() {
    let help = printed(&["--help"]).await;
    for word in ["Usage: gateway", "healthcheck", "--version", "MAX_BODY_BYTES", "[default: 25MiB]"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    assert_eq!(printed(&["-h"]).await, help);
    assert_eq!(printed(&["healthcheck", "--help"]).await, help);
    let version = format!("gateway {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(printed(&["--version"]).await, version);
    assert_eq!(printed(&["-V"]).await, version);
}

#[tokio::test]
async fn an_unknown_argument_is_answered_with_the_known_ones() {
    for (arguments, hint) in [
        (&["--hepl"][..], "did you mean `--help`?"),
        (&["help"], "did you mean `--help`?"),
        (&["--healthcheck"], "did you mean `healthcheck`?"),
        (&["health-check"], "did you mean `healthcheck`?"),
        (&["--version", "x"], "unknown argument `x`"),
        (&["--port", "9000"], "did you mean PORT?"),
        (&["--max-body-bytes=1"], "did you mean MAX_BODY_BYTES?"),
        (&[""], "unknown argument ``"),
        (&["healthcheck", "healthcheck"], "more than one argument"),
        (&["x\ny"], r"unknown argument `x\ny`"),
    ] {
        let output = run(arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
        assert!(stderr.contains(hint), "{arguments:?}: {stderr}");
        let is_listed = ["healthcheck", "--help", "--version"].iter().all(|known| stderr.contains(known));
        assert!(is_listed || stderr.contains("more than one"), "{arguments:?}: {stderr}");
    }
}

#[tokio::test]
async fn an_argument_that_is_no_text_is_unknown() {
    use std::os::unix::ffi::OsStrExt;
    let directory = tempfile::tempdir().unwrap();
    let argument = std::ffi::OsStr::from_bytes(b"\xff");
    let output = within("the end", command(directory.path()).arg(argument).output()).await.unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
