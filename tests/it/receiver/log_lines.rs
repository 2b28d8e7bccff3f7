//! Log lines about successive changes.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tower_webhook::config::{Key, WebhookKey};
use tower_webhook::{Change, OnInvalid, Registry};

use crate::support::driven::Driver;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    /// Level, key and change of the lines since the last call.
    fn changes(&self) -> Vec<String> {
        let text = std::mem::take(&mut *self.0.lock().unwrap());
        let line = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            let of = |field: &str| line["fields"][field].as_str().unwrap_or("-").to_owned();
            let known = ["configuration loaded", "configuration changed", "configuration refused"];
            let is_known = known.contains(&of("message").as_str());
            is_known.then(|| format!("{} {} {}", line["level"].as_str().unwrap(), of("key"), of("change")))
        };
        String::from_utf8(text).unwrap().lines().filter_map(line).collect()
    }
}

fn webhook(id: &str) -> Key {
    Key::Webhook(WebhookKey::new("ns", id).unwrap())
}

#[tokio::test]
async fn each_key_that_a_revision_changes_leaves_one_line() {
    let sink = Sink::default();
    let writer = sink.clone();
    let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
    // With a single subscriber, tracing asks only the first thread that reaches a log line whether it is wanted, and
    // that thread may belong to another test.
    let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry());
    let _here = tracing::subscriber::set_default(subscriber);
    let mut driver = Driver::new(Registry::builtin(), OnInvalid::Keep);
    let (good, other, wrong) =
        (r#"{"module": "discard"}"#, r#"{"module": "log"}"#, r#"{"module": "discard", "connection": "none"}"#);
    driver.replace(vec![(webhook("a"), good.into())]).await;
    assert_eq!(sink.changes(), ["INFO - -"]);
    driver.put(webhook("b"), good).await;
    driver.put(webhook("b"), good).await;
    driver.put(webhook("b"), other).await;
    assert_eq!(sink.changes(), ["INFO ns/webhooks/b added", "INFO ns/webhooks/b changed"]);
    driver.put(webhook("b"), "{").await;
    driver.put(webhook("b"), "{").await;
    driver.put(webhook("b"), other).await;
    assert_eq!(sink.changes(), ["WARN ns/webhooks/b -", "INFO ns/webhooks/b changed"]);
    let delete = |id: &str| Change { key: webhook(id), value: None };
    driver.apply(vec![delete("b"), delete("nothing")]).await;
    assert_eq!(sink.changes(), ["INFO ns/webhooks/b removed"]);

    // A webhook that names a connection is reported when the connection comes.
    driver.put(webhook("c"), wrong).await;
    assert_eq!(sink.changes(), ["WARN ns/webhooks/c -"]);
    let connection = Key::connection("none").unwrap();
    driver.put(connection.clone(), r#"{"type": "http", "url": "http://example.com/"}"#).await;
    assert_eq!(sink.changes(), ["INFO global/connections/none added", "INFO ns/webhooks/c changed"]);
    driver.apply(vec![Change { key: connection, value: None }]).await;
    assert_eq!(sink.changes(), ["WARN ns/webhooks/c -", "INFO global/connections/none removed"]);

    let many = |value: Option<&'static str>| {
        (0..50).map(move |nth| Change { key: webhook(&format!("m{nth}")), value: value.map(Into::into) }).collect()
    };
    driver.apply(many(Some(good))).await;
    driver.apply(many(Some(good))).await;
    driver.apply(many(None)).await;
    assert_eq!(sink.changes(), ["INFO - -", "INFO - -"]);
    // The complete list again, with the same bytes.
    driver.replace(vec![(webhook("a"), good.into()), (webhook("c"), wrong.into())]).await;
    assert_eq!(sink.changes(), [""; 0]);
}
