//! `{$file:name}`: secrets in files, changed while the gateway runs; and `PLACEHOLDER_ALLOW`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::eventually;
use crate::support::process::Gateway;

/// A directory with these webhooks, and with `secrets/`.
fn directory(namespaces: Value, connections: Value) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, value: &Value| fs::write(directory.path().join(name), value.to_string()).unwrap();
    write("webhooks.json", &json!({"namespaces": namespaces}));
    write("connections.json", &connections);
    for namespace in ["shop", "billing", "shared", "global"] {
        fs::create_dir_all(directory.path().join("secrets").join(namespace)).unwrap();
    }
    directory
}

fn guarded(authorization: &str) -> Value {
    json!({"module": "discard", "authorization": authorization})
}

async fn start(directory: TempDir) -> Gateway {
    let gateway = Gateway::start_in(directory, &[("SECRETS_DIR", "secrets")]).await;
    eventually("the gateway to be ready", || async { gateway.get("/ready").await.status == 200 }).await;
    gateway
}

fn write(gateway: &Gateway, path: &str, secret: &str) {
    // As a whole, as whatever rotates a secret does it.
    let (path, new) = (gateway.path(&format!("secrets/{path}")), gateway.path("new"));
    fs::write(&new, secret).unwrap();
    fs::rename(new, path).unwrap();
}

async fn status(gateway: &Gateway, path: &str, secret: &str) -> u16 {
    let authorization = format!("Authorization: Bearer {secret}");
    let answer = gateway.request(&[&format!("POST /webhook/{path} HTTP/1.1"), &authorization], "{}").await;
    answer.status.as_u16()
}

async fn comes_to_be(gateway: &Gateway, path: &str, secret: &str, expected: u16) {
    let what = format!("{path} to answer {expected} to {secret}");
    eventually(&what, || async { status(gateway, path, secret).await == expected }).await;
}

#[tokio::test]
async fn a_swap_of_kubernetes_symbolic_link_changes_the_secret() {
    fn publish(secrets: &Path, version: &str, secret: &str) {
        let data = secrets.join(version);
        fs::create_dir(&data).unwrap();
        fs::write(data.join("token"), secret).unwrap();
        symlink(version, secrets.join("..data_tmp")).unwrap();
        fs::rename(secrets.join("..data_tmp"), secrets.join("..data")).unwrap();
    }
    let directory = directory(json!({"shop": {"a": guarded("Bearer {$file:token}")}}), json!({}));
    let secrets = directory.path().join("secrets/shop");
    publish(&secrets, "..2026_1", "the first secret\n");
    symlink("..data/token", secrets.join("token")).unwrap();
    let gateway = start(directory).await;
    assert_eq!(status(&gateway, "shop/a", "the first secret").await, 200);
    publish(&secrets, "..2026_2", "the second secret\n");
    comes_to_be(&gateway, "shop/a", "the second secret", 200).await;
    assert_eq!(status(&gateway, "shop/a", "the first secret").await, 401);
    assert!(!gateway.err().contains("second secret"), "{}", gateway.err());
}

#[tokio::test]
async fn a_namespace_has_files_of_its_own_and_shares_others() {
    let webhooks = json!({"a": guarded("Bearer {$file:token}")});
    let directory = directory(json!({"shop": webhooks, "billing": webhooks}), json!({}));
    fs::write(directory.path().join("secrets/shared/token"), "shared").unwrap();
    fs::write(directory.path().join("secrets/shop/token"), "of shop").unwrap();
    let gateway = start(directory).await;
    for (path, secret, expected) in [
        ("shop/a", "of shop", 200),
        ("shop/a", "shared", 401),
        ("billing/a", "shared", 200),
        ("billing/a", "of shop", 401),
    ] {
        assert_eq!(status(&gateway, path, secret).await, expected, "{path} {secret}");
    }
    write(&gateway, "billing/token", "of billing");
    comes_to_be(&gateway, "billing/a", "of billing", 200).await;
    assert_eq!(status(&gateway, "billing/a", "shared").await, 401);
    fs::remove_file(gateway.path("secrets/billing/token")).unwrap();
    comes_to_be(&gateway, "billing/a", "shared", 200).await;
}

#[tokio::test]
async fn a_file_that_is_missing_is_waited_for_and_a_bad_one_changes_nothing() {
    let webhooks = json!({"a": guarded("Bearer {$file:token}"), "b": guarded("Bearer b")});
    let gateway = start(directory(json!({"shop": webhooks}), json!({}))).await;
    assert_eq!(status(&gateway, "shop/a", "x").await, 503);
    assert_eq!(status(&gateway, "shop/b", "b").await, 200, "it touches its own webhook alone");
    let expected = "authorization: there is no file `token` of secrets; expected `shop/token` or `shared/token`";
    assert!(gateway.err().contains(expected), "{}", gateway.err());
    write(&gateway, "shop/token", "one");
    comes_to_be(&gateway, "shop/a", "one", 200).await;
    symlink("/etc/passwd", gateway.path("link")).unwrap();
    for (bad, reason) in [("", "is empty"), ("\u{20}\n", "is empty"), (&*"x".repeat(70_000), "has more than 64 KiB")] {
        write(&gateway, "shop/token", bad);
        eventually(reason, || async { gateway.err().contains(&format!("the file `token` of secrets {reason}")) }).await;
        assert_eq!(status(&gateway, "shop/a", "one").await, 200, "the last good value serves: {reason}");
    }
    fs::rename(gateway.path("link"), gateway.path("secrets/shop/token")).unwrap();
    eventually("the link", || async { gateway.err().contains("leads out of the directory of secrets") }).await;
    fs::remove_file(gateway.path("secrets/shop/token")).unwrap();
    assert_eq!(status(&gateway, "shop/a", "one").await, 200);
    write(&gateway, "shop/token", "two");
    comes_to_be(&gateway, "shop/a", "two", 200).await;
    assert_eq!(status(&gateway, "shop/a", "one").await, 401);
}

#[tokio::test]
async fn a_file_of_a_connection_is_not_for_webhooks() {
    let shop = json!({
        "sends": {"module": "http_webhook", "connection": "crm", "module-config": {"path": "/"}},
        "reads": guarded("Bearer {$file:crm}"),
        "other": guarded("Bearer {$file:other}"),
    });
    let crm = json!({"type": "http", "url": "https://crm.example/", "headers": {"X-Api-Key": "{$file:crm}"}});
    let directory = directory(json!({"shop": shop}), json!({"crm": crm}));
    for name in ["crm", "other"] {
        fs::write(directory.path().join("secrets/shared").join(name), name).unwrap();
    }
    let gateway = start(directory).await;
    assert_eq!(status(&gateway, "shop/reads", "crm").await, 503);
    assert_eq!(status(&gateway, "shop/other", "other").await, 200);
    let expected = "authorization: the file `crm` of secrets belongs to a connection; use another one";
    assert!(gateway.err().contains(expected), "{}", gateway.err());
    // A file of the namespace's own is another file.
    write(&gateway, "shop/crm", "of shop");
    comes_to_be(&gateway, "shop/reads", "of shop", 200).await;
}

#[tokio::test]
async fn without_a_directory_of_secrets_a_webhook_that_names_a_file_is_refused() {
    let directory = directory(json!({"shop": {"a": guarded("Bearer {$file:token}")}}), json!({}));
    // No variable is called so, either.
    let gateway = Gateway::start_in(directory, &[("file", "from the environment")]).await;
    eventually("the gateway to be ready", || async { gateway.get("/ready").await.status == 200 }).await;
    assert_eq!(status(&gateway, "shop/a", "from the environment").await, 503);
    assert!(gateway.err().contains("needs a directory of secrets"), "{}", gateway.err());
    assert!(gateway.err().contains("SECRETS_DIR"));
}

#[tokio::test]
async fn webhooks_name_only_the_variables_that_the_operator_allows() {
    let shop = json!({
        "named": guarded("Bearer {$ACME_TOKEN}"),
        "prefixed": guarded("Bearer {$STRIPE_KEY}"),
        "other": guarded("Bearer {$OTHER_TOKEN:default}"),
        "unset": guarded("Bearer {$UNSET:default}"),
        "port": guarded("Bearer {$PORT}"),
    });
    let crm = json!({"type": "http", "url": "https://crm.example/", "headers": {"X-Api-Key": "{$CRM_KEY}"}});
    let variables = [
        ("PLACEHOLDER_ALLOW", "ACME_TOKEN, STRIPE_*"),
        ("ACME_TOKEN", "acme"),
        ("STRIPE_KEY", "stripe"),
        ("OTHER_TOKEN", "other"),
        ("CRM_KEY", "crm"),
    ];
    let gateway = Gateway::start_in(directory(json!({"shop": shop}), json!({"crm": crm})), &variables).await;
    eventually("the gateway to be ready", || async { gateway.get("/ready").await.status == 200 }).await;
    for (id, secret, expected) in [
        ("named", "acme", 200),
        ("prefixed", "stripe", 200),
        ("other", "other", 503),
        ("other", "default", 503),
        ("unset", "default", 503),
        ("port", "x", 503),
    ] {
        assert_eq!(status(&gateway, &format!("shop/{id}"), secret).await, expected, "{id}");
    }
    let err = gateway.err();
    assert!(err.contains("the variable `OTHER_TOKEN` is not for webhooks"), "{err}");
    assert!(!err.contains("connections/crm"), "a connection may name others: {err}");
}
