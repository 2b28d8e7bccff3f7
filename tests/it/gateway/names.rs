//! Names of targets, which the system's resolver looks up at a real name server.

use std::future::pending;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use axum::Router;
use futures_util::future::join_all;
use http::StatusCode;
use http::header::CONNECTION;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::dns::{Answer, Dns, in_own_network};
use crate::support::eventually;
use crate::support::process::Gateway;
use crate::support::raw;

/// A target that closes each connection after its answer, so that each event needs a new one. Returns its port.
async fn target() -> u16 {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = Router::new().fallback(|| async { (StatusCode::OK, [(CONNECTION, "close")]) });
    tokio::spawn(async move { axum::serve(listener, router).await });
    port
}

fn webhook(name: &str, port: u16) -> Value {
    json!({"module": "http_webhook", "module-config": {"url": format!("http://{name}:{port}/")}})
}

async fn start(namespaces: Value) -> Gateway {
    let directory = tempfile::tempdir().unwrap();
    let webhooks = json!({"namespaces": namespaces}).to_string();
    std::fs::write(directory.path().join("webhooks.json"), webhooks).unwrap();
    let gateway = Gateway::start_in(directory, &[("EGRESS_ALLOW", "127.0.0.0/8")]).await;
    eventually("the gateway to be ready", async || gateway.get("/ready").await.status == 200).await;
    gateway
}

/// Sends an event without waiting for the answer. The connection stays open.
fn send(gateway: &Gateway, path: String) {
    let address = gateway.address;
    tokio::spawn(async move {
        let mut connection = raw::Raw::connect(address).await;
        connection.send(raw::text(&[&format!("POST {path} HTTP/1.1")], "{}")).await;
        pending::<()>().await;
    });
}

fn localhost(name: &str) -> Answer {
    match name {
        _ if name.ends_with(".hangs.test") => Answer::Silence,
        _ if name.ends_with(".missing.test") => Answer::NoSuchName,
        _ if name.ends_with(".target.test") => Answer::Addresses(vec![Ipv4Addr::LOCALHOST.into()]),
        _ => Answer::NoSuchName,
    }
}

#[test]
fn names_without_an_answer_delay_no_other_webhook() {
    in_own_network(module_path!(), "names_without_an_answer_delay_no_other_webhook", &[], async {
        let (dns, port) = (Dns::start(localhost).await, target().await);
        let mut greedy = json!({"neighbour": webhook("neighbour.target.test", port)});
        let mut modest = json!({});
        for number in 0..100 {
            greedy[format!("hook{number}")] = webhook(&format!("n{number}.hangs.test"), port);
            modest[format!("hook{number}")] = webhook(&format!("n{number}.target.test"), port);
        }
        let gateway = start(json!({"greedy": greedy, "modest": modest})).await;

        // Many events for one name delay neither their own namespace nor another one.
        for _ in 0..20 {
            send(&gateway, "/webhook/greedy/hook0".to_owned());
        }
        eventually("a question that hangs", async || dns.count("n0.hangs.test") > 0).await;
        gateway.post("/webhook/greedy/neighbour", "{}").await.assert_accepted();
        assert_eq!(dns.count("n0.hangs.test"), 1, "one lookup for all events");

        // Many names that hang do not delay the lookups of another namespace.
        for number in 1..100 {
            send(&gateway, format!("/webhook/greedy/hook{number}"));
        }
        eventually("many questions that hang", async || dns.names(".hangs.test") >= 32).await;
        let mut times = Vec::new();
        for _ in 0..2 {
            for tens in 0..10 {
                let posts = (0..10).map(async |number| {
                    let began = Instant::now();
                    let path = format!("/webhook/modest/hook{}", 10 * tens + number);
                    gateway.post(&path, "{}").await.assert_accepted();
                    began.elapsed()
                });
                times.extend(join_all(posts).await);
            }
        }
        assert_eq!((times.len(), dns.names(".target.test")), (200, 101));
        assert_eq!(dns.names(".hangs.test"), 32, "a namespace has half of the lookups at most");
        times.sort();
        let p99 = times[197];
        println!("p99 while 32 lookups hang: {p99:?}");
        // A lookup that hangs takes 30 s, and a connection waits for it for 10 s.
        assert!(p99 < Duration::from_secs(5), "{p99:?}");
    });
}

#[test]
fn a_name_is_looked_up_once_for_many_events_and_cached_briefly() {
    in_own_network(module_path!(), "a_name_is_looked_up_once_for_many_events_and_cached_briefly", &[], async {
        let (dns, port) = (Dns::start(localhost).await, target().await);
        let gateway = start(json!({
            "one": {"good": webhook("a.target.test", port), "bad": webhook("a.missing.test", port)},
            "other": {"good": webhook("A.Target.Test", port), "bad": webhook("A.Missing.Test", port)},
        }))
        .await;
        for (name, id, status, known) in [("a.target.test", "good", 200, 5), ("a.missing.test", "bad", 502, 2)] {
            let began = Instant::now();
            // Half the rate at which the events of a namespace may be delivered, or less.
            for round in 0..5 {
                let posts = (0..20).map(async |number| {
                    let path = format!("/webhook/{}/{id}", ["one", "other"][number % 2]);
                    assert_eq!(gateway.post(&path, "{}").await.status, status, "{path} {round}");
                });
                join_all(posts).await;
            }
            let most = 1 + began.elapsed().as_secs() as usize / known;
            assert!((1..=most).contains(&dns.count(name)), "{name}: {} lookups, {most} expected", dns.count(name));
            // After the time in the cache the name is looked up again.
            let before = dns.count(name);
            eventually("another lookup", async || {
                assert_eq!(gateway.post(&format!("/webhook/one/{id}"), "{}").await.status, status);
                dns.count(name) > before
            })
            .await;
        }
    });
}

#[test]
fn a_prefix_that_the_network_announces_leads_to_no_private_address() {
    // Both addresses are reachable here: only the policy separates the gateway from the private one.
    let reachable = ["2600:64::808:808/128", "2600:64::a00:1/128"];
    in_own_network(
        module_path!(),
        "a_prefix_that_the_network_announces_leads_to_no_private_address",
        &reachable,
        async {
            let answer = |name: &str| match name {
                "ipv4only.arpa" => Answer::Addresses(vec!["2600:64::192.0.0.170".parse().unwrap()]),
                "public.test" => Answer::Addresses(vec!["2600:64::8.8.8.8".parse().unwrap()]),
                "private.test" => Answer::Addresses(vec!["2600:64::10.0.0.1".parse().unwrap()]),
                _ => Answer::NoSuchName,
            };
            let (dns, port) = (Dns::start(answer).await, target().await);
            let gateway = start(json!({"default": {
                "public": webhook("public.test", port),
                "private": webhook("private.test", port),
            }}))
            .await;
            gateway.post("/webhook/public", "{}").await.assert_accepted();
            assert_eq!(dns.count("ipv4only.arpa"), 1);
            assert_eq!(gateway.post("/webhook/private", "{}").await.status, 502);
            let is_refused = async || gateway.err().contains("its address 2600:64::a00:1 is a private address");
            eventually("a line about the refusal", is_refused).await;
        },
    );
}
