//! The dashboard and the rules, against a running gateway and a real Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::metrics::{EGRESS, SPOOL, start, traffic};
use crate::support::eventually;
use crate::support::process::{Gateway, free_address};

const DASHBOARD: &str = include_str!("../../../docker/grafana/dashboard.json");

const RULES: &str = "docker/prometheus/alerts.yaml";

/// Metrics of faults, and of etcd, which this gateway does not use: they are on the page only once something has happened.
/// The manual has them, which another test checks.
const ABSENT: [&str; 14] = [
    "tower_webhook_config_staleness_seconds",
    "tower_webhook_dedup_damaged_records_total",
    "tower_webhook_dedup_disk_errors_total",
    "tower_webhook_dedup_forgotten_total",
    "tower_webhook_history_failures_total",
    "tower_webhook_queue_failures_total",
    "tower_webhook_queue_lost_events_total",
    "tower_webhook_senders_gone_total",
    "tower_webhook_source_anomalies_total",
    "tower_webhook_source_audits_total",
    "tower_webhook_source_differences_total",
    "tower_webhook_source_epoch",
    "tower_webhook_source_from_saved_copy",
    "tower_webhook_files_refused",
];

/// A gateway on whose page every other metric is.
async fn busy() -> Gateway {
    let gateway = start(&[SPOOL, EGRESS, ("METRICS_LABELS", "webhook")]).await;
    traffic(&gateway).await;
    for _ in 0..2 {
        gateway.post("/webhook/once", "{}").await.assert_accepted();
    }
    let second = ["POST /webhook/two HTTP/1.1", "Authorization: Bearer an0ther-secret"];
    gateway.request(&second, "{}").await.assert_accepted();
    eventually("both attempts", async || {
        let page = gateway.get("/metrics").await;
        let has = |part: &str| page.text().contains(part);
        has("tower_webhook_delivery_seconds_count")
            && has(r#"tower_webhook_delivery_attempts_total{outcome="connect"}"#)
    })
    .await;
    gateway
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// One of Debian's programs, which `.ci/tools.sh all` brings.
fn tool(name: &str) -> PathBuf {
    let own = root("target/tools/bin").join(name);
    let named = std::env::var_os("TOOLS").map(|tools| PathBuf::from(tools).join("bin").join(name));
    let tool = if own.exists() { own } else { named.unwrap_or(own) };
    assert!(tool.exists(), "there is no {}; run `make test`, which brings it", tool.display());
    tool
}

/// The queries of the dashboard, as Grafana would send them.
fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let queries: Vec<_> = targets
        .map(|target| {
            let query = target["expr"].as_str().unwrap().replace("$__rate_interval", "1m");
            query.replace("$job", ".*").replace("$instance", ".*")
        })
        .collect();
    assert!(queries.len() > 30 && queries.iter().all(|query| !query.contains('$')), "{queries:?}");
    queries
}

/// The expressions of the rules. An expression is on one line, or on the lines after `>-`.
fn expressions() -> Vec<String> {
    let rules = std::fs::read_to_string(root(RULES)).unwrap();
    let mut lines = rules.lines().peekable();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let Some(expression) = line.trim().strip_prefix("expr: ") else { continue };
        let mut expression = expression.to_owned();
        if expression == ">-" {
            expression.clear();
            while let Some(more) = lines.next_if(|line| line.starts_with("          ")) {
                expression.push_str(more.trim());
                expression.push(' ');
            }
        }
        found.push(expression);
    }
    assert!(found.len() > 20, "{found:?}");
    found
}

/// The metrics of an expression with the labels that are compared, and the labels that it groups by.
fn named(expression: &str) -> (Vec<(String, BTreeSet<String>)>, BTreeSet<String>) {
    let is_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let mut metrics = Vec::new();
    for (at, _) in expression.match_indices("tower_webhook_") {
        let rest = &expression[at..];
        let end = rest.find(|char| !is_name(char)).unwrap_or(rest.len());
        let labels = rest[end..].strip_prefix('{').and_then(|rest| rest.split('}').next()).unwrap_or_default();
        let labels = labels.split(',').filter_map(|label| label.split(['=', '!']).next());
        let labels = labels.map(|label| label.trim().to_owned()).filter(|label| !label.is_empty());
        metrics.push((rest[..end].to_owned(), labels.collect()));
    }
    let groups = expression.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
    let groups = groups.flat_map(|group| group.split(',')).map(|label| label.trim().to_owned()).collect();
    (metrics, groups)
}

/// The series on a page: names with the labels of all their lines.
fn page(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut page = BTreeMap::<String, BTreeSet<String>>::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, labels) = line.split_once('{').unwrap_or((line.split(' ').next().unwrap(), ""));
        let labels = labels.split("=\"").filter_map(|part| part.rsplit(['{', ',']).next());
        let known = page.entry(name.to_owned()).or_default();
        known.extend(
            labels
                .filter(|label| label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
                .map(str::to_owned),
        );
    }
    page
}

#[tokio::test]
async fn every_metric_and_label_of_the_dashboard_and_the_rules_is_on_the_page() {
    let gateway = busy().await;
    let page = page(gateway.get("/metrics").await.text());
    let ours = ["job", "instance"];
    for expression in queries().into_iter().chain(expressions()) {
        let (metrics, groups) = named(&expression);
        let mut known: BTreeSet<_> = ours.iter().map(|label| (*label).to_owned()).collect();
        for (metric, labels) in &metrics {
            let Some(there) = page.get(metric) else {
                assert!(ABSENT.contains(&&**metric), "{metric} is not on the page: {expression}");
                continue;
            };
            known.extend(there.iter().cloned());
            let unknown: Vec<_> =
                labels.iter().filter(|label| !there.contains(*label) && !ours.contains(&&***label)).collect();
            assert!(unknown.is_empty(), "{metric} has no {unknown:?}: {expression}");
        }
        if metrics.iter().all(|(metric, _)| page.contains_key(metric)) {
            assert!(groups.is_subset(&known), "{groups:?} are not all in {known:?}: {expression}");
        }
    }
    for metric in ABSENT {
        assert!(!page.contains_key(metric), "{metric} is on the page");
    }
}

#[tokio::test]
async fn the_page_and_the_rules_please_promtool() {
    let gateway = busy().await;
    let mut check = Command::new(tool("promtool"));
    check.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut check = check.spawn().unwrap();
    let answer = gateway.get("/metrics").await;
    check.stdin.take().unwrap().write_all(answer.text().as_bytes()).await.unwrap();
    let output = check.wait_with_output().await.unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));

    for arguments in [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]] {
        let mut promtool = Command::new(tool("promtool"));
        let output = promtool.args(arguments).current_dir(root("docker/prometheus")).output().await.unwrap();
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&said));
    }
}

struct Prometheus {
    _child: Child,
    address: SocketAddr,
    _directory: TempDir,
}

impl Prometheus {
    /// Scrapes the gateway each second, and evaluates the rules.
    async fn start(gateway: &Gateway) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\nscrape_configs:\n  - job_name: tower-webhook\n    static_configs: [{{targets: ['{}']}}]\n",
            root(RULES).display(),
            gateway.address
        );
        std::fs::write(directory.path().join("prometheus.yml"), config).unwrap();
        let address = free_address();
        let child = Command::new(tool("prometheus"))
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address={address}"))
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { _child: child, address, _directory: directory }
    }

    /// The status line and the body. An answer to HTTP/1.0 ends with its connection, and has no chunks.
    async fn get(&self, path: &str) -> (String, String) {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        connection.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    /// The data of an answer.
    async fn ask(&self, path: &str) -> Value {
        let answer: Value = serde_json::from_str(&self.get(path).await.1).unwrap();
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }

    async fn query(&self, query: &str) -> Vec<Value> {
        let query: String = query
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
                _ => format!("%{byte:02X}"),
            })
            .collect();
        self.ask(&format!("/api/v1/query?query={query}")).await["result"].as_array().unwrap().clone()
    }
}

#[tokio::test]
async fn a_real_prometheus_answers_every_query_of_the_dashboard() {
    let gateway = busy().await;
    let prometheus = Prometheus::start(&gateway).await;
    eventually("Prometheus to be ready", async || {
        let listens = TcpStream::connect(prometheus.address).await.is_ok();
        listens && prometheus.get("/-/ready").await.0.contains(" 200 ")
    })
    .await;
    // Rates need two scrapes.
    eventually("three scrapes", async || {
        let scrapes = prometheus.query("count_over_time(up[1m])").await;
        scrapes.first().is_some_and(|scrapes| scrapes["value"][1].as_str().unwrap().parse::<u32>().unwrap() >= 3)
    })
    .await;
    for query in queries() {
        let found = prometheus.query(&query).await;
        let is_absent = ABSENT.iter().any(|metric| query.contains(metric));
        assert!(is_absent || !found.is_empty(), "no series: {query}");
    }
    let groups = prometheus.ask("/api/v1/rules").await;
    let rules: Vec<_> =
        groups["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert!(rules.len() > 20);
    eventually("the rules to be evaluated", async || {
        let groups = prometheus.ask("/api/v1/rules").await;
        let groups = groups["groups"].as_array().unwrap().clone();
        groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).all(|rule| rule["health"] == "ok")
    })
    .await;
}
