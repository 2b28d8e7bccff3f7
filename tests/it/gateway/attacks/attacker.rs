//! An attacker in a process of its own. In the process of the measured sender it would take its turns.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::support::process::{Gateway, Output};

/// Set in the process of an attacker: the address that it attacks.
const ATTACKED: &str = "TOWER_WEBHOOK_TEST_ATTACKED";

/// The line of an attacker whose attack has begun, and of one that has sent all that it can.
const BEGUN: &str = "the attack has begun";
const SENT: &str = "all is sent";

/// How long a process of the lowest priority may take to begin.
const START: Duration = Duration::from_secs(120);

/// The address to attack, in the process of an attacker.
pub(super) fn attacked() -> Option<SocketAddr> {
    std::env::var(ATTACKED).ok().map(|address| address.parse().unwrap())
}

pub(super) fn begun() {
    println!("{BEGUN}");
}

pub(super) fn sent() {
    println!("{SENT}");
}

/// Until it is dropped.
pub(super) struct Attacker {
    _child: Child,
    output: Output,
}

impl Attacker {
    /// Runs the test `name` of `module` as an attacker, and waits until its attack has begun. It has the lowest priority:
    /// a real one has another machine, and takes no time of the gateway's processors.
    pub(super) async fn start(module: &str, name: &str, gateway: &Gateway) -> Self {
        let (_, module) = module.split_once("::").unwrap();
        let mut child = Command::new("nice")
            .args(["-n", "19"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", &format!("{module}::{name}"), "--ignored", "--nocapture"])
            .env(ATTACKED, gateway.address.to_string())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let output = Output::of(child.stdout.take().unwrap());
        let begins = async {
            while !output.text().contains(BEGUN) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(START, begins).await.expect("the attack does not begin");
        Self { _child: child, output }
    }

    pub(super) fn has_sent(&self) -> bool {
        self.output.text().contains(SENT)
    }
}
