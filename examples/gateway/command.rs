//! The command line. It holds a command at most: settings are environment variables.

use std::ffi::OsString;
use std::fmt::Write;

use crate::misspelt::nearest;
use crate::variables::VARIABLES;

#[derive(Clone, Copy)]
pub(crate) enum Command {
    Serve,
    Healthcheck,
    Help,
    Version,
}

/// The known arguments.
const WORDS: [(&str, Command); 5] = [
    ("healthcheck", Command::Healthcheck),
    ("--help", Command::Help),
    ("-h", Command::Help),
    ("--version", Command::Version),
    ("-V", Command::Version),
];

pub(crate) const VERSION: &str = concat!("gateway ", env!("CARGO_PKG_VERSION"), "\n");

/// Reads the arguments after the program's name.
///
/// # Errors
///
/// When there is an unknown argument, or more than one. The error names the known arguments.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut command = Command::Serve;
    for argument in arguments {
        let argument = argument.to_string_lossy();
        let known = WORDS.iter().find(|(word, _)| *word == argument).map(|(_, command)| *command);
        command = match (known, command) {
            (None, _) => return Err(unknown(&argument)),
            // `--help` wins over any other argument.
            (Some(_), Command::Help) | (Some(Command::Help), _) => Command::Help,
            (Some(known), Command::Serve) => known,
            (Some(_), _) => return Err("found more than one argument, expected at most one".to_owned()),
        };
    }
    Ok(command)
}

fn unknown(argument: &str) -> String {
    let words = WORDS.map(|(word, _)| word);
    let name = argument.trim_start_matches('-').split('=').next().unwrap_or_default();
    let bare: Vec<_> = words.iter().map(|word| word.trim_start_matches('-')).collect();
    let variables: Vec<_> = VARIABLES.iter().map(|variable| variable.name).collect();
    let mut text = format!("unknown argument `{}`", argument.escape_debug());
    let alike =
        nearest(&name.to_lowercase(), &bare).and_then(|near| words.into_iter().find(|word| word.ends_with(near)));
    if let Some(word) = alike {
        let _ = write!(text, "; did you mean `{word}`?");
    } else if let Some(variable) = nearest(&name.to_uppercase().replace('-', "_"), &variables) {
        let _ = write!(text, "; settings are environment variables, did you mean {variable}?");
    }
    let _ = write!(text, " Known arguments: {}", words.join(", "));
    text
}

/// The text of `--help`.
pub(crate) fn help() -> String {
    let mut text = String::from(
        "Receives webhooks over HTTP and delivers them. Environment variables set everything.

Usage: gateway [healthcheck]

Without an argument it serves until SIGTERM or SIGINT. On SIGHUP it reads the certificates again.

Commands:
  healthcheck    Asks the gateway that runs with the same environment for /health. The exit status is 0 or 1

Options:
  -h, --help     Prints this
  -V, --version  Prints the version

Variables (an empty one counts as not set):
",
    );
    for variable in VARIABLES {
        let _ = write!(text, "  {:<24} {}", variable.name, variable.help);
        if !variable.default.is_empty() {
            let _ = write!(text, " [default: {}]", variable.default);
        }
        text.push('\n');
    }
    text.push_str("\nSizes may have units (512B, 64KiB, 25MB, 1GiB), and so may times (500ms, 90s, 2m, 1h, 14d).\n");
    text
}
