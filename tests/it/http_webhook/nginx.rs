//! nginx as a target, which closes connections gracefully and often.

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;
use tower_webhook::module::Egress;

use super::connection::serving;
use super::{Hook, SECRET, event, loopback};
use crate::support::{ask, nginx, post};

const SENDERS: usize = 8;

struct Nginx {
    server: nginx::Nginx,
    port: u16,
    certificate: Option<String>,
}

impl Nginx {
    /// Starts nginx with TLS and HTTP/2, or with neither; `options` go into its server block.
    async fn start(tls: bool, options: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().display();
        // Both ports are held until both are known, so that they differ.
        let [port, inner] = [(); 2]
            .map(|()| TcpListener::bind("127.0.0.1:0").unwrap())
            .map(|listener| listener.local_addr().unwrap().port());
        let (listen, certificate) = if tls {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
            std::fs::write(directory.path().join("cert.pem"), certificate.pem()).unwrap();
            std::fs::write(directory.path().join("key.pem"), key.serialize_pem()).unwrap();
            let files = format!("ssl_certificate {path}/cert.pem; ssl_certificate_key {path}/key.pem;");
            (format!("listen 127.0.0.1:{port} ssl http2; {files}"), Some(certificate.pem()))
        } else {
            (format!("listen 127.0.0.1:{port};"), None)
        };
        let http = format!(
            "log_format events '$http_x_event_id $status';
            # The first server passes on complete requests only, and the second one counts them.
            server {{ {listen} {options} location / {{ proxy_pass http://127.0.0.1:{inner}; }} }}
            server {{ listen 127.0.0.1:{inner}; access_log {path}/access.log events; location / {{ return 200; }} }}"
        );
        Self { server: nginx::Nginx::start(directory, &http, port).await, port, certificate }
    }

    fn egress(&self) -> Egress {
        match &self.certificate {
            Some(certificate) => loopback().trust(certificate.as_bytes()).unwrap(),
            None => loopback(),
        }
    }

    fn url(&self) -> String {
        match self.certificate {
            Some(_) => format!("https://localhost:{}/", self.port),
            None => format!("http://127.0.0.1:{}/", self.port),
        }
    }

    async fn hook(&self) -> Hook {
        Hook::by(self.egress(), json!({"url": self.url()})).await
    }

    /// Starts new workers; the old ones close idle connections and finish requests.
    async fn reload(&self) {
        self.server.reload().await;
    }

    /// Stops nginx, and reads how often it has served each event.
    async fn served(mut self) -> HashMap<String, usize> {
        self.server.stop().await;
        let mut served = HashMap::new();
        for line in std::fs::read_to_string(self.server.path("access.log")).unwrap().lines() {
            let (id, status) = line.split_once(' ').unwrap();
            if status == "200" {
                *served.entry(id.to_owned()).or_default() += 1;
            }
        }
        served
    }
}

/// Sends [`SENDERS`] events at a time while `more` returns `true`. All must be delivered; returns their ids.
async fn send(mut hook: Hook, more: impl Fn() -> bool) -> Vec<String> {
    let taken = join_all((0..SENDERS).map(|_| async {
        let mut taken = Vec::new();
        while more() {
            let answer = ask(&hook.service, event("{}")).await;
            taken.push(answer.header("x-event-id").to_owned());
        }
        taken
    }))
    .await;
    let outcomes = std::iter::from_fn(|| hook.outcomes.try_recv().ok());
    let refused: Vec<_> = outcomes.filter_map(|outcome| outcome.err().map(|error| error.to_string())).collect();
    assert!(refused.is_empty(), "{}: {refused:?}", refused.len());
    taken.concat()
}

/// A function that returns `true` `count` times.
fn times(count: usize) -> impl Fn() -> bool {
    let left = AtomicUsize::new(count);
    move || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

async fn assert_takes_all(tls: bool, options: &str, events: usize) {
    let nginx = Nginx::start(tls, options).await;
    let taken = send(nginx.hook().await, times(events)).await;
    assert_eq!(taken.len(), events);
    let served = nginx.served().await;
    let wrong: Vec<_> = taken.iter().map(|id| served.get(id)).filter(|count| *count != Some(&1)).collect();
    assert!(wrong.is_empty(), "each event is served once: {wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_end_after_five_requests_cost_no_event() {
    assert_takes_all(true, "keepalive_requests 5;", 200).await;
    assert_takes_all(true, "keepalive_requests 1;", 100).await;
    assert_takes_all(false, "keepalive_requests 5;", 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_end_after_a_thousand_requests_cost_no_event() {
    assert_takes_all(true, "", 4000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_one_stream_costs_no_event() {
    assert_takes_all(true, "http2_max_concurrent_streams 1;", 200).await;
    // Repeatedly, to hit the moments when a request meets the end of its connection.
    for _ in 0..5 {
        assert_takes_all(true, "http2_max_concurrent_streams 1; keepalive_requests 5;", 200).await;
    }
}

async fn assert_reloads_cost_nothing(tls: bool) {
    let nginx = Nginx::start(tls, "").await;
    let reloading = AtomicBool::new(true);
    let reload = async {
        for _ in 0..20 {
            nginx.reload().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        reloading.store(false, Ordering::SeqCst);
    };
    let (taken, ()) = tokio::join!(send(nginx.hook().await, || reloading.load(Ordering::SeqCst)), reload);
    assert!(taken.len() >= SENDERS);
    let served = nginx.served().await;
    assert!(taken.iter().all(|id| served.contains_key(id)), "an event that was taken was served");
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_under_load_cost_no_event() {
    assert_reloads_cost_nothing(true).await;
    assert_reloads_cost_nothing(false).await;
}

/// nginx decodes a path before it resolves `..` in it.
#[tokio::test(flavor = "multi_thread")]
async fn no_path_leads_out_of_the_path_of_a_connection() {
    let nginx = Nginx::start(false, "location /admin { return 204; } location /api/ { return 404; }").await;
    let base = format!("http://127.0.0.1:{}/api/tenant-a", nginx.port);
    let connection = json!({"type": "http", "url": base, "headers": {"Authorization": SECRET}});
    for path in [
        "/../../admin/x",
        "/%2e%2e/%2E%2E/admin",
        "/..%2f..%2fadmin/x",
        "/%2e%2e%2F%2e%2e%2Fadmin",
        "/x/%2f../..%2f../admin",
    ] {
        // Without a connection the event arrives at `/admin`.
        Hook::new(json!({"url": format!("{base}{path}")})).await.deliver(event("{}")).await;
        let (_, receiver) = serving(connection.clone(), &[json!({"url": path})]).await;
        assert_eq!(ask(&receiver, post("/shop/w0", "{}")).await.status, 503, "{path}");
    }
    let (_, receiver) = serving(connection, &[json!({"url": "/x"})]).await;
    assert_eq!(ask(&receiver, post("/shop/w0", "{}")).await.status, 502);
}
