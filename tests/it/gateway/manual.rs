//! The gateway's manual, `examples/gateway/README.md`, agrees with the gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::process::{Gateway, command, refused_start};
use crate::support::{eventually, within};

pub(super) const MANUAL: &str = include_str!("../../../examples/gateway/README.md");
const ALERTS: &str = include_str!("../../../docker/prometheus/alerts.yaml");

/// The rows of the table whose first column is called `name`, each as its cells.
fn table(name: &str) -> Vec<Vec<&'static str>> {
    let head = format!("| {name} |");
    let rows = MANUAL.lines().skip_while(|line| !line.starts_with(&head)).skip(2);
    let rows: Vec<Vec<_>> = rows
        .take_while(|row| row.starts_with('|'))
        .map(|row| row.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert!(!rows.is_empty(), "the manual has no table {name}");
    rows
}

/// The texts in backquotes.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn only(cell: &'static str) -> &'static str {
    match quoted(cell)[..] {
        [text] => text,
        _ => panic!("one text in backquotes is expected: {cell}"),
    }
}

/// The names of all variables.
pub(super) fn variables() -> Vec<&'static str> {
    table("variable").iter().map(|row| only(row[0])).collect()
}

#[tokio::test]
async fn the_first_steps_of_the_manual_work_as_written() {
    let (_, webhooks) = MANUAL.split_once("echo '").unwrap();
    let (webhooks, _) = webhooks.split_once("' > webhooks.json\ngateway\n").unwrap();
    let curl = MANUAL.lines().find(|line| line.starts_with("curl http://localhost:8000/")).unwrap();
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("webhooks.json"), webhooks).unwrap();
    let gateway = Gateway::start_in(directory, &[]).await;
    eventually("the gateway to be ready", async || gateway.get("/ready").await.status == 200).await;
    let curl = curl.replace("localhost:8000", &gateway.address.to_string());
    let output = within("curl", Command::new("sh").args(["-c", &curl]).output()).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), r#"{"message":"200 OK"}"#, "{output:?}");
    eventually("the event on stdout", async || gateway.out().ends_with('\n')).await;
    assert_eq!(serde_json::from_str::<Value>(&gateway.out()).unwrap()["payload"], json!({"id": 1}));
}

#[tokio::test]
async fn the_manual_has_every_variable_with_its_default() {
    let directory = tempfile::tempdir().unwrap();
    let output = within("the help", command(directory.path()).arg("--help").output()).await.unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let printed: Vec<_> = help
        .lines()
        .skip_while(|line| !line.starts_with("Variables"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .map(|line| {
            let name = line.split_whitespace().next().unwrap();
            let default = line.rsplit_once("[default: ").map_or("", |(_, rest)| rest.trim_end_matches(']'));
            (name, default)
        })
        .collect();
    let written: Vec<_> = table("variable")
        .iter()
        .map(|row| (only(row[0]), quoted(row[1]).first().copied().unwrap_or_default()))
        .collect();
    assert_eq!(written, printed);
}

/// The expectation in the error for a wrong value of this form.
fn expected(form: &str) -> Option<String> {
    let text = match form {
        "number" => "a whole number in digits alone",
        "size" => "a whole number of bytes",
        "time" => "a whole number of seconds",
        "days" => "a whole number of days",
        "port" => "65535",
        _ if form.starts_with('`') => return Some(format!("expected one of {}", quoted(form).join(", "))),
        _ => return None,
    };
    Some(text.to_owned())
}

#[tokio::test]
async fn a_variable_of_each_form_refuses_what_the_manual_says() {
    let forms: Vec<_> = table("variable").iter().filter_map(|row| Some((only(row[0]), expected(row[2])?))).collect();
    assert!(forms.len() > 15, "{forms:?}");
    let wrong = OsStr::new("nonsense");
    let (of_etcd, others): (Vec<_>, _) = forms.into_iter().partition(|(name, _)| name.starts_with("ETCD_"));
    for (forms, backend) in [(others, None), (of_etcd, Some(("CONFIG_BACKEND", OsStr::new("etcd"))))] {
        let variables: Vec<_> = backend.into_iter().chain(forms.iter().map(|(name, _)| (*name, wrong))).collect();
        let (_, stderr) = refused_start(&variables).await;
        for (name, expected) in &forms {
            let line = stderr.lines().find(|line| line.starts_with(&format!("gateway: {name}: ")));
            let line = line.unwrap_or_else(|| panic!("no line for {name}: {stderr}"));
            assert!(line.contains(expected), "{expected} is expected: {line}");
        }
        assert_eq!(stderr.lines().count(), forms.len(), "{stderr}");
    }
}

fn source(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The routes that a file gives to axum: method and path.
fn routes(path: &str, prefix: &str) -> BTreeSet<String> {
    let text = source(path);
    let mut routes = BTreeSet::new();
    for call in text.split(".route(\"").skip(1) {
        let (path, rest) = call.split_once('"').unwrap();
        let handlers = rest.lines().next().unwrap();
        for (method, handler) in [("GET", "get("), ("POST", "post("), ("DELETE", "delete(")] {
            if handlers.contains(handler) {
                routes.insert(format!("{method} {prefix}{path}"));
            }
        }
    }
    routes
}

/// The routes of the admin service.
fn admin_routes() -> BTreeSet<String> {
    let text = source("src/admin/routes.rs");
    let rows = text.split("Route::new(").skip(1).filter_map(|row| row.split_once(", \""));
    rows.filter_map(|(method, rest)| Some(format!("{method} /admin{}", rest.split_once('"')?.0))).collect()
}

#[tokio::test]
async fn the_manual_has_every_route_and_each_is_answered() {
    let written: BTreeSet<_> = table("route").iter().map(|row| only(row[0]).to_owned()).collect();
    let mut coded = routes("examples/gateway/routes.rs", "");
    coded.append(&mut admin_routes());
    coded.extend(["GET /health", "GET /ready", "GET /admin/ui/"].map(str::to_owned));
    // The receiver's own; they never come to axum.
    coded.extend(["POST /webhook/{id}".to_owned(), "POST /webhook/{namespace}/{id}".to_owned()]);
    assert_eq!(written, coded);

    let gateway = Gateway::start(&[("ADMIN_TOKEN", "adm1n-token"), ("SPOOL_DIR", "spool")]).await;
    for route in written {
        let id = if route.contains("/admin/") { "019c8a3e-0000-7000-8000-000000000000" } else { "open" };
        let path = route.replace("{namespace}", "default").replace("{webhook}", "open").replace("{id}", id);
        let head = [&format!("{path} HTTP/1.1"), "Authorization: Bearer adm1n-token"];
        let body = if path.ends_with("/test") { "" } else { "{}" };
        let answer = gateway.request(&head, body).await;
        match answer.status.as_u16() {
            200 | 202 => {}
            400 => assert!(answer.problem(400).starts_with("found no filter"), "{route}"),
            404 => assert!(answer.problem(404).starts_with("there is no "), "{route}"),
            status => panic!("{route}: {status}"),
        }
    }
}

/// A metric's name, with its type and labels.
type Metrics = BTreeMap<String, (String, BTreeSet<String>)>;

fn written_metrics() -> Metrics {
    let rows = table("metric");
    let metrics: Metrics = rows
        .iter()
        .map(|row| {
            let labels = quoted(row[2]).into_iter().map(str::to_owned).collect();
            (only(row[0]).to_owned(), (row[1].to_owned(), labels))
        })
        .collect();
    assert_eq!(metrics.len(), rows.len(), "a metric has one row");
    metrics
}

fn rust_files(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension() == Some(OsStr::new("rs")) {
            files.push(path);
        }
    }
}

/// The text of each file of the library and of the gateway.
fn sources() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for directory in ["src", "examples/gateway"] {
        rust_files(&root.join(directory), &mut files);
    }
    files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}

/// The metrics that the sources record.
fn coded_metrics() -> Metrics {
    let mut metrics = Metrics::new();
    for text in sources() {
        for kind in ["counter", "gauge", "histogram"] {
            for call in text.split(&format!("{kind}!(\"")).skip(1) {
                let arguments = call.split(')').next().unwrap();
                let mut texts = arguments.split('"').step_by(2);
                let name = texts.next().unwrap().to_owned();
                let labels = texts.take_while(|text| !text.is_empty()).map(str::to_owned).collect();
                metrics.insert(name, (kind.to_owned(), labels));
            }
        }
    }
    metrics
}

#[test]
fn the_manual_has_every_metric_with_its_type_and_labels() {
    assert_eq!(written_metrics(), coded_metrics());
}

#[test]
fn every_metric_has_a_help_text() {
    let texts = sources().concat();
    let missing: Vec<_> =
        coded_metrics().into_keys().filter(|name| !texts.contains(&format!("(\"{name}\", \""))).collect();
    // A text that does not fit on the line of its name.
    let missing: Vec<_> = missing
        .into_iter()
        .filter(|name| {
            let lines: Vec<_> = texts.lines().map(str::trim).collect();
            !lines.windows(2).any(|pair| pair[0] == format!("\"{name}\",") && pair[1].starts_with('"'))
        })
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test]
async fn every_metric_of_a_running_gateway_is_in_the_manual() {
    let directory = tempfile::tempdir().unwrap();
    let webhooks = json!({
        "once": {"module": "discard", "ack": "accepted", "dedup": {"digest": true}},
        "bad": {"module": "none"},
    });
    fs::write(directory.path().join("webhooks.json"), webhooks.to_string()).unwrap();
    let gateway = Gateway::start_in(directory, &[("SPOOL_DIR", "spool")]).await;
    eventually("the gateway to be ready", async || gateway.get("/ready").await.status == 200).await;
    gateway.post("/webhook/bad", "{}").await.problem(503);
    assert_eq!(gateway.post("/webhook/once", "{}").await.status, 202);
    let written = written_metrics();
    let answer = gateway.get("/metrics").await;
    let scrape = answer.text();
    let mut families = 0;
    for line in scrape.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').unwrap();
            assert_eq!(written.get(name).map(|(kind, _)| kind.as_str()), Some(kind), "{name}");
            families += 1;
        } else if let Some((name, rest)) = line.split_once('{') {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            let labels = rest.split("=\"").filter_map(|part| part.rsplit(['{', ',']).next());
            let labels = labels.filter(|label| label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
            for label in labels.filter(|label| *label != "le" && !label.is_empty()) {
                assert!(written[family].1.contains(label), "{label}: {line}");
            }
        }
    }
    assert!(families > 20, "{scrape}");
}

#[test]
fn the_alarms_name_metrics_and_labels_of_the_manual() {
    let written = written_metrics();
    let words = ALERTS.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
    let named: BTreeSet<_> = words.filter(|word| word.starts_with("tower_webhook_")).collect();
    assert!(named.len() > 15, "{named:?}");
    let unknown: Vec<_> = named.iter().filter(|name| !written.contains_key(**name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

/// The level of each macro that logs `message`, and its arguments before the message.
fn logged<'a>(sources: &'a [String], message: &str) -> Vec<(&'a str, &'a str)> {
    let quoted = format!("\"{message}\"");
    let mut found = Vec::new();
    for text in sources {
        for (end, _) in text.match_indices(&quoted) {
            let calls = ["error", "warn", "info"].into_iter().filter_map(|level| {
                let call = format!("tracing::{level}!(");
                text[..end].rfind(&call).map(|at| (at + call.len(), level))
            });
            found.extend(calls.max().map(|(begin, level)| (level, &text[begin..end])));
        }
    }
    found
}

#[test]
fn every_log_line_of_the_manual_is_logged_at_its_level_with_its_fields() {
    let sources = sources();
    for row in table("level") {
        let (level, message, fields) = (row[0], only(row[1]), quoted(row[2]));
        let found = logged(&sources, message);
        let is_so = |(at, arguments): &(&str, &str)| {
            let words: BTreeSet<_> =
                arguments.split(|char: char| !char.is_ascii_alphanumeric() && char != '_').collect();
            *at == level && fields.iter().all(|field| words.contains(field))
        };
        assert!(found.iter().any(is_so), "{level} {message} {fields:?}: found {found:?}");
    }
}
