//! The address of a client behind proxies.

use serde_json::Value;

use crate::support::eventually;
use crate::support::process::Gateway;

fn behind<'a>(proxies: &'a str, field: &'a str) -> [(&'a str, &'a str); 3] {
    [("LOG_FORMAT", "json"), ("TRUSTED_PROXIES", proxies), ("CLIENT_ADDRESS_HEADER", field)]
}

/// The fields of the log lines about refused requests, once there are `count` of them.
async fn refused(gateway: &Gateway, count: usize) -> Vec<Value> {
    let lines = || -> Vec<Value> {
        let text = gateway.err();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["fields"].take());
        lines.filter(|fields| fields["message"] == "request refused").collect()
    };
    eventually("the refusals to be logged", async || lines().len() >= count).await;
    lines()
}

#[tokio::test]
async fn a_trusted_proxy_names_the_client() {
    for (field, value) in [
        ("X-Forwarded-For", "192.0.2.1, 203.0.113.7, 127.0.0.9"),
        ("Forwarded", "for=192.0.2.1, for=\"203.0.113.7:80\";proto=https, for=127.0.0.9"),
        ("X-Real-IP", "203.0.113.7"),
    ] {
        let gateway = Gateway::start(&behind("127.0.0.0/8", field)).await;
        let line = format!("{field}: {value}");
        gateway.request(&["POST /webhook/guarded HTTP/1.1", &line], "{}").await.problem(401);
        // The request breaks a rule of HTTP.
        gateway.request(&["POST /webhook/open HTTP/1.1", &line, "Host: a", "Host: b"], "{}").await.problem(400);
        // Without the field, the request is the proxy's own.
        gateway.post("/webhook/guarded", "{}").await.problem(401);
        let lines = refused(&gateway, 3).await;
        for line in &lines[..2] {
            assert_eq!(line["client"], "203.0.113.7", "{line}");
        }
        assert!(lines[2].get("client").is_none(), "{}", lines[2]);
        assert!(lines.iter().all(|line| line["peer"].as_str().unwrap().starts_with("127.0.0.1:")), "{lines:?}");
        gateway.request(&["POST /webhook/open HTTP/1.1", &line], "{}").await.assert_accepted();
    }
}

#[tokio::test]
async fn a_client_that_a_trusted_proxy_does_not_name_is_refused() {
    let gateway = Gateway::start(&behind("127.0.0.0/8", "Forwarded")).await;
    for value in ["for=unknown", "203.0.113.7", "for=\"x", "for=203.0.113.7, proto=http"] {
        let line = format!("Forwarded: {value}");
        let answer = gateway.request(&["POST /webhook/open HTTP/1.1", &line], "{}").await;
        assert!(answer.problem(400).starts_with("The field with the client's address"), "{value}");
    }
    // Other fields do not matter.
    let line = "X-Forwarded-For: garbage";
    gateway.request(&["POST /webhook/open HTTP/1.1", line], "{}").await.assert_accepted();
    assert_eq!(refused(&gateway, 4).await[0]["kind"], "invalid_http");
}

#[tokio::test]
async fn a_peer_that_is_no_proxy_names_nobody() {
    let gateway = Gateway::start(&behind("10.0.0.0/8, ::1", "X-Forwarded-For")).await;
    for value in ["203.0.113.7", "garbage"] {
        let line = format!("X-Forwarded-For: {value}");
        gateway.request(&["POST /webhook/open HTTP/1.1", &line], "{}").await.assert_accepted();
        gateway.request(&["POST /webhook/guarded HTTP/1.1", &line], "{}").await.problem(401);
    }
    for line in refused(&gateway, 2).await {
        assert!(line.get("client").is_none(), "{line}");
    }
}
