//! The faults that every module for a broker goes through. A module implements [`Broker`], and its tests call these
//! functions: see README.md for an example.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::certificates::{Certificates, Pair};
use crate::support::client::Message;
use crate::support::proxy::Proxy;
use crate::support::rig::{AT_A_TIME, Rig};
use crate::support::server::Server;
use crate::support::{PATIENCE, SOON, alone, eventually, seat};

/// Tests that `make test` runs, by their names.
macro_rules! short {
    ($($name:ident => $call:expr),+ $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() { $call.await })+
    };
}

/// Tests that only `make test-targets` runs, by their names.
macro_rules! long {
    ($($name:ident => $call:expr),+ $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        #[ignore = "takes long; `make test-targets` runs it"]
        async fn $name() { $call.await })+
    };
}

pub(crate) use {long, short};

/// A broker and the module that sends to it.
pub(crate) trait Broker: Sized {
    /// The kinds of the error when the server has no room: one of these. Empty if the server cannot be filled.
    const FULL: &[&str] = &["unavailable", "throttled"];

    /// Whether the server speaks TLS at [`tls_port`](Self::tls_port).
    const SPEAKS_TLS: bool = true;

    /// Starts an own server, with all that [`webhook`](Self::webhook) needs there and with a user whose password is
    /// [`PASSWORD`]. If there are certificates, it also speaks TLS with the one of the server.
    async fn start(certificates: Option<&Certificates>) -> Self;

    fn server(&mut self) -> &mut Server;

    /// The port of this machine where it speaks without TLS.
    fn port(&self) -> u16;

    /// The port where it speaks TLS.
    fn tls_port(&self) -> u16;

    /// The value of a connection.
    fn connection(&self, access: &Access<'_>) -> Value;

    /// The value of a webhook that delivers over the connection `c`. `id` distinguishes webhooks; all of them deliver
    /// to where [`consume`](Self::consume) reads.
    fn webhook(&self) -> Value;

    /// The same, whose attempts give up after some seconds: some servers say nothing at all when they are full.
    fn impatient(&self) -> Value {
        self.webhook()
    }

    /// The value of a webhook that delivers over the connection `c` to a topic, queue or stream that the server does not
    /// have and that the module does not make. `None` if its server knows no missing one.
    fn unroutable(&self) -> Option<Value>;

    /// Reads all messages that are there, with a client that nobody here wrote.
    async fn consume(&mut self) -> Vec<Message>;

    /// The length of a body that the server refuses for good. `None` if it refuses none.
    fn too_large(&self) -> Option<usize>;

    /// Makes the server refuse messages for want of memory or storage.
    async fn fill(&mut self);

    /// Undoes [`fill`](Self::fill).
    async fn empty(&mut self);

    /// Changes the password of the user.
    async fn change_password(&mut self, password: &str);

    /// Makes the server write to disk what it has confirmed and would lose in a kill: RabbitMQ keeps new queues and users in
    /// memory for a while.
    async fn settle(&mut self) {}
}

/// The password of the user that [`Broker::start`] makes.
pub(crate) const PASSWORD: &str = "s3cret";

/// How to reach a broker.
pub(crate) struct Access<'a> {
    pub(crate) port: u16,
    pub(crate) password: &'a str,
    pub(crate) tls: Option<Tls<'a>>,
}

/// How a client speaks TLS.
pub(crate) struct Tls<'a> {
    /// The authorities that it trusts, in PEM.
    pub(crate) ca: &'a str,
    pub(crate) client: Option<&'a Pair>,
}

impl Access<'static> {
    /// With the right password and without TLS.
    pub(crate) fn at(port: u16) -> Self {
        Self { port, password: PASSWORD, tls: None }
    }
}

/// Bodies that a careless path would change.
fn bodies() -> Vec<Vec<u8>> {
    vec![
        br#"{ "order" : 7,  "text":"as it was sent, \u00e9" , "n": 1e400 }"#.to_vec(),
        (0..=255).collect(),
        Vec::new(),
        b"\0\r\n\r\n\xff\xfe".to_vec(),
        vec![b'x'; 100_000],
    ]
}

/// Adds a key to a webhook's value.
fn with(mut webhook: Value, key: &str, value: Value) -> Value {
    webhook[key] = value;
    webhook
}

fn blob(webhook: Value) -> Value {
    with(webhook, "data_type", json!("blob"))
}

/// A running broker, a receiver, and the connection `c` to it.
async fn begin<B: Broker>() -> (B, Rig) {
    let broker = B::start(None).await;
    let rig = Rig::start().await;
    rig.connection("c", &broker.connection(&Access::at(broker.port()))).await;
    (broker, rig)
}

/// What is delivered and what is accepted arrives byte for byte, with the event's id.
pub(crate) async fn works<B: Broker>() {
    let _seat = seat().await;
    let (mut broker, rig) = begin::<B>().await;
    rig.webhook("delivered", &blob(broker.webhook())).await;
    rig.webhook("accepted", &with(blob(broker.webhook()), "ack", json!("accepted"))).await;
    let mut sent = BTreeMap::new();
    for body in bodies() {
        for (id, status) in [("delivered", 200), ("accepted", 202)] {
            let answer = rig.post(id, body.clone()).await;
            assert_eq!(answer.status, status, "{answer:?} {:?}", rig.dead_letters().await);
            sent.insert(answer.event_id, body.clone());
        }
    }
    rig.drained().await;
    assert_eq!(rig.dead_letters().await, Vec::<String>::new());
    let messages = broker.consume().await;
    let arrived: BTreeMap<_, _> = messages.iter().map(|message| (message.id.clone(), message.body.clone())).collect();
    assert_eq!(arrived.len(), messages.len(), "an event arrived twice");
    assert!(arrived == sent, "sent {:?}, arrived {:?}", lengths(&sent), lengths(&arrived));
}

fn lengths(messages: &BTreeMap<String, Vec<u8>>) -> Vec<(&String, usize)> {
    messages.iter().map(|(id, body)| (id, body.len())).collect()
}

/// The server is killed with SIGKILL while `events` accepted events are delivered, and starts again with its data. All of
/// them arrive, and none twice except those that were under way.
pub(crate) async fn survives_a_kill<B: Broker>(events: usize) {
    let _seat = seat().await;
    let (mut broker, rig) = begin::<B>().await;
    let webhook = with(broker.webhook(), "ack", json!("accepted"));
    // A server may need minutes on a busy machine.
    let retry = json!({"enabled": true, "max_attempts": 20, "initial_delay": 1.0, "max_delay": 30.0});
    rig.webhook("a", &with(webhook, "retry", retry)).await;
    let mut sent = BTreeMap::from([(rig.post("a", "{}").await.event_id, b"{}".to_vec())]);
    rig.drained().await;
    broker.settle().await;
    let (mut number, mut was_killed) = (1, false);
    while number < events {
        let until = events.min(number + 100);
        let body = |number: usize| format!(r#"{{"number": {number}}}"#);
        let answers = join_all((number..until).map(|number| rig.post("a", body(number)))).await;
        for (number, answer) in (number..until).zip(answers) {
            assert_eq!(answer.status, 202, "{answer:?}");
            sent.insert(answer.event_id, body(number).into_bytes());
        }
        number = until;
        if number >= events / 2 && !was_killed {
            was_killed = true;
            eventually("some deliveries", async || rig.waiting() < number - 1).await;
            broker.server().kill();
            broker.server().launch();
        }
    }
    broker.server().ready().await;
    rig.drained().await;
    assert_eq!(rig.dead_letters().await, Vec::<String>::new());
    let messages = broker.consume().await;
    let arrived: BTreeMap<_, _> = messages.iter().map(|message| (message.id.clone(), message.body.clone())).collect();
    let missing = sent.keys().filter(|id| !arrived.contains_key(*id)).count();
    assert_eq!(missing, 0, "of {events} events, {missing} are lost");
    assert!(arrived == sent, "an event has another body, or was not sent");
    let twice = messages.len() - arrived.len();
    println!("{events} events, the server killed once: {twice} arrived twice");
    assert!(twice <= AT_A_TIME, "{twice} events arrived twice, and {AT_A_TIME} were under way");
}

/// A server that is frozen (SIGSTOP) is a timeout, another webhook does not notice, and afterwards deliveries work.
pub(crate) async fn frozen<B: Broker>() {
    let _seat = seat().await;
    let mut broker = B::start(None).await;
    let deadline = Duration::from_secs(3);
    let rig = Rig::patient(deadline).await;
    rig.connection("c", &broker.connection(&Access::at(broker.port()))).await;
    rig.webhook("frozen", &broker.webhook()).await;
    rig.webhook("other", &json!({"module": "discard"})).await;
    works_again(&rig, &broker).await;
    broker.server().freeze();
    let began = Instant::now();
    let hanging = join_all((0..100).map(|_| rig.post("frozen", "{}")));
    let others = async {
        let mut slowest = Duration::ZERO;
        while began.elapsed() < deadline / 2 {
            let answer = rig.post("other", "{}").await;
            assert_eq!(answer.status, 200);
            slowest = slowest.max(answer.took);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        slowest
    };
    let (answers, slowest) = tokio::join!(hanging, others);
    for answer in answers {
        assert_eq!(answer.status, 504, "{answer:?}");
        assert!(answer.took < deadline + SOON, "{answer:?}");
    }
    assert!(slowest < deadline, "a webhook with another module took {slowest:?}");
    // A module may have given up the connection meanwhile.
    rig.attempt(&broker.webhook(), "{}").await.failed_as(&["timeout", "connect"]);
    broker.server().thaw();
    works_again(&rig, &broker).await;
}

/// A connection on which the server says nothing is a timeout, and a webhook with a connection of its own to the same
/// server does not notice.
pub(crate) async fn silent<B: Broker>() {
    let _seat = seat().await;
    let broker = B::start(None).await;
    let rig = Rig::patient(Duration::from_secs(3)).await;
    let proxy = Proxy::before(broker.port()).await;
    rig.connection("c", &broker.connection(&Access::at(proxy.port()))).await;
    rig.connection("d", &broker.connection(&Access::at(broker.port()))).await;
    rig.webhook("other", &with(broker.webhook(), "connection", json!("d"))).await;
    works_again(&rig, &broker).await;
    eventually("the other connection", async || rig.post("other", "{}").await.status == 200).await;
    proxy.silence();
    let silent = broker.webhook();
    let (attempt, answer) = tokio::join!(rig.attempt(&silent, "{}"), rig.post("other", "{}"));
    attempt.failed_as(&["timeout"]);
    assert_eq!(answer.status, 200, "{answer:?}");
    // Also a connection that is new.
    rig.connection("c", &broker.connection(&Access { password: "other", ..Access::at(proxy.port()) })).await;
    rig.attempt(&broker.webhook(), "{}").await.failed_as(&["timeout"]);
    proxy.pass();
    rig.connection("c", &broker.connection(&Access::at(proxy.port()))).await;
    works_again(&rig, &broker).await;
}

/// The connection is reset in the middle of a message. The event is delivered by the next attempt, and no part of a
/// message arrives.
pub(crate) async fn cut_in_the_middle<B: Broker>() {
    let _seat = seat().await;
    let mut broker = B::start(None).await;
    let rig = Rig::start().await;
    let proxy = Proxy::before(broker.port()).await;
    rig.connection("c", &broker.connection(&Access::at(proxy.port()))).await;
    let retry = json!({"enabled": true, "max_attempts": 20, "initial_delay": 0.1, "max_delay": 5});
    let webhook = with(with(blob(broker.webhook()), "ack", json!("accepted")), "retry", retry);
    rig.webhook("a", &webhook).await;
    let mut sent = BTreeMap::new();
    for (number, cut) in [10u64, 1_000, 30_000, 60_000, 99_000].into_iter().enumerate() {
        let answer = rig.post("a", format!("warm {number}")).await;
        sent.insert(answer.event_id, format!("warm {number}").into_bytes());
        rig.drained().await;
        let body = vec![b'0' + number as u8; 100_000];
        proxy.cut_after(cut);
        let answer = rig.post("a", body.clone()).await;
        sent.insert(answer.event_id, body);
        rig.drained().await;
        assert!(proxy.has_cut(), "the connection was not cut after {cut} bytes");
    }
    assert_eq!(rig.dead_letters().await, Vec::<String>::new());
    let arrived: BTreeMap<_, _> =
        broker.consume().await.into_iter().map(|message| (message.id, message.body)).collect();
    assert!(arrived == sent, "sent {:?}, arrived {:?}", lengths(&sent), lengths(&arrived));
}

/// A wrong password is an error of the kind `auth`, and its text does not show the password.
pub(crate) async fn wrong_password<B: Broker>() {
    let _seat = seat().await;
    let (broker, rig) = begin::<B>().await;
    let wrong = Access { password: "hunter2", ..Access::at(broker.port()) };
    rig.connection("c", &broker.connection(&wrong)).await;
    let attempt = rig.answered(&broker.webhook(), "{}").await;
    let reason = attempt.failed_as(&["auth"]);
    println!("wrong password: {reason}");
    assert!(!reason.contains("hunter2"), "{reason}");
    rig.connection("c", &broker.connection(&Access::at(broker.port()))).await;
    works_again(&rig, &broker).await;
}

/// A topic, queue or stream that is missing is an error of the kind `config`.
pub(crate) async fn unroutable<B: Broker>() {
    let _seat = seat().await;
    let (broker, rig) = begin::<B>().await;
    let missing = broker.unroutable().expect("the broker knows missing places");
    let attempt = rig.attempt(&missing, "{}").await;
    println!("unroutable: {}", attempt.failed_as(&["config"]));
    works_again(&rig, &broker).await;
}

/// Over TLS: the right authority works, a foreign one is an error with a clear text, and so is a server without TLS.
pub(crate) async fn foreign_authority<B: Broker>() {
    let _seat = seat().await;
    let certificates = Certificates::new();
    let mut broker = B::start(Some(&certificates)).await;
    let rig = Rig::start().await;
    let access = |ca| Access { port: broker.tls_port(), password: PASSWORD, tls: Some(Tls { ca, client: None }) };
    rig.connection("c", &broker.connection(&access(&certificates.ca))).await;
    let attempt = rig.attempt(&blob(broker.webhook()), vec![b'x'; 70_000]).await;
    attempt.was_delivered();
    rig.connection("c", &broker.connection(&access(&certificates.foreign_ca))).await;
    let refused = rig.attempt(&broker.webhook(), "{}").await;
    let reason = refused.failed_as(&["connect", "auth"]);
    println!("foreign authority: {reason}");
    assert!(reason.to_lowercase().contains("certificate"), "{reason}");
    assert!(refused.took < SOON, "{refused:?}");
    let plain = Access { port: broker.port(), ..access(&certificates.ca) };
    rig.connection("c", &broker.connection(&plain)).await;
    println!("no TLS there: {}", rig.attempt(&broker.webhook(), "{}").await.failed_as(&["connect", "timeout"]));
    let messages = broker.consume().await;
    assert_eq!(messages.iter().map(|message| &message.id).collect::<Vec<_>>(), [&attempt.event_id]);
}

/// A message that is too large for the server is an error of the kind `permanent`, and the others go on.
pub(crate) async fn too_large<B: Broker>() {
    let _seat = seat().await;
    let (broker, rig) = begin::<B>().await;
    let bytes = broker.too_large().expect("the broker refuses large messages");
    rig.attempt(&broker.webhook(), "{}").await.was_delivered();
    let attempt = rig.attempt(&blob(broker.webhook()), vec![b'x'; bytes]).await;
    println!("too large: {}", attempt.failed_as(&["permanent"]));
    works_again(&rig, &broker).await;
}

/// A server without memory or storage: the error says that another attempt may work, in time, and it does.
pub(crate) async fn full<B: Broker>() {
    let _seat = seat().await;
    let (mut broker, rig) = begin::<B>().await;
    rig.attempt(&broker.webhook(), "{}").await.was_delivered();
    broker.fill().await;
    // A server may take a message before it notices.
    let mut attempt = rig.attempt(&broker.impatient(), "{}").await;
    for _ in 0..20 {
        if attempt.error.is_some() {
            break;
        }
        attempt = rig.attempt(&broker.impatient(), "{}").await;
    }
    println!("full: {} after {:?}", attempt.failed_as(B::FULL), attempt.took);
    // Not the deadline of the delivery, which would be a `timeout`.
    assert!(attempt.took < SOON, "{attempt:?}");
    broker.empty().await;
    works_again(&rig, &broker).await;
}

/// The password is changed on the server and then in the configuration: events that were accepted meanwhile arrive.
pub(crate) async fn credentials_change<B: Broker>() {
    let _seat = seat().await;
    let (mut broker, rig) = begin::<B>().await;
    let retry = json!({"enabled": true, "max_attempts": 20, "initial_delay": 0.1, "max_delay": 10, "retryable_errors": ["any"]});
    rig.webhook("a", &with(with(broker.webhook(), "ack", json!("accepted")), "retry", retry)).await;
    let mut sent = vec![rig.post("a", "{}").await.event_id];
    rig.drained().await;
    broker.change_password("another").await;
    broker.settle().await;
    // The old connection may live on; a restart makes the server ask again.
    broker.server().kill();
    broker.server().start_again().await;
    for _ in 0..20 {
        sent.push(rig.post("a", "{}").await.event_id);
    }
    // A client may wait before it connects again.
    let began = Instant::now();
    loop {
        let attempt = rig.attempt_beside(&broker.webhook(), "{}").await;
        attempt.failed_as(&["auth", "connect"]);
        if attempt.error.is_some_and(|error| error.kind == "auth") {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "the login is never refused");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    rig.connection("c", &broker.connection(&Access { password: "another", ..Access::at(broker.port()) })).await;
    rig.drained().await;
    let arrived: Vec<_> = broker.consume().await.into_iter().map(|message| message.id).collect();
    let missing = sent.iter().filter(|id| !arrived.contains(id)).count();
    assert_eq!(missing, 0, "of {} events, {missing} are lost", sent.len());
}

/// While the server is down, a delivery fails within a second as `connect`: many at once, and for as long as it is down.
pub(crate) async fn down<B: Broker>() {
    let _seat = seat().await;
    let (mut broker, rig) = begin::<B>().await;
    rig.webhook("a", &blob(broker.webhook())).await;
    rig.attempt(&broker.webhook(), "{}").await.was_delivered();
    broker.server().kill();
    let (began, mut times) = (Instant::now(), Vec::new());
    while began.elapsed() < Duration::from_secs(4) || times.len() < 10 {
        let attempt = rig.attempt(&broker.webhook(), "{}").await;
        attempt.failed_as(&["connect"]);
        let mut slowest = attempt.took;
        for answer in join_all((0..100).map(|_| rig.post("a", vec![b'x'; 10_000]))).await {
            assert_eq!(answer.status, 502, "{answer:?}");
            slowest = slowest.max(answer.took);
        }
        assert!(slowest < SOON, "{slowest:?}");
        times.push(slowest);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // A busy machine delays a few of them.
    times.sort();
    assert!(times[times.len() / 2] < Duration::from_secs(1), "{times:?}");
    broker.server().start_again().await;
    works_again(&rig, &broker).await;
}

/// A server that is frozen, or down, costs bounded memory: 400 MB are sent to each.
pub(crate) async fn bounded_memory<B: Broker>() {
    // The memory is that of the process, with all of its tests.
    let _alone = alone().await;
    let mut broker = B::start(None).await;
    let rig = Rig::patient(Duration::from_millis(500)).await;
    rig.connection("c", &broker.connection(&Access::at(broker.port()))).await;
    rig.webhook("a", &blob(broker.webhook())).await;
    eventually("a delivery", async || rig.post("a", "x").await.status == 200).await;
    let before = resident_mb();
    for state in ["frozen", "down"] {
        match state {
            "frozen" => broker.server().freeze(),
            _ => broker.server().kill(),
        }
        let mut most = before;
        for _ in 0..20 {
            for answer in join_all((0..40).map(|_| rig.post("a", vec![b'x'; 500_000]))).await {
                assert!([502, 503, 504].contains(&answer.status), "{answer:?}");
            }
            most = most.max(resident_mb());
        }
        println!("400 MB sent to a server that is {state}: {before} MB before, {most} MB at most");
        assert!(most < before + 150, "{before} MB before, {most} MB while it was {state}");
    }
    broker.server().start_again().await;
    eventually("it works again", async || rig.post("a", "x").await.status == 200).await;
}

fn resident_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// A stop waits for the deliveries under way, and what was not begun stays in the queue.
pub(crate) async fn stops_gracefully<B: Broker>() {
    let _seat = seat().await;
    let (mut broker, rig) = begin::<B>().await;
    rig.webhook("a", &with(broker.webhook(), "ack", json!("accepted"))).await;
    let answers = join_all((0..300).map(|_| rig.post("a", "{}"))).await;
    eventually("some deliveries", async || rig.waiting() < 280).await;
    let (took, left) = rig.stop().await;
    assert!(took < SOON, "{took:?}");
    let arrived = broker.consume().await.len();
    assert_eq!(arrived + left, answers.len(), "{left} events are left");
}

/// Waits until a delivery works again: clients wait between their attempts to connect.
pub(crate) async fn works_again<B: Broker>(rig: &Rig, broker: &B) {
    let began = Instant::now();
    loop {
        let attempt = rig.attempt(&broker.webhook(), "{}").await;
        match attempt.error {
            None => break,
            Some(error) if began.elapsed() > PATIENCE => panic!("it does not work again: {error:?}"),
            Some(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    println!("works again after {:?}", began.elapsed());
}
