//! Keys that are not used, and prefixes that hold nothing of use. The gateway as a process.

use serde_json::{Value, json};

use crate::support::against_each_etcd;
use crate::support::etcd::{Etcd, Version};
use crate::support::gateway::Gateway;
use crate::support::stamped;

against_each_etcd!(each_ignored_key_is_named_once_with_its_right_form);

fn ignored<'a>(status: &'a Value, key: &str) -> Option<&'a Value> {
    status["ignored"].as_array()?.iter().find(|ignored| ignored["key"] == key)
}

async fn each_ignored_key_is_named_once_with_its_right_form(version: Version) {
    let etcd = Etcd::start(version).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    etcd.put("default/webhooks/b\n", stamped(1)).await;
    etcd.put("default/webhook/c", stamped(1)).await;
    let gateway = Gateway::with(&[("ETCD_ENDPOINTS", &etcd.endpoint())]).await;
    gateway.until("it is not live", |status| status["state"] == "healthy" && status["webhooks"] == 1).await;
    // While it runs, too, and again and again.
    for n in 0..5 {
        etcd.put("default/connections/db", stamped(n)).await;
        etcd.put("default/webhook/c", stamped(n)).await;
        etcd.delete("default/webhooks/b\n").await;
        etcd.put("default/webhooks/b\n", stamped(n)).await;
    }
    gateway.until("the keys are not counted", |status| status["ignored_keys"] == 3).await;
    let status = gateway.status().await.unwrap();
    let line_break = json!({
        "key": "/cwm/default/webhooks/b\\n", "reason": "it ends in a line break", "hint": "/cwm/default/webhooks/b",
    });
    assert_eq!(ignored(&status, "/cwm/default/webhooks/b\\n"), Some(&line_break), "{status}");
    for (key, hint) in [
        ("/cwm/default/webhook/c", "/cwm/default/webhooks/c"),
        ("/cwm/default/connections/db", "/cwm/global/connections/db"),
    ] {
        assert_eq!(ignored(&status, key).unwrap()["hint"], hint, "{status}");
        let lines = gateway.log(&format!("key=\"{key}\""));
        assert!(lines.len() == 1 && lines[0].contains(" WARN ") && lines[0].contains(hint), "{lines:?}");
    }
    assert_eq!(gateway.log("it ends in a line break").len(), 1);

    for key in ["default/webhooks/b\n", "default/webhook/c", "default/connections/db"] {
        etcd.delete(key).await;
    }
    gateway
        .until("they do not go", |status| status["ignored_keys"] == 0 && status["ignored"] == Value::Array(Vec::new()))
        .await;
    // More than are listed.
    for chunk in 0..5 {
        etcd.put_all((0..100).map(|n| (format!("default/webhook/{chunk}-{n}"), stamped(n)))).await;
    }
    gateway.until("they are not counted", |status| status["ignored_keys"] == 500).await;
    assert_eq!(gateway.status().await.unwrap()["ignored"].as_array().unwrap().len(), 100);
    assert!(gateway.log("a key of the configuration is ignored").len() <= 100);
    assert_eq!(gateway.log("more keys of the configuration are ignored").len(), 1);
}
