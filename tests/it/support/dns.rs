//! A name server that the test controls, and a network namespace in which a process uses it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UdpSocket;

/// Set in the environment of a test that runs in its own network namespace.
const INSIDE: &str = "TOWER_WEBHOOK_TEST_NETWORK";

/// Runs the test `name` of `module` in a process with its own network namespace. The resolver there asks 127.0.0.1 and
/// waits for 30 s, and the loopback device also has the addresses `also`.
///
/// This needs the right to create namespaces: root has it, and so has everybody where user namespaces are allowed.
pub(crate) fn in_own_network(module: &str, name: &str, also: &[&str], test: impl Future<Output = ()>) {
    if std::env::var_os(INSIDE).is_some() {
        return tokio::runtime::Runtime::new().unwrap().block_on(test);
    }
    let directory = tempfile::tempdir().unwrap();
    let resolver = directory.path().join("resolv.conf");
    std::fs::write(&resolver, "nameserver 127.0.0.1\nsearch invalid\noptions timeout:30 attempts:1\n").unwrap();
    let add: String = also.iter().map(|address| format!("ip address add {address} dev lo && ")).collect();
    let script = format!(
        "ip link set lo up && {add}mount --bind '{}' /etc/resolv.conf && exec \"$0\" \"$@\"",
        resolver.display()
    );
    let (_, module) = module.split_once("::").unwrap();
    let run = Command::new("unshare")
        .args(["--map-root-user", "--mount", "--net", "sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("{module}::{name}"), "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare, of util-linux, is there");
    let text = [run.stdout, run.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(run.status.success() && text.contains("1 passed"), "in a network of its own: {text}");
    println!("{text}");
}

/// The answer to a question.
pub(crate) enum Answer {
    Addresses(Vec<IpAddr>),
    NoSuchName,
    Silence,
}

/// The delay of each answer, so that concurrent questions overlap.
const DELAY: Duration = Duration::from_millis(100);

/// The type of a question for IPv4 addresses, and for IPv6 addresses.
const A: u16 = 1;
const AAAA: u16 = 28;

/// A name server on port 53 of 127.0.0.1.
pub(crate) struct Dns {
    /// How often the IPv4 addresses of each name were asked for. Each lookup asks for both kinds of addresses.
    asked: Arc<Mutex<HashMap<String, usize>>>,
}

impl Dns {
    pub(crate) async fn start(answer: impl Fn(&str) -> Answer + Send + 'static) -> Self {
        let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).await.unwrap());
        let dns = Self { asked: Arc::default() };
        let asked = Arc::clone(&dns.asked);
        tokio::spawn(async move {
            let mut question = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut question).await.unwrap();
                let question = question[..length].to_vec();
                let (name, kind) = read(&question);
                if kind == A {
                    *asked.lock().unwrap().entry(name.clone()).or_default() += 1;
                }
                if let Some(reply) = reply(&question, kind, answer(&name)) {
                    let socket = Arc::clone(&socket);
                    tokio::spawn(async move {
                        tokio::time::sleep(DELAY).await;
                        socket.send_to(&reply, from).await.unwrap();
                    });
                }
            }
        });
        dns
    }

    /// How often `name` was looked up.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.asked.lock().unwrap().get(name).copied().unwrap_or(0)
    }

    /// The number of names with this ending that were looked up.
    pub(crate) fn names(&self, end: &str) -> usize {
        self.asked.lock().unwrap().keys().filter(|name| name.ends_with(end)).count()
    }
}

const HEAD: usize = 12;

/// The name and the type of a question (RFC 1035 §4.1).
fn read(question: &[u8]) -> (String, u16) {
    let (mut labels, mut at) = (Vec::new(), HEAD);
    while question[at] != 0 {
        let end = at + 1 + usize::from(question[at]);
        labels.push(String::from_utf8_lossy(&question[at + 1..end]).into_owned());
        at = end;
    }
    (labels.join(".").to_ascii_lowercase(), u16::from_be_bytes([question[at + 1], question[at + 2]]))
}

fn reply(question: &[u8], kind: u16, answer: Answer) -> Option<Vec<u8>> {
    let (code, addresses) = match answer {
        Answer::Addresses(addresses) => (0, addresses),
        Answer::NoSuchName => (3, Vec::new()),
        Answer::Silence => return None,
    };
    let data = addresses.into_iter().filter_map(|address| match (address, kind) {
        (IpAddr::V4(address), A) => Some(address.octets().to_vec()),
        (IpAddr::V6(address), AAAA) => Some(address.octets().to_vec()),
        _ => None,
    });
    let data: Vec<_> = data.collect();
    let mut reply = question.to_vec();
    // A response to a question that asked for recursion, which is available.
    reply[2..4].copy_from_slice(&[0x81, 0x80 | code]);
    reply[6..8].copy_from_slice(&(data.len() as u16).to_be_bytes());
    for data in data {
        // The question's name, the type, the internet class, a TTL of a minute.
        reply.extend([0xc0, HEAD as u8]);
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0, 60]);
        reply.extend((data.len() as u16).to_be_bytes());
        reply.extend(data);
    }
    Some(reply)
}
