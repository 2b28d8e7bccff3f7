//! Connections that webhooks share, of a kind that the test defines, to a real server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::join_all;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tower_webhook::config::{BuildContext, BuildError, Key};
use tower_webhook::event::{Ack, DeliverError, DeliverErrorKind, Delivery};
use tower_webhook::module::connection::{ConnectionContext, ConnectionKind, Shared};
use tower_webhook::module::{ConfigModule, Module};
use tower_webhook::{Change, OnInvalid, Receiver, Registry, receiver};

use crate::support::driven::{Driver, connection, delete, put, webhook};
use crate::support::{ask, eventually, post, target, within};

/// A server that greets each connection, and answers each line on it.
struct Server {
    address: SocketAddr,
    made: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    lines: Arc<AtomicUsize>,
    mood: watch::Sender<Mood>,
}

#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Friendly,
    /// Sends nothing for now.
    Silent,
    /// Hangs up.
    Busy,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (mood, moods) = watch::channel(Mood::Friendly);
        let server = Self {
            address: listener.local_addr().unwrap(),
            made: Arc::default(),
            open: Arc::default(),
            lines: Arc::default(),
            mood,
        };
        let (made, open, lines) = (Arc::clone(&server.made), Arc::clone(&server.open), Arc::clone(&server.lines));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                made.fetch_add(1, Ordering::SeqCst);
                open.fetch_add(1, Ordering::SeqCst);
                let (open, lines, moods) = (Arc::clone(&open), Arc::clone(&lines), moods.clone());
                tokio::spawn(async move {
                    serve(stream, &lines, moods).await;
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        server
    }

    /// The configuration of a connection to the server.
    fn connection(&self, rest: &str) -> String {
        format!(r#"{{"type": "line", "address": "{}"{rest}}}"#, self.address)
    }

    fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }

    async fn has_open(&self, count: usize) {
        eventually("the connections to the server", async || self.open.load(Ordering::SeqCst) == count).await;
    }
}

/// Returns when the connection is closed.
async fn serve(stream: TcpStream, lines: &AtomicUsize, mut moods: watch::Receiver<Mood>) {
    let mut stream = BufReader::new(stream);
    loop {
        let Ok(mood) = moods.wait_for(|mood| *mood != Mood::Silent).await.map(|mood| *mood) else { return };
        if mood == Mood::Busy || stream.write_all(b"ok\n").await.is_err() {
            return;
        }
        match stream.read_line(&mut String::new()).await {
            Ok(1..) => drop(lines.fetch_add(1, Ordering::SeqCst)),
            Ok(0) | Err(_) => return,
        }
    }
}

/// A kind of connections to a [`Server`].
#[derive(Deserialize)]
struct Line {
    address: SocketAddr,
    #[serde(default)]
    _password: String,
}

fn broken(error: impl std::fmt::Display) -> DeliverError {
    DeliverError::new(DeliverErrorKind::Connect, error.to_string())
}

async fn heard(stream: &mut BufReader<TcpStream>) -> Result<(), DeliverError> {
    match stream.read_line(&mut String::new()).await.map_err(broken)? {
        0 => Err(broken("it hung up")),
        _ => Ok(()),
    }
}

/// One delivery at a time has the stream.
struct Session {
    turn: Semaphore,
    stream: Mutex<Option<BufReader<TcpStream>>>,
}

impl ConnectionKind for Line {
    const TYPE: &'static str = "line";

    type Config = Self;

    type Client = Session;

    fn build(config: Self, _: &ConnectionContext<'_>) -> Result<Self, BuildError> {
        Ok(config)
    }

    async fn connect(&self) -> Result<Self::Client, DeliverError> {
        let mut stream = BufReader::new(TcpStream::connect(self.address).await.map_err(broken)?);
        heard(&mut stream).await?;
        Ok(Session { turn: Semaphore::new(1), stream: Mutex::new(Some(stream)) })
    }
}

/// Sends a line for each event.
struct Lines {
    line: Shared<Line>,
}

#[derive(Deserialize)]
struct Nothing {}

impl Module for Lines {
    async fn deliver(&self, delivery: Delivery) -> Result<Ack, DeliverError> {
        let client = self.line.client().await?;
        let _turn = client.turn.acquire().await;
        let mut stream = client.stream.lock().unwrap().take().ok_or_else(|| broken("it is broken"))?;
        stream.write_all(&[delivery.body(), &b"\n"[..]].concat()).await.map_err(broken)?;
        heard(&mut stream).await?;
        *client.stream.lock().unwrap() = Some(stream);
        Ok(Ack::Delivered)
    }
}

impl ConfigModule for Lines {
    const NAME: &'static str = "lines";
    type Config = Nothing;

    fn build(_: Nothing, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        Ok(Self { line: cx.connection()? })
    }
}

fn registry() -> Registry {
    Registry::builtin()
        .connection::<Line>()
        .module::<Lines>()
        .variables(|name| matches!(name, "PASSWORD" | "OTHER").then(|| "hunter2".to_owned()))
}

fn driver(on_invalid: OnInvalid) -> (Driver, Receiver) {
    let driver = Driver::new(registry(), on_invalid);
    let receiver = receiver(driver.store.clone());
    (driver, receiver)
}

fn bytes(json: &str) -> Bytes {
    Bytes::copy_from_slice(json.as_bytes())
}

async fn status(receiver: &Receiver, path: &str) -> u16 {
    ask(receiver, post(path, "{}")).await.status.as_u16()
}

fn refusal(driver: &Driver, key: &Key) -> Option<String> {
    let snapshot = driver.store.snapshot();
    let mut refusals = snapshot.refusals().filter(|(other, _)| *other == key);
    refusals.next().map(|(_, refusal)| refusal.reason().to_owned())
}

const LINES: &str = r#"{"module": "lines", "connection": "c"}"#;

#[tokio::test]
async fn one_client_is_made_by_the_first_delivery_and_shared_by_all() {
    let server = Server::start().await;
    let (mut driver, receiver) = driver(OnInvalid::Keep);
    let keys: Vec<_> = (0..20).map(|n| (if n % 2 == 0 { "shop" } else { "blog" }, format!("w{n}"))).collect();
    let webhooks = keys.iter().map(|(namespace, id)| (webhook(namespace, id), bytes(LINES)));
    let of_connection = (connection("c"), bytes(&server.connection("")));
    driver.replace(webhooks.chain([of_connection]).collect()).await;
    assert_eq!((server.made(), driver.store.snapshot().counts().webhooks), (0, 20), "nothing is opened to compile");

    // All deliveries start at once, while the server does not greet.
    server.mood.send_replace(Mood::Silent);
    let paths: Vec<_> = keys.iter().map(|(namespace, id)| format!("/{namespace}/{id}")).collect();
    let deliveries = join_all(paths.iter().map(|path| status(&receiver, path)));
    let begin = async {
        server.has_open(1).await;
        server.mood.send_replace(Mood::Friendly);
    };
    let (statuses, ()) = within("the deliveries", async { tokio::join!(deliveries, begin) }).await;
    assert_eq!(statuses, [200; 20]);
    assert_eq!((server.made(), server.lines.load(Ordering::SeqCst)), (1, 20));
}

#[tokio::test]
async fn a_client_is_kept_while_the_bytes_of_its_connection_stay() {
    let server = Server::start().await;
    let (mut driver, receiver) = driver(OnInvalid::Keep);
    let of_connection = || (connection("c"), bytes(&server.connection("")));
    driver.replace(vec![(webhook("shop", "a"), bytes(LINES)), of_connection()]).await;
    assert_eq!(status(&receiver, "/shop/a").await, 200);

    let other = r#"{"module": "lines", "connection": "c", "metadata": 1}"#;
    driver.put(webhook("shop", "a"), other).await;
    driver.put(webhook("shop", "b"), LINES).await;
    driver.delete(webhook("shop", "a")).await;
    driver.apply(vec![put(webhook("shop", "a"), LINES), delete(webhook("shop", "b"))]).await;
    driver.put(webhook("shop", "a"), "{").await;
    driver.put(connection("c"), r#"{"type": "line", "adress": "?"}"#).await;
    driver.replace(vec![of_connection(), (webhook("shop", "a"), bytes("["))]).await;
    driver.put(connection("d"), &server.connection("")).await;
    driver.replace(vec![(webhook("shop", "a"), bytes(other)), of_connection()]).await;
    assert_eq!(status(&receiver, "/shop/a").await, 200);
    assert_eq!(server.made(), 1);

    driver.put(connection("c"), &server.connection(" ")).await;
    assert_eq!(status(&receiver, "/shop/a").await, 200);
    assert_eq!(server.made(), 2, "its bytes have changed");
    server.has_open(1).await;
}

#[tokio::test]
async fn a_client_is_closed_when_nobody_names_its_connection() {
    let server = Server::start().await;
    let (mut driver, receiver) = driver(OnInvalid::Keep);
    driver.replace(vec![(webhook("shop", "a"), bytes(LINES)), (connection("c"), bytes(&server.connection("")))]).await;
    let discard = r#"{"module": "discard"}"#;
    let everything = (connection("c"), bytes(&server.connection("")));
    for (round, change) in ["delete", "change", "list", "connection"].into_iter().enumerate() {
        driver.apply(vec![put(webhook("shop", "a"), LINES), put(connection("c"), &server.connection(""))]).await;
        assert_eq!(status(&receiver, "/shop/a").await, 200);
        assert_eq!(server.made(), round + 1);
        server.has_open(1).await;
        match change {
            "delete" => driver.delete(webhook("shop", "a")).await,
            "change" => driver.put(webhook("shop", "a"), discard).await,
            "list" => driver.replace(vec![everything.clone()]).await,
            _ => driver.apply(vec![delete(webhook("shop", "a")), delete(connection("c"))]).await,
        }
        // This thread has cached the previous configuration until its next read.
        server.has_open(0).await;
    }
}

/// A kind whose client panics when it is dropped, and its module.
struct Fragile;

struct Shards;

impl Drop for Shards {
    fn drop(&mut self) {
        panic!("the client is dropped");
    }
}

impl ConnectionKind for Fragile {
    const TYPE: &'static str = "fragile";

    type Config = Nothing;

    type Client = Shards;

    fn build(_: Nothing, _: &ConnectionContext<'_>) -> Result<Self, BuildError> {
        Ok(Self)
    }

    async fn connect(&self) -> Result<Shards, DeliverError> {
        Ok(Shards)
    }
}

struct Handling(Shared<Fragile>);

impl Module for Handling {
    async fn deliver(&self, _: Delivery) -> Result<Ack, DeliverError> {
        self.0.client().await.map(|_| Ack::Delivered)
    }
}

impl ConfigModule for Handling {
    const NAME: &'static str = "handling";
    type Config = Nothing;

    fn build(_: Nothing, cx: &BuildContext<'_>) -> Result<Self, BuildError> {
        Ok(Self(cx.connection()?))
    }
}

#[tokio::test]
async fn a_client_that_panics_when_it_is_dropped_stops_no_configuration() {
    let server = Server::start().await;
    let registry = registry().connection::<Fragile>().module::<Handling>();
    let mut driver = Driver::new(registry, OnInvalid::Keep);
    let receiver = receiver(driver.store.clone());
    let handling = r#"{"module": "handling", "connection": "f"}"#;
    driver
        .replace(vec![(connection("f"), bytes(r#"{"type": "fragile"}"#)), (webhook("shop", "f"), bytes(handling))])
        .await;
    assert_eq!(status(&receiver, "/shop/f").await, 200);
    driver.put(connection("c"), &server.connection("")).await;
    driver.put(webhook("shop", "a"), LINES).await;
    assert_eq!(status(&receiver, "/shop/a").await, 200);

    // One change closes both clients.
    driver.apply(vec![delete(webhook("shop", "f")), delete(webhook("shop", "a"))]).await;
    server.has_open(0).await;
    driver.put(webhook("shop", "a"), LINES).await;
    assert_eq!([status(&receiver, "/shop/a").await, status(&receiver, "/shop/f").await], [200, 404]);
}

#[tokio::test]
async fn a_delivery_that_runs_keeps_the_client_that_it_uses() {
    let server = Server::start().await;
    let (mut driver, receiver) = driver(OnInvalid::Keep);
    driver.replace(vec![(webhook("shop", "a"), bytes(LINES)), (connection("c"), bytes(&server.connection("")))]).await;
    assert_eq!(status(&receiver, "/shop/a").await, 200);
    server.mood.send_replace(Mood::Silent);
    let change = async {
        eventually("the line", async || server.lines.load(Ordering::SeqCst) == 2).await;
        driver.delete(webhook("shop", "a")).await;
        server.mood.send_replace(Mood::Friendly);
    };
    let (status, ()) = within("the delivery", async { tokio::join!(status(&receiver, "/shop/a"), change) }).await;
    assert_eq!(status, 200);
    server.has_open(0).await;
}

#[tokio::test]
async fn a_client_that_could_not_be_made_is_tried_again_by_the_next_delivery() {
    let server = Server::start().await;
    let (mut driver, receiver) = driver(OnInvalid::Keep);
    driver.replace(vec![(webhook("shop", "a"), bytes(LINES)), (connection("c"), bytes(&server.connection("")))]).await;
    for round in 1..=3 {
        server.mood.send_replace(Mood::Silent);
        let deliveries = join_all((0..5).map(|_| status(&receiver, "/shop/a")));
        let end = async {
            server.has_open(1).await;
            server.mood.send_replace(Mood::Busy);
        };
        let (statuses, ()) = within("the deliveries", async { tokio::join!(deliveries, end) }).await;
        assert_eq!(statuses, [502; 5]);
        assert_eq!(server.made(), round, "deliveries that wait for one attempt share its outcome");
        server.has_open(0).await;
    }
    server.mood.send_replace(Mood::Friendly);
    assert_eq!([status(&receiver, "/shop/a").await, status(&receiver, "/shop/a").await], [200; 2]);
    assert_eq!(server.made(), 4);
}

#[tokio::test]
async fn a_connection_says_which_namespaces_may_name_it() {
    let server = Server::start().await;
    let (mut driver, receiver) = driver(OnInvalid::Keep);
    let keys = [webhook("shop", "a"), webhook("blog", "a")];
    let webhooks = keys.clone().map(|key| (key, bytes(LINES)));
    let allowing = |list: &str| server.connection(list);
    driver.replace(webhooks.into_iter().chain([(connection("c"), bytes(&allowing("")))]).collect()).await;
    for (list, refused) in [
        (r#", "allowed_namespaces": ["shop"]"#, [false, true]),
        (r#", "allowed_namespaces": ["shop", "blog"]"#, [false, false]),
        (r#", "allowed_namespaces": []"#, [true, true]),
        ("", [false, false]),
    ] {
        driver.put(connection("c"), &allowing(list)).await;
        assert_eq!(refusal(&driver, &connection("c")), None);
        let reasons = keys.clone().map(|key| refusal(&driver, &key));
        assert_eq!(reasons.clone().map(|reason| reason.is_some()), refused, "{list}");
        for reason in reasons.into_iter().flatten() {
            assert_eq!(reason, "connection: `allowed_namespaces` of the connection `c` does not list this namespace");
        }
    }
    assert_eq!([status(&receiver, "/shop/a").await, status(&receiver, "/blog/a").await], [200; 2]);
}

/// How a test delivers a configuration that differs in some keys.
#[derive(Clone, Copy, Debug)]
enum By {
    Change,
    Replacement,
}

/// Changes the content of the source.
async fn change(driver: &mut Driver, by: By, held: &mut BTreeMap<Key, Bytes>, changes: &[(&Key, Option<&str>)]) {
    for (key, value) in changes {
        match value {
            Some(value) => drop(held.insert((*key).clone(), bytes(value))),
            None => drop(held.remove(*key)),
        }
    }
    match by {
        By::Change => {
            let change = |&(key, value): &(&Key, Option<&str>)| Change { key: key.clone(), value: value.map(bytes) };
            driver.apply(changes.iter().map(change).collect()).await;
        }
        By::Replacement => driver.replace(held.clone().into_iter().collect()).await,
    }
}

#[tokio::test]
async fn a_connection_that_is_taken_away_is_not_used_on_by_a_last_good_value() {
    let server = Server::start().await;
    let (shop, blog, c) = (webhook("shop", "a"), webhook("blog", "a"), connection("c"));
    let shops = server.connection(r#", "allowed_namespaces": ["shop"]"#);
    let [bad, elsewhere] = ["{", r#"{"module": "lines", "connection": "elsewhere"}"#];
    for by in [By::Change, By::Replacement] {
        // Either the newest value of `blog/a` still names the connection, or its last good one does.
        for newest in [LINES, bad, elsewhere] {
            for (taken, of_shop) in [(Some(&*shops), 200), (None, 503)] {
                let (mut driver, receiver) = driver(OnInvalid::Keep);
                let mut held = BTreeMap::new();
                let everything = [(&shop, Some(LINES)), (&blog, Some(LINES)), (&c, Some(&*server.connection("")))];
                change(&mut driver, By::Replacement, &mut held, &everything).await;
                change(&mut driver, by, &mut held, &[(&blog, Some(newest))]).await;
                assert_eq!(status(&receiver, "/blog/a").await, 200, "one that never was there takes nothing away");

                change(&mut driver, by, &mut held, &[(&c, taken)]).await;
                let statuses = [status(&receiver, "/shop/a").await, status(&receiver, "/blog/a").await];
                assert_eq!(statuses, [of_shop, 503], "{by:?} {newest} {taken:?}");
                assert!(refusal(&driver, &blog).is_some());

                change(&mut driver, by, &mut held, &[(&c, Some(&server.connection("")))]).await;
                let of_blog = if newest == LINES { 200 } else { 503 };
                let statuses = [status(&receiver, "/shop/a").await, status(&receiver, "/blog/a").await];
                assert_eq!(statuses, [200, of_blog], "{by:?} {newest} {taken:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_last_good_value_does_not_use_a_replaced_connection() {
    let (old, new) = (Server::start().await, Server::start().await);
    let (a, b, c) = (webhook("shop", "a"), webhook("shop", "b"), connection("c"));
    for by in [By::Change, By::Replacement] {
        for at_once in [false, true] {
            let (mut driver, receiver) = driver(OnInvalid::Keep);
            let mut held = BTreeMap::new();
            let everything = [(&a, Some(LINES)), (&b, Some(LINES)), (&c, Some(&*old.connection("")))];
            change(&mut driver, By::Replacement, &mut held, &everything).await;
            let new_value = new.connection("");
            if at_once {
                change(&mut driver, by, &mut held, &[(&a, Some("{")), (&c, Some(&new_value))]).await;
            } else {
                change(&mut driver, by, &mut held, &[(&a, Some("{"))]).await;
                // A connection whose newest value is refused is used as before.
                change(&mut driver, by, &mut held, &[(&c, Some("["))]).await;
                assert_eq!(status(&receiver, "/shop/a").await, 200);
                change(&mut driver, by, &mut held, &[(&a, Some("{ "))]).await;
                assert_eq!(status(&receiver, "/shop/a").await, 200);
                change(&mut driver, by, &mut held, &[(&c, Some(&new_value))]).await;
            }
            let lines = old.lines.load(Ordering::SeqCst);
            let statuses = [status(&receiver, "/shop/a").await, status(&receiver, "/shop/b").await];
            assert_eq!(statuses, [503, 200], "{by:?}, at once: {at_once}");
            assert_eq!(old.lines.load(Ordering::SeqCst), lines, "nothing goes to the old address");
            old.has_open(0).await;
        }
    }
}

#[tokio::test]
async fn a_variable_that_was_free_for_a_moment_is_not_kept() {
    let server = Server::start().await;
    let (a, c) = (webhook("shop", "a"), connection("c"));
    let uses = r#"{"module": "discard", "metadata": "{$PASSWORD}"}"#;
    let with = server.connection(r#", "_password": "{$PASSWORD}""#);
    for by in [By::Change, By::Replacement] {
        for newest in [uses, "{"] {
            let (mut driver, receiver) = driver(OnInvalid::Keep);
            let mut held = BTreeMap::new();
            change(&mut driver, By::Replacement, &mut held, &[(&a, Some(uses)), (&c, Some(&with))]).await;
            assert_eq!(status(&receiver, "/shop/a").await, 503);
            change(&mut driver, by, &mut held, &[(&c, None)]).await;
            assert_eq!(status(&receiver, "/shop/a").await, 200, "it is a webhook's meanwhile");
            change(&mut driver, by, &mut held, &[(&a, Some(newest))]).await;
            assert_eq!(status(&receiver, "/shop/a").await, 200);
            change(&mut driver, by, &mut held, &[(&c, Some(&with))]).await;
            assert_eq!(status(&receiver, "/shop/a").await, 503, "{by:?} {newest}");
        }
    }
}

#[tokio::test]
async fn the_last_value_of_a_key_that_is_delivered_twice_counts() {
    let server = Server::start().await;
    let (a, b, c) = (webhook("shop", "a"), webhook("shop", "b"), connection("c"));
    let of = |n: usize| match n {
        0 => r#"{"module": "discard", "metadata": 0}"#,
        1 => r#"{"module": "discard", "metadata": "{$OTHER:1}"}"#,
        2 => r#"{"module": "lines", "connection": "c", "metadata": 2}"#,
        _ => "{",
    };
    let connections = [r#"{"type": "line"}"#.to_owned(), server.connection("")];
    for (first, last) in (0..4).flat_map(|first| (0..4).map(move |last| (first, last))) {
        let (mut driver, _) = driver(OnInvalid::Keep);
        let values = [first, last].map(|n| (a.clone(), bytes(of(n))));
        let connections = connections.each_ref().map(|json| (c.clone(), bytes(json)));
        driver.replace(values.into_iter().chain(connections).collect()).await;
        let mut fresh = Driver::new(registry(), OnInvalid::Keep);
        fresh.replace(vec![(a.clone(), bytes(of(last))), (c.clone(), bytes(&server.connection("")))]).await;
        let found = |driver: &Driver| {
            let snapshot = driver.store.snapshot();
            let metadata = snapshot.webhook(&target("shop", "a")).map(|webhook| webhook.metadata().cloned());
            (metadata, refusal(driver, &a), refusal(driver, &c), snapshot.counts())
        };
        assert_eq!(found(&driver), found(&fresh), "{} and {}", of(first), of(last));
        // The dependencies of the webhook are tracked.
        driver.apply(vec![delete(connection("c")), put(b.clone(), of(3))]).await;
        fresh.apply(vec![delete(connection("c")), put(b.clone(), of(3))]).await;
        assert_eq!(found(&driver), found(&fresh), "{} and {}", of(first), of(last));
    }
    let (mut driver, _) = driver(OnInvalid::Keep);
    driver.replace(vec![(c.clone(), bytes(&connections[1])), (c.clone(), bytes(&connections[0]))]).await;
    assert_eq!(driver.store.snapshot().counts().connections, 0, "the first one is no last good value");
}

#[tokio::test]
async fn a_variable_of_a_connection_is_not_for_webhooks() {
    let server = Server::start().await;
    let (secret, other) = (webhook("shop", "a"), webhook("shop", "b"));
    let of = |variable: &str| format!(r#"{{"module": "discard", "metadata": "{{${variable}:x}}"}}"#);
    let with = |variable: &str| server.connection(&format!(r#", "_password": "{{${variable}}}""#));
    let belongs = "metadata: the variable `PASSWORD` belongs to a connection; use another one";
    for on_invalid in [OnInvalid::Keep, OnInvalid::Fence] {
        let (mut driver, receiver) = driver(on_invalid);
        driver.replace(vec![(secret.clone(), bytes(&of("PASSWORD"))), (other.clone(), bytes(&of("OTHER")))]).await;
        assert_eq!(driver.store.snapshot().counts().refused, 0);

        driver.put(connection("c"), &with("PASSWORD")).await;
        assert_eq!(refusal(&driver, &secret).unwrap(), belongs);
        assert_eq!(refusal(&driver, &other), None);
        assert_eq!([status(&receiver, "/shop/a").await, status(&receiver, "/shop/b").await], [503, 200]);
        driver.put(webhook("shop", "new"), &of("PASSWORD")).await;
        assert_eq!(status(&receiver, "/shop/new").await, 503);
        driver.delete(webhook("shop", "new")).await;

        // Everything is delivered at once, webhooks first.
        let everything = |json: &str| {
            let webhooks = [(secret.clone(), bytes(&of("PASSWORD"))), (other.clone(), bytes(&of("OTHER")))];
            webhooks.into_iter().chain([(connection("c"), bytes(json))]).collect::<Vec<_>>()
        };
        driver.replace(everything(&with("PASSWORD"))).await;
        assert_eq!(refusal(&driver, &secret).unwrap(), belongs);

        // A refused connection keeps its variable; this value is not even JSON.
        driver.put(connection("c"), &with("PASSWORD").replace(',', ";")).await;
        assert!(refusal(&driver, &connection("c")).is_some());
        assert_eq!(refusal(&driver, &secret).unwrap(), belongs);

        driver.put(connection("c"), &with("OTHER")).await;
        assert_eq!((refusal(&driver, &secret), refusal(&driver, &other).is_some()), (None, true));
        assert_eq!(status(&receiver, "/shop/a").await, 200);
        driver.delete(connection("c")).await;
        assert_eq!(driver.store.snapshot().counts().refused, 0);
        let found = driver.store.snapshot().webhook(&target("shop", "b")).unwrap().metadata().cloned();
        assert_eq!(found.unwrap(), "hunter2", "it is a webhook's again");
        driver.replace(everything(&with("PASSWORD"))).await;
        driver.replace(everything(r#"{"type": "line"}"#)).await;
        let kept = (on_invalid == OnInvalid::Keep).then(|| belongs.to_owned());
        assert_eq!(refusal(&driver, &secret), kept, "the last good connection uses it");
    }
}

#[tokio::test]
async fn a_connection_that_is_refused_stops_nothing_else() {
    let server = Server::start().await;
    let (mut driver, receiver) = driver(OnInvalid::Keep);
    let named = |name: &str| bytes(&format!(r#"{{"module": "lines", "connection": "{name}"}}"#));
    driver
        .replace(vec![
            (
                connection("rabbit"),
                bytes(r#"{"type": "clickhouse", "host": "10.0.0.1", "port": 9000, "pass": "hunter2"}"#),
            ),
            (connection("lime"), bytes(r#"{"type": "lime"}"#)),
            (connection("web"), bytes(r#"{"type": "http", "url": "https://example.com/"}"#)),
            (connection("c"), bytes(&server.connection(""))),
            (webhook("shop", "a"), named("rabbit")),
            (webhook("shop", "b"), named("web")),
            (webhook("shop", "c"), named("c")),
        ])
        .await;
    for (key, reason) in [
        (
            connection("rabbit"),
            "type: the connection type `clickhouse` is not supported yet; the known ones are `activemq`, `http`, ",
        ),
        (connection("lime"), "type: there is no connection type `lime`, did you mean `line`?"),
        (webhook("shop", "a"), "connection: there is no valid connection `rabbit`; add it, or correct its value"),
        (webhook("shop", "b"), "connection: `web` is of the type `http`, and this module needs the type `line`"),
    ] {
        // The known ones depend on the features.
        let found = refusal(&driver, &key).unwrap_or_default();
        assert!(found.starts_with(reason), "{found}");
    }
    assert_eq!(driver.store.snapshot().counts().refused, 4);
    assert_eq!([status(&receiver, "/shop/a").await, status(&receiver, "/shop/c").await], [503, 200]);
}
