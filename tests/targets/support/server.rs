//! A real server, as a process that can be killed, frozen and started again with its data.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::{PATIENCE, within};

/// The ports of servers. They lie below those that the system gives to clients: in a test with many connections one of
/// these could have taken a server's port while the server is down.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A free port for a server.
pub(crate) fn free_port() -> u16 {
    std::iter::repeat_with(|| fastrand::u16(PORTS)).find(|port| take(*port)).unwrap()
}

/// Takes this port for a server, if it is free. None is taken twice: a server may be about to listen at it, or be down.
pub(crate) fn take(port: u16) -> bool {
    static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() && TAKEN.lock().unwrap().insert(port)
}

/// How it is known that a server is ready.
pub(crate) enum Ready {
    /// It accepts connections at this port.
    Port(u16),
    /// Its output since the last start has this text.
    Output(String),
}

/// A directory below `target/`. It is removed when it is dropped, unless its test fails.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(name: &str) -> Self {
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR")).join("targets");
        std::fs::create_dir_all(&parent).unwrap();
        Self(tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(parent).unwrap().keep())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file, and returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        match std::thread::panicking() {
            true => eprintln!("kept: {}", self.0.display()),
            false => drop(std::fs::remove_dir_all(&self.0)),
        }
    }
}

/// A server with its directory. Dropping it kills the process and all that it has started.
pub(crate) struct Server {
    command: Box<dyn Fn() -> Command + Send + Sync>,
    ready: Ready,
    running: Option<Running>,
    output: PathBuf,
}

struct Running {
    child: Child,
    /// Kills the server when this process ends, however it ends: its standard input is a pipe from here.
    watch: Child,
    /// The length of the output when it was started.
    began: u64,
}

impl Server {
    /// Starts the server and waits until it is ready. `command` is asked again at each start; it must not go to the
    /// background. The output goes to `output.log` in `directory`.
    pub(crate) async fn start(
        directory: &Directory,
        ready: Ready,
        command: impl Fn() -> Command + Send + Sync + 'static,
    ) -> Self {
        let output = directory.path().join("output.log");
        let mut server = Self { command: Box::new(command), ready, running: None, output };
        server.start_again().await;
        server
    }

    /// Starts it with its data after a [`kill`](Self::kill), and waits until it is ready.
    pub(crate) async fn start_again(&mut self) {
        self.launch();
        self.ready().await;
    }

    /// Waits until it is ready.
    pub(crate) async fn ready(&mut self) {
        within("the server to be ready", async {
            while !self.is_ready() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// Starts it without waiting.
    pub(crate) fn launch(&mut self) {
        use std::os::unix::process::CommandExt;
        assert!(self.running.is_none(), "the server runs already");
        let file = OpenOptions::new().append(true).create(true).open(&self.output).unwrap();
        let began = file.metadata().unwrap().len();
        let mut command = (self.command)();
        // A group of its own, so that its children end with it.
        command.process_group(0).stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let script = format!("cat >/dev/null; kill -s KILL -- -{}", child.id());
        let mut watch = Command::new("sh");
        watch.args(["-c", &script]).process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        self.running = Some(Running { child, watch: watch.spawn().unwrap(), began });
    }

    fn is_ready(&mut self) -> bool {
        let running = self.running.as_mut().expect("the server runs");
        if let Some(status) = running.child.try_wait().unwrap() {
            self.running = None;
            panic!("the server has ended with {status}: {}", self.output());
        }
        match &self.ready {
            Ready::Port(port) => TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok(),
            Ready::Output(text) => {
                let began = running.began;
                self.output()
                    .as_bytes()
                    .get(began as usize..)
                    .is_some_and(|new| String::from_utf8_lossy(new).contains(text.as_str()))
            }
        }
    }

    /// All that the server has written to its standard output and error so far.
    pub(crate) fn output(&self) -> String {
        let mut bytes = Vec::new();
        File::open(&self.output).unwrap().read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// SIGKILL, to all its processes. Returns when it is gone.
    pub(crate) fn kill(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        // The watch first: afterwards another process may have the number.
        let _ = running.watch.kill();
        let _ = running.watch.wait();
        signal("KILL", running.child.id());
        let _ = running.child.wait();
    }

    /// SIGTERM. Returns when it is gone.
    pub(crate) async fn stop(&mut self) {
        signal("TERM", self.id());
        within("the server to stop", async {
            while self.running.as_mut().unwrap().child.try_wait().unwrap().is_none() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        self.kill();
    }

    /// Sends another signal, such as `USR2`.
    pub(crate) fn signal(&self, name: &str) {
        signal(name, self.id());
    }

    /// SIGSTOP: it does nothing until [`thaw`](Self::thaw), and its connections stay open. Returns when it has stopped: a
    /// thread that runs at the time of the signal goes on for a moment.
    pub(crate) fn freeze(&self) {
        signal("STOP", self.id());
        let began = Instant::now();
        while !is_stopped(self.id()) {
            assert!(began.elapsed() < PATIENCE, "it does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn thaw(&self) {
        signal("CONT", self.id());
    }

    /// The id of its process.
    pub(crate) fn id(&self) -> u32 {
        self.running.as_ref().expect("the server runs").child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal to a process and its children. A shell has `kill` built in; a small machine may have no other.
fn signal(signal: &str, group: u32) {
    let status =
        Command::new("sh").args(["-c", &format!("kill -s {signal} -- -{group}")]).stderr(Stdio::null()).status();
    assert!(status.unwrap().success() || signal == "KILL", "cannot send {signal}");
}

/// Whether each thread of the processes of a group has stopped.
fn is_stopped(group: u32) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let of_group = processes.filter(|path| state(path).is_some_and(|(_, of)| of == group));
    let threads = of_group.flat_map(|path| std::fs::read_dir(path.join("task")).into_iter().flatten());
    // One that has ended meanwhile has no state, or is a zombie.
    threads.filter_map(|entry| state(&entry.unwrap().path())).all(|(state, _)| ["T", "Z", "X"].contains(&&*state))
}

/// The state of a process or thread, and its group: proc_pid_stat(5).
fn state(path: &Path) -> Option<(String, u32)> {
    let stat = std::fs::read_to_string(path.join("stat")).ok()?;
    // The name, in parentheses, may have blanks.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
}

/// The address of a port of this machine.
pub(crate) fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
