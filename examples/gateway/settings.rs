//! The settings, read from environment variables.

mod etcd;
pub(crate) mod values;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tower_webhook::admin::{AdminToken, Operator};
use tower_webhook::auth::{InvalidSecret, check_secret};
use tower_webhook::receiver::{CountBy, WebhookCounters};
use tower_webhook::request::{ClientAddress, Network};
use tower_webhook::source::EtcdOptions;
use tower_webhook::{OnInvalid, Registry};

use self::values::{
    Problems, amount, at_least_one, both, choice, days, found, host, is_quoted, listening_port, path, seconds, secret,
    setting, shown, var, wrong,
};

use crate::access::Form;
use crate::activity::Limits;
#[cfg(feature = "http-webhook")]
use crate::egress::Targets;
use crate::misspelt::misspelt;
use crate::operators::Operators;
use crate::placeholders::Placeholders;
use crate::variables::VARIABLES;
use crate::{Error, history, memory, misspelt, units};

pub(crate) struct Settings {
    pub(crate) backend: Backend,
    /// The namespace of a webhook path without one.
    pub(crate) namespace: String,
    pub(crate) on_invalid: OnInvalid,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The host and port of the operator's listener.
    pub(crate) admin_address: Option<(String, u16)>,
    /// The files of the certificate and its key.
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
    /// Finds the client behind proxies.
    pub(crate) clients: Option<ClientAddress>,
    /// The address of the gateway as senders have it.
    pub(crate) public_url: Option<String>,
    pub(crate) max_connections: usize,
    pub(crate) max_body_bytes: usize,
    pub(crate) body_memory_bytes: usize,
    pub(crate) waiting: Limits,
    pub(crate) body_timeout: Duration,
    pub(crate) delivery_timeout: Duration,
    pub(crate) shutdown_grace: Duration,
    pub(crate) config_cache: Option<PathBuf>,
    pub(crate) save_to_disk_root: PathBuf,
    pub(crate) spool: Option<PathBuf>,
    pub(crate) spool_max_bytes: u64,
    pub(crate) dead_letter_age: Duration,
    pub(crate) history: history::Settings,
    #[cfg(feature = "http-webhook")]
    pub(crate) targets: Targets,
    pub(crate) placeholders: Placeholders,
    pub(crate) operators: Operators,
    pub(crate) log_filter: String,
    pub(crate) log_json: bool,
    /// The form of the access log; `None` means that there is none.
    pub(crate) log_access: Option<Form>,
    /// Counts requests and attempts by webhook or namespace.
    pub(crate) counters: Option<WebhookCounters>,
    /// Notes for the operator about variables, which do not stop the start.
    pub(crate) notes: Vec<String>,
}

pub(crate) enum Backend {
    Etcd(EtcdOptions),
    File { webhooks: PathBuf, connections: PathBuf },
}

impl Settings {
    /// Reads every variable.
    ///
    /// # Errors
    ///
    /// All wrong variables, each on its own line.
    pub(crate) fn from_env() -> Result<Self, Error> {
        let mut problems = Problems::default();
        let mut notes = misspelt_names();
        let save_to_disk_root = problems.collect(path("SAVE_TO_DISK_ROOT"));
        let spool = problems.collect(var("SPOOL_DIR")).map(PathBuf::from);
        if spool.as_ref().is_some_and(|spool| is_below(spool, &save_to_disk_root)) {
            problems.add(wrong("SPOOL_DIR", "the directory is below SAVE_TO_DISK_ROOT, where webhooks may write"));
        }
        let max_body_bytes = problems.collect(at_least_one("MAX_BODY_BYTES", units::size, units::SIZE));
        let host = problems.collect(host("HOST")).unwrap_or_default();
        let admin_address = problems.collect(admin_address(&host, &mut notes));
        let placeholders = Placeholders::from_env(&mut problems, &save_to_disk_root);
        let history = history::Settings::from_env(&mut problems, &save_to_disk_root);
        let settings = Self {
            backend: problems.collect(backend()),
            namespace: problems.collect(namespace()),
            on_invalid: match problems.collect(choice("CONFIG_ON_INVALID", &["keep", "fence"])) {
                "fence" => OnInvalid::Fence,
                _ => OnInvalid::Keep,
            },
            host,
            port: problems.collect(listening_port("PORT", &mut notes)).unwrap_or_default(),
            admin_address,
            tls: problems.collect(tls_files()).map(|(cert, key)| (cert.into(), key.into())),
            clients: problems.collect(clients()),
            public_url: problems.collect(public_url()),
            max_connections: problems.collect(at_least_one("MAX_CONNECTIONS", units::number, units::NUMBER)),
            max_body_bytes,
            body_memory_bytes: problems.collect(body_memory_bytes(max_body_bytes)),
            waiting: Limits {
                head: problems.collect(seconds("HEADER_TIMEOUT_SECONDS")),
                idle: problems.collect(seconds("IDLE_TIMEOUT_SECONDS")),
            },
            body_timeout: problems.collect(seconds("BODY_TIMEOUT_SECONDS")),
            delivery_timeout: problems.collect(seconds("DELIVERY_TIMEOUT_SECONDS")),
            shutdown_grace: problems.collect(seconds("SHUTDOWN_GRACE_SECONDS")),
            config_cache: problems.collect(var("CONFIG_CACHE_DIR")).map(PathBuf::from),
            save_to_disk_root,
            spool,
            spool_max_bytes: problems.collect(spool_max_bytes()),
            dead_letter_age: problems.collect(days("DEAD_LETTER_DAYS")),
            history,
            #[cfg(feature = "http-webhook")]
            targets: Targets::from_env(&mut problems),
            placeholders,
            operators: problems.collect(operators()),
            log_filter: problems.collect(setting("RUST_LOG")).unwrap_or_default(),
            log_json: problems.collect(choice("LOG_FORMAT", &["text", "json"])) == "json",
            log_access: match problems.collect(choice("LOG_ACCESS", &["none", "json", "common"])) {
                "json" => Some(Form::Json),
                "common" => Some(Form::Common),
                _ => None,
            },
            counters: counters(&mut problems),
            notes,
        };
        problems.none()?;
        Ok(settings)
    }
}

/// A line for each variable whose name resembles one of the gateway's.
fn misspelt_names() -> Vec<String> {
    let environment: Vec<_> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .collect();
    let environment = environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let known: Vec<_> = VARIABLES.iter().map(|variable| variable.name).collect();
    let line = |found: misspelt::Misspelt| match found.nearest {
        Some(nearest) => format!("{}: unknown variable; did you mean {nearest}?", found.name),
        None => format!("{}: unknown variable; `gateway --help` lists the known ones", found.name),
    };
    misspelt(environment, &known).into_iter().map(line).collect()
}

fn counters(problems: &mut Problems) -> Option<WebhookCounters> {
    let by = problems.collect(choice("METRICS_LABELS", &["none", "namespace", "webhook"]));
    let max_series = problems.collect(at_least_one("METRICS_MAX_SERIES", units::number, units::NUMBER));
    match by {
        "namespace" => Some(WebhookCounters::new(CountBy::Namespace, max_series)),
        "webhook" => Some(WebhookCounters::new(CountBy::Webhook, max_series)),
        _ => None,
    }
}

fn backend() -> Result<Backend, Error> {
    match choice("CONFIG_BACKEND", &["file", "etcd"])? {
        "etcd" => Ok(Backend::Etcd(etcd::options()?)),
        _ => {
            Ok(Backend::File { webhooks: path("WEBHOOKS_CONFIG_FILE")?, connections: path("CONNECTIONS_CONFIG_FILE")? })
        }
    }
}

/// A placeholder for [`Problems::collect`]; nobody uses it.
impl Default for Backend {
    fn default() -> Self {
        Self::File { webhooks: PathBuf::new(), connections: PathBuf::new() }
    }
}

fn namespace() -> Result<String, Error> {
    let namespace = setting("ETCD_NAMESPACE")?.unwrap_or_default();
    tower_webhook::config::Target::new(&namespace, "a")
        .map_err(|error| wrong("ETCD_NAMESPACE", format!("found `{}`: {error}", shown(&namespace))))?;
    Ok(namespace)
}

/// The address of the operator's listener, if `ADMIN_PORT` is set. Without `ADMIN_HOST` the host is `host`.
fn admin_address(host: &str, notes: &mut Vec<String>) -> Result<Option<(String, u16)>, Error> {
    match (self::host("ADMIN_HOST")?, listening_port("ADMIN_PORT", notes)?) {
        (own, Some(port)) => Ok(Some((own.unwrap_or_else(|| host.to_owned()), port))),
        (Some(_), None) => Err(wrong("ADMIN_HOST", "found ADMIN_HOST without ADMIN_PORT; set both, or neither")),
        (None, None) => Ok(None),
    }
}

/// The networks of the proxies that may name the client, and the header field in which they name it.
fn clients() -> Result<Option<ClientAddress>, Error> {
    const PROXIES: &str = "TRUSTED_PROXIES";
    const FIELD: &str = "CLIENT_ADDRESS_HEADER";
    let Some((proxies, field)) = both((PROXIES, var(PROXIES)?), (FIELD, var(FIELD)?))? else { return Ok(None) };
    let networks = Network::parse_list(&proxies)
        .map_err(|error| wrong(PROXIES, format!("found `{}`: {error}", shown(&proxies))))?;
    if networks.is_empty() {
        return Err(found(PROXIES, &proxies, "networks, such as 10.0.0.0/8"));
    }
    let field = field
        .parse()
        .map_err(|_| found(FIELD, &field, "the name of one field, such as X-Forwarded-For or Forwarded"))?;
    Ok(Some(ClientAddress::new(networks, field)))
}

/// The address of the gateway as senders have it.
fn public_url() -> Result<Option<String>, Error> {
    let Some(url) = var("PUBLIC_URL")? else { return Ok(None) };
    match Registry::empty().public_url(&url) {
        Ok(_) => Ok(Some(url)),
        Err(error) => Err(wrong("PUBLIC_URL", format!("found `{}`: {error}", shown(&url)))),
    }
}

/// The tokens for `/admin`.
fn operators() -> Result<Operators, Error> {
    let may_all = admin_token("ADMIN_TOKEN", Operator::new("admin")?)?;
    let may_read = admin_token("ADMIN_READ_TOKEN", Operator::new("admin-read")?.read_only())?;
    let fixed = may_all.into_iter().chain(may_read).collect();
    let file = secret("ADMIN_TOKENS_FILE")?.map(PathBuf::from);
    Operators::new(fixed, file)
        .map_err(|_| wrong("ADMIN_READ_TOKEN", "the token is ADMIN_TOKEN too; choose another one"))
}

/// A token of a variable, and the operator that it lets in. No error quotes it.
fn admin_token(name: &str, operator: Operator) -> Result<Option<AdminToken>, Error> {
    let Some(token) = secret(name)? else { return Ok(None) };
    let token = token.trim();
    let refused = |reason: &str| Err(wrong(name, reason));
    let is_bearer = token.get(..6).is_some_and(|word| word.eq_ignore_ascii_case("bearer"));
    if is_bearer && token[6..].chars().next().is_none_or(char::is_whitespace) {
        return refused("the value begins with `Bearer`, expected the token alone; leave out that word");
    }
    if token.contains(|char: char| char.is_whitespace() || char.is_control()) {
        return refused("found a blank or a line break within the token, expected one word");
    }
    if is_quoted(token) {
        return refused("the token is in quotes, which would be part of it; leave out the quotes");
    }
    if let Err(InvalidSecret::Placeholder(_)) = check_secret(token) {
        return refused("the value is a placeholder that was not filled in; set the token itself");
    }
    Ok(Some(AdminToken::new(operator, token).map_err(|error| wrong(name, error))?))
}

/// The default is an eighth of the memory, but at least the size of two of the largest bodies.
fn body_memory_bytes(max_body_bytes: usize) -> Result<usize, Error> {
    /// The memory that is assumed where the system does not tell.
    const UNKNOWN_MEMORY: u64 = 4 << 30;
    let to_usize = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let Some(text) = var("BODY_MEMORY_BYTES")? else {
        let eighth = memory::available().unwrap_or(UNKNOWN_MEMORY) / 8;
        return Ok(to_usize(eighth).max(max_body_bytes.saturating_mul(2)));
    };
    let bytes = units::size(&text).map(to_usize).filter(|bytes| *bytes >= max_body_bytes.saturating_mul(2));
    bytes.ok_or_else(|| {
        found("BODY_MEMORY_BYTES", &text, format!("{}, at least twice MAX_BODY_BYTES ({max_body_bytes})", units::SIZE))
    })
}

fn spool_max_bytes() -> Result<u64, Error> {
    amount("SPOOL_MAX_BYTES", units::size, 1 << 20..=u64::MAX, units::SIZE, "at least 1MiB and below 2^64 bytes")
}

pub(crate) fn is_below(path: &Path, root: &Path) -> bool {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute(path).starts_with(absolute(root))
}

fn tls_files() -> Result<Option<(String, String)>, Error> {
    both(("TLS_CERT", var("TLS_CERT")?), ("TLS_KEY", secret("TLS_KEY")?))
}
