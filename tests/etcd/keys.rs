//! Keys that are not used, and prefixes without useful keys. The gateway as a process.

use serde_json::{Value, json};

use crate::support::against_each_etcd;
use crate::support::etcd::{Etcd, Version};
use crate::support::gateway::Gateway;
use crate::support::stamped;

against_each_etcd!(
    each_ignored_key_is_named_once_with_its_right_form,
    a_prefix_without_a_webhook_causes_a_warning,
    a_prefix_that_is_certainly_wrong_serves_nothing_and_is_not_ready,
);

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
    // Repeatedly, while the gateway runs.
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
    // More keys than are listed.
    for chunk in 0..5 {
        etcd.put_all((0..100).map(|n| (format!("default/webhook/{chunk}-{n}"), stamped(n)))).await;
    }
    gateway.until("they are not counted", |status| status["ignored_keys"] == 500).await;
    assert_eq!(gateway.status().await.unwrap()["ignored"].as_array().unwrap().len(), 100);
    assert!(gateway.log("a key of the configuration is ignored").len() <= 100);
    assert_eq!(gateway.log("more keys of the configuration are ignored").len(), 1);
}

async fn a_prefix_without_a_webhook_causes_a_warning(version: Version) {
    let etcd = Etcd::start(version).await;
    etcd.put("default/webhook/a", stamped(1)).await;
    let gateway = Gateway::with(&[("ETCD_ENDPOINTS", &etcd.endpoint()), ("ETCD_PREFIX", "/cwm")]).await;
    let warning = "there is no webhook below the prefix /cwm/";
    let warns = |status: &Value| status["source_warnings"].to_string().contains(warning);
    gateway.until("it is not live", |status| status["state"] == "healthy").await;
    gateway.until("there is no warning", warns).await;
    // The prefix may be empty on purpose: webhooks that are added will be served.
    assert_eq!(gateway.get("/ready").await, Some(200));
    // A webhook that does not compile counts as a webhook.
    etcd.put("default/webhooks/a", "nonsense").await;
    gateway.until("the warning stays", |status| !warns(status)).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    gateway.until("it is not served", |status| status["webhooks"] == 1).await;
    etcd.delete("default/webhooks/a").await;
    gateway.until("there is no warning of what was deleted", warns).await;
    assert_eq!(gateway.log(warning).iter().filter(|line| line.contains(" WARN ")).count(), 2);
}

async fn a_prefix_that_is_certainly_wrong_serves_nothing_and_is_not_ready(version: Version) {
    let etcd = Etcd::start(version).await;
    etcd.put("default/webhooks/a", stamped(1)).await;
    let gateway = Gateway::with(&[("ETCD_ENDPOINTS", &etcd.endpoint()), ("ETCD_PREFIX", "cwm")]).await;
    let named = |status: &Value| status["reason"].to_string().contains("below the prefix cwm/, but 1 below /cwm/");
    gateway.until("it is not named", named).await;
    assert_eq!(gateway.get("/ready").await, Some(503));
    assert_eq!(gateway.log("but 1 below /cwm/").len(), 1);
    // Keys without a leading slash are allowed.
    etcd.client().await.put("cwm/default/webhooks/b", stamped(2), None).await.unwrap();
    gateway.until("it is not live", |status| status["state"] == "healthy" && status["webhooks"] == 1).await;
    assert_eq!(gateway.get("/ready").await, Some(200));

    for prefix in ["/cwm/\n/", "/c\nwm/", " /cwm/", "/cwm/ ", "/cwm//a/"] {
        let endpoint = etcd.endpoint();
        let mut gateway = Gateway::with(&[("ETCD_ENDPOINTS", &endpoint), ("ETCD_PREFIX", prefix)]).await;
        assert_eq!(gateway.ended().await, Some(1), "{prefix:?}");
        assert_eq!(gateway.log("ETCD_PREFIX: the prefix").len(), 1, "{prefix:?}: {:?}", gateway.log(""));
    }
}
