//! Vectors that the providers' own libraries have judged, and what becomes of each when it is changed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::prelude::{BASE64_STANDARD, Engine};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use proptest::prelude::*;
use serde::Deserialize;

use super::presets::{How, ROWS, Row, UNSUPPORTED};
use super::*;
use crate::base::secret_names::{REDACTED, is_secret};
use crate::config::{DedupBy, Node, PublicUrl, WebhookKey};
use crate::json;

/// A request, and whether it is to be let in.
#[derive(Clone, Deserialize)]
struct Vector {
    preset: String,
    case: String,
    expect: String,
    method: String,
    url: String,
    headers: BTreeMap<String, String>,
    body_b64: String,
    secret: String,
    #[serde(default)]
    params: BTreeMap<String, String>,
    now: u64,
}

/// A vector, parsed.
struct Case {
    row: &'static Row,
    signature: Signature,
    method: Method,
    uri: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("../../../../tests/data/signatures.json")).unwrap()
}

/// The first request of each preset that is let in.
fn valid() -> Vec<Vector> {
    let mut seen = BTreeSet::new();
    let valid = vectors().into_iter().filter(|vector| vector.expect == "accept");
    let first = valid.filter(|vector| seen.insert(vector.preset.clone()));
    first.map(Vector::without_other_signatures).collect()
}

impl Vector {
    fn row(&self) -> &'static Row {
        let name = if self.preset.starts_with("twilio-") { "twilio" } else { &self.preset };
        presets::find(name).unwrap_or_else(|| panic!("{name}"))
    }

    /// Without the signatures in a list that are of another secret, which may be changed.
    fn without_other_signatures(mut self) -> Self {
        for value in self.headers.values_mut() {
            for (key, separator) in [("v1=", ","), ("h1=", ";")] {
                *value = value.replace(&format!("{key}{}{separator}", "0".repeat(64)), "");
            }
        }
        self
    }

    fn build_at(&self, now: SystemTime) -> Result<Signature, CompileError> {
        let (url, _) = self.url.split_once('?').unwrap_or((&self.url, ""));
        let mut builder = Signature::builder().preset(self.row().name).secrets(self.secret.as_str()).public_url(url);
        if let Some(key) = self.params.get("key_id") {
            builder = builder.param("public_key", key);
        }
        builder.clock(WallClock::from_fn(move || now)).build()
    }

    fn signature_at(&self, now: SystemTime) -> Signature {
        self.build_at(now).unwrap_or_else(|error| panic!("{}: {error}", self.preset))
    }

    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.now)
    }

    fn case(&self) -> Case {
        let headers = self.headers.iter().map(|(name, value)| {
            (name.parse::<HeaderName>().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        });
        let uri: http::Uri = self.url.parse().unwrap();
        Case {
            row: self.row(),
            signature: self.signature_at(self.now()),
            method: self.method.parse().unwrap(),
            uri: uri.path_and_query().unwrap().to_string(),
            headers: headers.collect(),
            body: BASE64_STANDARD.decode(&self.body_b64).unwrap(),
        }
    }
}

impl Case {
    fn judge(&self) -> Result<Proof, AuthError> {
        self.judge_by(&self.signature)
    }

    fn judge_by(&self, signature: &Signature) -> Result<Proof, AuthError> {
        judge(signature, &self.method, &self.uri, &self.headers, &self.body)
    }

    /// The header fields that are verified.
    fn names(&self) -> Vec<HeaderName> {
        if self.row.name == "contentful" {
            return self.headers.keys().cloned().collect();
        }
        let names = self.row.fields().into_iter().map(|name| name.parse().unwrap());
        names.filter(|name| self.headers.contains_key(name)).collect()
    }

    fn with(&self, name: &HeaderName, value: &[u8]) -> Option<Result<Proof, AuthError>> {
        let mut headers = self.headers.clone();
        headers.insert(name, HeaderValue::from_bytes(value).ok()?);
        // Blanks around a value never reach a guard.
        let is_trimmed = value.trim_ascii().len() == value.len();
        is_trimmed.then(|| judge(&self.signature, &self.method, &self.uri, &headers, &self.body))
    }

    fn covers_body(&self) -> bool {
        match self.row.how {
            _ if self.row.algorithm == Algorithm::Token => false,
            How::Dialect(dialect) => dialect.content.contains("{body}"),
            How::Contentful | How::Twilio => true,
            How::Adyen | How::MsGraph => false,
        }
    }
}

fn judge(
    signature: &Signature,
    method: &Method,
    uri: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Proof, AuthError> {
    let mut req = Request::builder().method(method).uri(uri).body(()).unwrap();
    *req.headers_mut() = headers.clone();
    match signature.check_head(Head::of(&req))? {
        Proof::NeedsBody => signature.check_body(Head::of(&req), body),
        settled => Ok(settled),
    }
}

fn is_in(judged: &Result<Proof, AuthError>) -> bool {
    matches!(judged, Ok(Proof::Secret(_)))
}

/// Each of the texts that differ in one bit.
fn flips(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..text.len() * 8).map(|bit| {
        let mut text = text.to_vec();
        text[bit / 8] ^= 1 << (bit % 8);
        text
    })
}

#[test]
fn every_vector_is_judged_as_the_providers_library_judges_it() {
    let vectors = vectors();
    assert!(vectors.len() > 300);
    // One vector has a secret of another form, which does not compile: nobody is let in.
    let judge =
        |vector: &Vector| vector.build_at(vector.now()).map_or(Err(AuthError::Invalid), |_| vector.case().judge());
    let faults: Vec<_> = vectors
        .iter()
        .map(|vector| (vector, judge(vector)))
        .filter(|(vector, judged)| is_in(judged) != (vector.expect == "accept"))
        .map(|(vector, judged)| format!("{}, {}: {judged:?}", vector.preset, vector.case))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_row_has_a_request_that_is_let_in_and_ones_that_are_not() {
    for row in ROWS {
        let of_row = vectors().into_iter().filter(|vector| vector.row().name == row.name);
        let (accepted, refused): (Vec<_>, Vec<_>) = of_row.partition(|vector| vector.expect == "accept");
        assert!(!accepted.is_empty() && refused.len() >= 2, "{}", row.name);
    }
    assert!(ROWS.len() > 50);
    assert!(ROWS.is_sorted_by_key(|row| row.name));
}

#[test]
fn a_header_that_is_missing_doubled_or_empty_lets_nobody_in() {
    for case in valid().iter().map(Vector::case) {
        for name in case.names() {
            let told = format!("{}: {name}", case.row.name);
            let mut headers = case.headers.clone();
            headers.remove(&name);
            let judge = |headers: &HeaderMap| judge(&case.signature, &case.method, &case.uri, headers, &case.body);
            assert_eq!(judge(&headers), Err(AuthError::Missing), "{told}");
            let mut headers = case.headers.clone();
            headers.append(&name, case.headers[&name].clone());
            assert_eq!(judge(&headers), Err(AuthError::Malformed), "{told}");
            assert!(!is_in(&case.with(&name, b"").unwrap()), "{told}");
        }
    }
}

#[test]
fn a_header_that_is_cut_or_longer_or_of_other_letters_lets_nobody_in() {
    for case in valid().iter().map(Vector::case) {
        for name in case.names() {
            let value = case.headers[&name].as_bytes();
            let cut = (0..value.len()).map(|length| value[..length].to_vec());
            let longer =
                [&b"a"[..], b"0", b"=", b"==", b"\xff", b"AA==", b"00", b"%"].map(|more| [value, more].concat());
            let before = [&b"a"[..], b"0", b"="].map(|before| [before, value].concat());
            let others = [value.to_ascii_uppercase(), value.iter().map(|byte| byte ^ 0x80).collect()];
            let others = others.into_iter().filter(|other| other != value);
            for changed in cut.chain(longer).chain(before).chain(others) {
                let judged = case.with(&name, &changed);
                assert!(!judged.as_ref().is_some_and(is_in), "{} {name}: {changed:?}", case.row.name);
            }
        }
    }
}

#[test]
fn no_bit_of_a_header_can_be_changed() {
    for case in valid().iter().map(Vector::case) {
        for name in case.names() {
            for changed in flips(case.headers[&name].as_bytes()) {
                let judged = case.with(&name, &changed);
                let text = String::from_utf8_lossy(&changed).into_owned();
                assert!(!judged.as_ref().is_some_and(is_in), "{} {name}: {text}", case.row.name);
            }
        }
    }
}

#[test]
fn no_bit_of_a_signed_body_can_be_changed_and_none_added() {
    let covered: Vec<_> = valid().iter().map(Vector::case).filter(Case::covers_body).collect();
    assert!(covered.len() > 45);
    for mut case in covered {
        let body = case.body.clone();
        for changed in flips(&body).chain([[&body[..], b"\n"].concat(), [b" ", &body[..]].concat()]) {
            // Of a form what is signed is what it means: `%2b` and `%2B` are the same.
            if case.row.name == "twilio" && form::sorted(&changed) == form::sorted(&body) {
                continue;
            }
            case.body = changed;
            assert!(!is_in(&case.judge()), "{}: {}", case.row.name, String::from_utf8_lossy(&case.body));
        }
    }
}

#[test]
fn another_method_or_query_lets_nobody_in_if_it_is_signed() {
    for (name, is_method) in [("hubspot", true), ("contentful", true), ("twilio-form", false)] {
        let mut case = valid().iter().find(|vector| vector.preset == name).unwrap().case();
        let (method, uri) = (case.method.clone(), case.uri.clone());
        case.method = Method::PUT;
        assert_eq!(is_in(&case.judge()), !is_method, "{name}");
        case.method = method;
        let more: &[&str] = if uri.contains('?') { &["&x=2", "&"] } else { &["?x=2", "?"] };
        for more in more {
            case.uri = format!("{uri}{more}");
            assert!(!is_in(&case.judge()), "{name}");
        }
    }
}

#[test]
fn a_replay_is_refused_one_second_beyond_the_tolerance_on_both_sides() {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    let mut checked = 0;
    for vector in valid() {
        let How::Dialect(dialect) = vector.row().how else { continue };
        let Some(rule) = dialect.timestamp else { continue };
        let case = vector.case();
        // Some were signed between two seconds.
        let signed_at = vector.now();
        let judge = |now| case.judge_by(&vector.signature_at(now));
        let name = case.row.name;
        let slack = Duration::from_secs(if matches!(name, "twitch" | "zendesk") { 1 } else { 0 });
        assert!(is_in(&judge(signed_at + seconds(rule.past) - slack)), "{name}");
        assert_eq!(judge(signed_at + seconds(rule.past + 1)), Err(AuthError::TooOld), "{name}");
        assert!(is_in(&judge(signed_at - seconds(rule.future) + slack)), "{name}");
        assert_eq!(judge(signed_at - seconds(rule.future + 1) - slack), Err(AuthError::FromTheFuture), "{name}");
        checked += 1;
    }
    assert!(checked > 20);
}

#[test]
fn what_the_head_shows_to_be_wrong_is_refused_before_the_body() {
    for vector in vectors().into_iter().filter(|vector| ["stale", "missing-signature"].contains(&&*vector.case)) {
        let is_of_body = matches!(vector.preset.as_str(), "linear" | "mailgun" | "braintree" | "adyen" | "msgraph");
        let case = vector.case();
        let mut req = Request::builder().method(&case.method).uri(&case.uri).body(()).unwrap();
        *req.headers_mut() = case.headers.clone();
        let judged = case.signature.check_head(Head::of(&req));
        assert!(judged.is_err() || is_of_body, "{} {}: {judged:?}", vector.preset, vector.case);
    }
}

/// A history and the module `log` mask the fields of a body by their names.
#[test]
fn a_secret_that_a_body_holds_is_in_a_field_that_is_masked() {
    let mut masked = Vec::new();
    for vector in valid() {
        let holds_secret = |body: &[u8]| String::from_utf8_lossy(body).contains(&vector.secret);
        let body = vector.case().body;
        if holds_secret(&body) {
            let cleaned = json::clean(&body, Some(REDACTED), &is_secret).unwrap().unwrap_or(body);
            assert!(!holds_secret(&cleaned), "{}", vector.preset);
            masked.push(vector.preset);
        }
    }
    assert_eq!(masked, ["msgraph"]);
}

#[test]
fn the_secret_that_fits_is_told_by_its_position_and_one_that_has_expired_is_not_let_in() {
    let vector = valid().into_iter().find(|vector| vector.preset == "stripe").unwrap();
    let case = vector.case();
    let now = vector.now();
    let signature = |secrets: SecretsConfig| {
        let builder = Signature::builder().preset("stripe").secrets(secrets);
        builder.clock(WallClock::from_fn(move || now)).build().unwrap()
    };
    let judged = case.judge_by(&signature(["another secret", &vector.secret].into()));
    assert!(matches!(judged, Ok(Proof::Secret(position)) if position.index() == 1));
    let judged = case.judge_by(&signature("another secret".into()));
    assert_eq!(judged, Err(AuthError::BadSignature));
    let dated = |not_after: &str| {
        let json = serde_json::json!([{"value": vector.secret, "not_after": not_after}]);
        serde_json::from_value::<SecretsConfig>(json).unwrap()
    };
    assert!(is_in(&case.judge_by(&signature(dated("2023-11-14T22:13:21Z")))));
    assert_eq!(case.judge_by(&signature(dated("2023-11-14T22:13:20Z"))), Err(AuthError::ExpiredSecret));
}

#[test]
fn debug_shows_no_secret() {
    for vector in valid() {
        let shown = format!("{:?} {:?}", vector.case().signature, Signature::builder().secrets(vector.secret.as_str()));
        assert!(!shown.contains(&vector.secret), "{shown}");
    }
}

// --- configuration

fn build(json: &str, url: Option<&str>, dedup: Option<DedupBy<'_>>) -> Result<Signature, String> {
    let key = WebhookKey::new("default", "a").unwrap();
    let url = url.map(|url| PublicUrl::base(url).unwrap());
    let cx = BuildContext { public_url: url.as_ref(), dedup, ..BuildContext::bare(&key) };
    let config = Node::parse(json.as_bytes()).and_then(Node::read).map_err(|error| error.to_string())?;
    Signature::build(config, &cx).map_err(|error| error.to_string())
}

#[test]
fn a_dialect_that_is_spelled_out_is_verified() {
    let json = r#"{
        "algorithm": "hmac-sha256", "encoding": "hex", "header": "X-Hub-Signature-256", "prefix": "sha256=",
        "content": "{body}", "secrets": ["another", "It's a Secret to Everybody"]
    }"#;
    let signature = build(json, None, None).unwrap();
    let mut headers = HeaderMap::new();
    let hex = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let mut judge = |value: &str, body: &str| {
        headers.insert("X-Hub-Signature-256", value.parse().unwrap());
        super::tests::judge(&signature, &Method::POST, "/", &headers, body.as_bytes())
    };
    assert!(is_in(&judge(&format!("sha256={hex}"), "Hello, World!")));
    assert!(is_in(&judge(&format!("sha256={}", hex.to_uppercase()), "Hello, World!")));
    assert_eq!(judge(&format!("sha256={hex}"), "Hello, World?"), Err(AuthError::BadSignature));
    assert_eq!(judge(hex, "Hello, World!"), Err(AuthError::Malformed));
}

#[test]
fn every_row_can_be_spelled_out_that_needs_no_file_of_its_own() {
    // A row and its dialect judge the same requests alike: Slack's, with its time.
    let vector = valid().into_iter().find(|vector| vector.preset == "slack").unwrap();
    let case = vector.case();
    let spelled_out = |tolerance: u32| {
        let json = serde_json::json!({
            "algorithm": "hmac-sha256", "encoding": "hex", "header": "X-Slack-Signature", "prefix": "v0=",
            "content": "v0:{header:X-Slack-Request-Timestamp}:{body}",
            "timestamp": {"header": "X-Slack-Request-Timestamp", "format": "unix", "tolerance": tolerance},
            "secrets": [vector.secret],
        });
        build(&json.to_string(), None, None).unwrap()
    };
    assert_eq!(case.judge_by(&spelled_out(300)), Err(AuthError::TooOld));
    let mut signature = spelled_out(300);
    let now = vector.now();
    signature.clock = WallClock::from_fn(move || now);
    assert!(is_in(&case.judge_by(&signature)));
}

#[test]
fn what_cannot_be_verified_does_not_compile() {
    let custom = |more: &str| {
        format!(
            r#"{{"algorithm": "hmac-sha256", "encoding": "hex", "header": "X-A", "content": "{{body}}", "secrets": "s"{more}}}"#
        )
    };
    for (json, error) in [
        ("{}".to_owned(), "expected the key `preset` with the name of a provider, or `algorithm`, found neither"),
        (r#"{"preset": "github"}"#.to_owned(), "the key `secrets` is missing"),
        (r#"{"preset": "github", "secrets": " "}"#.to_owned(), "secrets: the secret is empty"),
        (r#"{"preset": "github", "secrets": []}"#.to_owned(), "secrets: expected at least one secret, found none"),
        (
            r#"{"preset": "gitub", "secrets": "s"}"#.to_owned(),
            "preset: there is no such preset, did you mean `github`?",
        ),
        (
            r#"{"preset": "paypal", "secrets": "s"}"#.to_owned(),
            "preset: `paypal` is no preset: it is not supported yet",
        ),
        (r#"{"preset": "github", "secrets": "s", "header": "X"}"#.to_owned(), "header: has no effect beside `preset`"),
        (r#"{"preset": "svix", "secrets": "whsec_!"}"#.to_owned(), "secrets: expected a secret in base64"),
        (r#"{"preset": "svix", "secrets": "whsec_"}"#.to_owned(), "secrets: the secret is empty"),
        (r#"{"preset": "discord", "secrets": "abc"}"#.to_owned(), "secrets: expected a secret in pairs of hexadecimal"),
        (r#"{"preset": "discord", "secrets": "abcd"}"#.to_owned(), "secrets: expected a public key of this algorithm"),
        (r#"{"preset": "twilio", "secrets": "s"}"#.to_owned(), "the sender signs the URL, and it is not known"),
        (
            r#"{"preset": "square", "secrets": "s"}"#.to_owned(),
            "content: the sender signs the URL, and it is not known",
        ),
        (
            r#"{"preset": "braintree", "secrets": "s"}"#.to_owned(),
            "params: expected the parameter `public_key`, found none",
        ),
        (r#"{"preset": "github", "secrets": "s", "params": {"a": "b"}}"#.to_owned(), "params: `github` has no such"),
        (
            r#"{"preset": "github", "secrets": "s", "timestamp": {}}"#.to_owned(),
            "timestamp: this provider signs no time",
        ),
        (
            r#"{"preset": "slack", "secrets": "s", "timestamp": {"tolerance": 0}}"#.to_owned(),
            "timestamp.tolerance: expected 1 to 604800 seconds, found another number",
        ),
        (custom(r#", "algorithm2": 1"#), "unknown key `algorithm2`, did you mean `algorithm`?"),
        (custom("").replace("hmac-sha256", "token"), "algorithm: expected one of"),
        (custom("").replace("{body}", "body"), "content: expected a variable such as `{body}`, found none"),
        (custom("").replace("{body}", "{bdy}"), "content: found an unknown variable, did you mean `body`?"),
        (custom("").replace("{body}", "{body"), "content: expected a `}` behind each `{`, found none"),
        (custom("").replace("{body}", "{header:ä}{body}"), "content: expected the name of a header field"),
        (
            custom("").replace("{body}", "{kv:t}{body}"),
            "expected pairs with the key `t` in the header of the signature",
        ),
        (custom(r#", "separator": """#), "separator: expected a text of 1 to 1024 bytes, found 0"),
        (custom(r#", "kv": []"#), "kv: expected 1 to 16 names"),
        (custom(r#", "kv": "v1", "prefix": "a""#), "prefix: expected no prefix beside `kv`, found one"),
        (custom(r#", "timestamp": {}"#), "timestamp: expected exactly one of `header`, `kv` and `json`"),
        (custom(r#", "timestamp": {"header": "X-Time"}"#), "timestamp: expected a time that is part of `content`"),
    ] {
        let found = build(&json, None, None).err().unwrap_or_else(|| panic!("{json} compiles"));
        assert!(found.starts_with(error), "{json}\n{found}\n{error}");
    }
}

#[test]
fn a_public_key_that_fits_anything_does_not_compile() {
    let p = "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f";
    let minus_one = p.replace("ed", "ec");
    for key in [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        p,
        &minus_one,
    ] {
        let error = Signature::preset("discord", key).unwrap_err().to_string();
        assert_eq!(error, "secrets: expected a public key, found one that fits anything", "{key}");
    }
}

#[test]
fn mailgun_needs_a_dedup_that_takes_each_signature_once() {
    let json = r#"{"preset": "mailgun", "secrets": "a secret of mailgun"}"#;
    let day = Duration::from_secs(86_400 + 300);
    let by = |pointer, ttl| Some(DedupBy { pointer, ttl });
    assert!(build(json, None, by(Some("/signature/token"), day)).is_ok());
    for dedup in [None, by(None, day), by(Some("/event-data/id"), day)] {
        let error = build(json, None, dedup).unwrap_err();
        assert!(error.contains(r#"expected `"dedup": {"pointer": "/signature/token"}`"#), "{error}");
    }
    let short = build(json, None, by(Some("/signature/token"), day - Duration::from_secs(1))).unwrap_err();
    assert!(short.contains("a `ttl` of `dedup` of at least 86700 seconds"), "{short}");
}

#[test]
fn an_address_of_all_webhooks_is_followed_by_the_path_of_the_request() {
    let vector = valid().into_iter().find(|vector| vector.preset == "square").unwrap();
    let case = vector.case();
    let uri: http::Uri = vector.url.parse().unwrap();
    let base = format!("https://{}", uri.host().unwrap());
    let json = serde_json::json!({"preset": "square", "secrets": vector.secret}).to_string();
    assert!(is_in(&case.judge_by(&build(&json, Some(&base), None).unwrap())));
    let other = build(&json, Some(&format!("{base}/other")), None).unwrap();
    assert_eq!(case.judge_by(&other), Err(AuthError::BadSignature));
}

#[test]
fn the_manual_has_a_line_for_each_provider_with_its_proof_and_a_configuration_that_compiles() {
    let page = include_str!("../../../docs/providers.md");
    let (_, table) = page.split_once("| provider | configuration | proof |\n|---|---|---|\n").unwrap();
    let lines: Vec<Vec<&str>> = table
        .lines()
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let told: Vec<_> = lines.iter().map(|line| (line[0], line[2])).collect();
    let expected: Vec<_> = Signature::providers().map(|provider| (provider.title, provider.proof)).collect();
    assert_eq!(told, expected);
    for (line, row) in lines.iter().zip(ROWS) {
        let value = format!("{{{}}}", line[1].trim_matches('`'));
        let value: serde_json::Value = serde_json::from_str(&value).unwrap();
        let vector = valid().into_iter().find(|vector| vector.row().name == row.name).unwrap();
        assert_eq!(value["signature"]["preset"], row.name);
        // The configuration compiles once the variable is replaced by a secret.
        let mut signature = value["signature"].clone();
        signature["secrets"] = vector.secret.into();
        let dedup = value["dedup"]["pointer"].as_str();
        let dedup = dedup.map(|pointer| DedupBy { pointer: Some(pointer), ttl: Duration::from_secs(72 * 3600) });
        build(&signature.to_string(), value["public_url"].as_str(), dedup).unwrap();
    }
}

#[test]
fn no_provider_is_both_supported_and_not() {
    assert!(UNSUPPORTED.iter().all(|(name, _)| presets::find(name).is_none()));
}

#[test]
fn a_header_that_holds_what_divides_it_from_the_next_is_refused() {
    let vector = valid().into_iter().find(|vector| vector.preset == "standard-webhooks").unwrap();
    let case = vector.case();
    let judged = case.with(&"webhook-id".parse().unwrap(), b"msg_a.1700000000").unwrap();
    assert_eq!(judged, Err(AuthError::Malformed));
}

proptest! {
    /// Whatever a stranger sends: no panic, and nobody is let in.
    #[test]
    fn nothing_lets_in_without_the_secret(
        row in 0..ROWS.len(),
        values in prop::collection::vec("[ -~]{0,40}|(t=|ts=|v1=|v1,|v0=|sha256=|h1=|time=|sig1=)?[0-9a-f]{0,64}|[A-Za-z0-9+/=]{0,90}", 0..6),
        body in prop::collection::vec(any::<u8>(), 0..60),
        query in "[a-zA-Z0-9=&%]{0,20}",
    ) {
        let row = &ROWS[row];
        let vector = valid().into_iter().find(|vector| vector.row().name == row.name).unwrap();
        let mut case = vector.case();
        for (name, value) in case.names().into_iter().zip(&values) {
            case.headers.insert(name, value.parse().unwrap());
        }
        case.body = body;
        case.uri = format!("/?{query}");
        // A token that is not replaced is the right one.
        if !values.is_empty() || row.algorithm != Algorithm::Token || row.name == "msgraph" {
            prop_assert!(!is_in(&case.judge()), "{}", row.name);
        }
    }
}
