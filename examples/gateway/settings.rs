//! The environment variables. A wrong value is an error that names its variable; an empty one counts as not set.

use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tower_webhook::auth::{Bearer, InvalidSecret, check_secret};
use tower_webhook::source::{EtcdOptions, EtcdSource, EtcdTls, TlsFile};
use tower_webhook::{ClientAddress, Network, OnInvalid};

use crate::activity::Limits;
#[cfg(feature = "http-webhook")]
use crate::egress::Targets;
use crate::endpoint::endpoint;
use crate::misspelt::misspelt;
use crate::variables::VARIABLES;
use crate::{Error, memory, misspelt, units, variables};

pub(crate) struct Settings {
    pub(crate) backend: Backend,
    /// Of a path that names none.
    pub(crate) namespace: String,
    pub(crate) on_invalid: OnInvalid,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Of the operator's own listener.
    pub(crate) admin_address: Option<(String, u16)>,
    /// The files of the certificate and of its key.
    pub(crate) tls: Option<(PathBuf, PathBuf)>,
    /// Finds the client behind proxies.
    pub(crate) clients: Option<ClientAddress>,
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
    #[cfg(feature = "http-webhook")]
    pub(crate) targets: Targets,
    pub(crate) admin: Option<Bearer>,
    pub(crate) log_filter: String,
    pub(crate) log_json: bool,
    /// What an operator should know of the variables, and what does not stop the start.
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
    /// All wrong variables, each on a line of its own.
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
            #[cfg(feature = "http-webhook")]
            targets: Targets::from_env(&mut problems),
            admin: problems.collect(admin_token()),
            log_filter: problems.collect(setting("RUST_LOG")).unwrap_or_default(),
            log_json: problems.collect(choice("LOG_FORMAT", &["text", "json"])) == "json",
            notes,
        };
        problems.none()?;
        Ok(settings)
    }
}

/// Wrong variables, so that all of them are told of at once.
#[derive(Default)]
pub(crate) struct Problems(Vec<String>);

impl Problems {
    /// The value, or something in its place that nobody will see.
    pub(crate) fn collect<T: Default>(&mut self, result: Result<T, Error>) -> T {
        result.unwrap_or_else(|error| {
            self.add(error);
            T::default()
        })
    }

    fn add(&mut self, error: Error) {
        self.0.push(error.to_string());
    }

    fn none(self) -> Result<(), Error> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(self.0.join("\n").into()),
        }
    }
}

/// A line for each variable that looks like one of the gateway's and is none.
fn misspelt_names() -> Vec<String> {
    let environment: Vec<_> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .collect();
    let environment = environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let known: Vec<_> = VARIABLES.iter().map(|variable| variable.name).collect();
    let line = |found: misspelt::Misspelt| match found.nearest {
        Some(nearest) => format!("{}: the gateway has no such variable; {nearest} may be meant", found.name),
        None => format!("{}: the gateway has no such variable; `gateway --help` lists them", found.name),
    };
    misspelt(environment, &known).into_iter().map(line).collect()
}

fn backend() -> Result<Backend, Error> {
    match choice("CONFIG_BACKEND", &["file", "etcd"])? {
        "etcd" => Ok(Backend::Etcd(etcd_options()?)),
        _ => {
            Ok(Backend::File { webhooks: path("WEBHOOKS_CONFIG_FILE")?, connections: path("CONNECTIONS_CONFIG_FILE")? })
        }
    }
}

/// Without files: for [`Problems::collect`].
impl Default for Backend {
    fn default() -> Self {
        Self::File { webhooks: PathBuf::new(), connections: PathBuf::new() }
    }
}

fn namespace() -> Result<String, Error> {
    let namespace = setting("ETCD_NAMESPACE")?.unwrap_or_default();
    tower_webhook::Target::new(&namespace, "a")
        .map_err(|error| wrong("ETCD_NAMESPACE", format!("found `{}`: {error}", shown(&namespace))))?;
    Ok(namespace)
}

fn etcd_options() -> Result<EtcdOptions, Error> {
    let tls = EtcdTls {
        ca: var("ETCD_CA_CERT")?.map(PathBuf::from),
        cert: var("ETCD_CLIENT_CERT")?.map(PathBuf::from),
        key: secret("ETCD_CLIENT_KEY")?.map(PathBuf::from),
    };
    if tls.cert.is_some() != tls.key.is_some() {
        return Err("ETCD_CLIENT_CERT and ETCD_CLIENT_KEY: one needs the other".into());
    }
    tls.check().map_err(|error| {
        let named = match error.file() {
            TlsFile::Ca => "ETCD_CA_CERT",
            TlsFile::Cert => "ETCD_CLIENT_CERT",
            TlsFile::Key => "ETCD_CLIENT_KEY",
        };
        wrong(named, error)
    })?;
    let (endpoints, named) = match var("ETCD_ENDPOINTS")? {
        Some(list) => (list.split(',').map(|endpoint| endpoint.trim().to_owned()).collect(), "ETCD_ENDPOINTS"),
        None => (vec![one_endpoint(&tls)?], "ETCD_HOST, ETCD_PORT"),
    };
    let mut options =
        EtcdOptions::new(endpoints).prefix(&var("ETCD_PREFIX")?.unwrap_or_else(|| "/cwm/".to_owned())).tls(tls);
    if let Some(directory) = var("CONFIG_CACHE_DIR")? {
        options = options.saved_copy(directory);
    }
    options = match (var("ETCD_USERNAME")?, secret("ETCD_PASSWORD")?) {
        (Some(name), Some(password)) => {
            check_secret(&password).map_err(|error| wrong("ETCD_PASSWORD", error))?;
            options.user(name, password)
        }
        (None, None) => options,
        _ => return Err("ETCD_USERNAME and ETCD_PASSWORD: one needs the other".into()),
    };
    EtcdSource::new(options.clone()).map_err(|error| {
        let named = if error.is_of_prefix() { "ETCD_PREFIX" } else { named };
        wrong(named, error)
    })?;
    Ok(options)
}

fn one_endpoint(tls: &EtcdTls) -> Result<String, Error> {
    let (host, port) = (var("ETCD_HOST")?, var("ETCD_PORT")?);
    let tls = tls.ca.is_some() || tls.cert.is_some();
    endpoint(host.as_deref(), port.as_deref(), tls).map_err(|(name, reason)| wrong(name, reason))
}

/// Of the operator's own listener, if `ADMIN_PORT` is set. Its host is `host` unless `ADMIN_HOST` is set.
fn admin_address(host: &str, notes: &mut Vec<String>) -> Result<Option<(String, u16)>, Error> {
    match (self::host("ADMIN_HOST")?, listening_port("ADMIN_PORT", notes)?) {
        (own, Some(port)) => Ok(Some((own.unwrap_or_else(|| host.to_owned()), port))),
        (Some(_), None) => Err(wrong("ADMIN_HOST", "ADMIN_PORT is not set; set it too, or neither")),
        (None, None) => Ok(None),
    }
}

fn host(name: &str) -> Result<Option<String>, Error> {
    let Some(host) = setting(name)? else { return Ok(None) };
    let is_name = !host.contains([':', '/', '[', ']', '*']) && !host.contains(char::is_whitespace);
    match is_name || host.parse::<IpAddr>().is_ok() {
        true => Ok(Some(host)),
        false => Err(found(name, &host, "an address or the name of a host alone, such as 0.0.0.0, :: or localhost")),
    }
}

/// The proxies that may name the client, and the field in which they do.
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

/// The token that opens `/admin`. No message quotes it.
fn admin_token() -> Result<Option<Bearer>, Error> {
    let Some(token) = secret("ADMIN_TOKEN")? else { return Ok(None) };
    let token = token.trim();
    let refused = |reason: &str| Err(wrong("ADMIN_TOKEN", reason));
    let is_bearer = token.get(..6).is_some_and(|word| word.eq_ignore_ascii_case("bearer"));
    if is_bearer && token[6..].chars().next().is_none_or(char::is_whitespace) {
        return refused("the value begins with `Bearer`; set the token alone, without that word");
    }
    if token.contains(|char: char| char.is_whitespace() || char.is_control()) {
        return refused("there is a blank or a line break within the token, which is one word");
    }
    if is_quoted(token) {
        return refused("the token is in quotes, which would be part of it; leave them out");
    }
    if let Err(InvalidSecret::Placeholder(_)) = check_secret(token) {
        return refused("the value is a placeholder that nothing has replaced; set the token itself");
    }
    Ok(Some(Bearer::new(token).map_err(|error| wrong("ADMIN_TOKEN", error))?))
}

fn is_quoted(value: &str) -> bool {
    ['"', '\''].iter().any(|quote| value.len() > 1 && value.starts_with(*quote) && value.ends_with(*quote))
}

/// `None` if it is not set. Not for secrets, which [`secret`] reads.
pub(crate) fn var(name: &str) -> Result<Option<String>, Error> {
    debug_assert!(!variables::is_secret(name), "{name} holds a secret: read it by `secret`");
    read(name)
}

/// The same for a variable that holds a secret. Only one that the table calls so is read: no webhook can read it.
fn secret(name: &str) -> Result<Option<String>, Error> {
    match variables::is_secret(name) {
        true => read(name),
        false => Err(wrong(name, "the gateway's table of variables does not call it secret")),
    }
}

/// Whatever writes a file for a secret puts a line break at its end.
fn read(name: &str) -> Result<Option<String>, Error> {
    match std::env::var(name) {
        Ok(value) => {
            let value = value.trim_end_matches(['\r', '\n']);
            Ok((!value.is_empty()).then(|| value.to_owned()))
        }
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(wrong(name, "the value is not UTF-8")),
    }
}

/// The value, or the default.
fn setting(name: &str) -> Result<Option<String>, Error> {
    Ok(var(name)?.or_else(|| variables::default(name).map(str::to_owned)))
}

fn path(name: &str) -> Result<PathBuf, Error> {
    Ok(setting(name)?.unwrap_or_default().into())
}

fn tls_files() -> Result<Option<(String, String)>, Error> {
    both(("TLS_CERT", var("TLS_CERT")?), ("TLS_KEY", secret("TLS_KEY")?))
}

/// The values of two variables that need each other.
fn both(one: Named, other: Named) -> Result<Option<(String, String)>, Error> {
    let alone = |set: &str, missing: &str| Err(wrong(set, format!("{missing} is not set; set both, or neither")));
    match (one, other) {
        ((_, Some(one)), (_, Some(other))) => Ok(Some((one, other))),
        ((_, None), (_, None)) => Ok(None),
        ((one, Some(_)), (other, None)) | ((other, None), (one, Some(_))) => alone(one, other),
    }
}

/// The name of a variable, and its value if it is set.
type Named = (&'static str, Option<String>);

/// A port to listen on; 0 lets the system choose one. `None` if there is neither a value nor a default.
///
/// Kubernetes sets `X_PORT=tcp://10.96.0.10:80` in each pod for a Service `x`: nobody meant the gateway by that.
fn listening_port(name: &str, notes: &mut Vec<String>) -> Result<Option<u16>, Error> {
    let mut text = var(name)?;
    if let Some(link) = text.as_deref().filter(|text| misspelt::link(text).is_some()) {
        notes.push(format!("{name}: `{link}` is set by Kubernetes for a Service, and counts as not set"));
        text = None;
    }
    let Some(text) = text.or_else(|| variables::default(name).map(str::to_owned)) else { return Ok(None) };
    let port = units::number(&text).and_then(|number| u16::try_from(number).ok());
    let form = format!("{}, from 0 to 65535", units::NUMBER);
    port.map(Some).ok_or_else(|| found(name, &text, form))
}

fn at_least_one(name: &str, parse: impl Fn(&str) -> Option<u64>, form: &str) -> Result<usize, Error> {
    let number = amount(name, parse, 1..=usize::MAX as u64, form, "at least 1 and below 2^64")?;
    Ok(usize::try_from(number).unwrap_or(usize::MAX))
}

/// Not set, an eighth of the memory, but always enough for two of the largest bodies.
fn body_memory_bytes(max_body_bytes: usize) -> Result<usize, Error> {
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

fn seconds(name: &str) -> Result<Duration, Error> {
    let range = Duration::from_millis(100)..=Duration::from_secs(86_400);
    amount(name, units::seconds, range, units::SECONDS, "from 100ms to 1d")
}

fn days(name: &str) -> Result<Duration, Error> {
    const HOUR: Duration = Duration::from_secs(3600);
    amount(name, units::days, HOUR..=HOUR * 24 * 3650, units::DAYS, "from 1h to 3650d")
}

/// `limits` says what `range` is.
fn amount<T: PartialOrd>(
    name: &str,
    parse: impl Fn(&str) -> Option<T>,
    range: RangeInclusive<T>,
    form: &str,
    limits: &str,
) -> Result<T, Error> {
    let text = setting(name)?.unwrap_or_default();
    let amount = parse(&text).filter(|amount| range.contains(amount));
    amount.ok_or_else(|| found(name, &text, format!("{form}, {limits}")))
}

/// One of `choices`; the first is the default.
fn choice(name: &str, choices: &[&'static str]) -> Result<&'static str, Error> {
    match var(name)? {
        None => Ok(choices[0]),
        Some(value) => {
            let choice = choices.iter().copied().find(|choice| *choice == value);
            choice.ok_or_else(|| found(name, &value, format!("one of {}", choices.join(", "))))
        }
    }
}

fn is_below(path: &Path, root: &Path) -> bool {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute(path).starts_with(absolute(root))
}

/// A value that is no secret, and what should stand there.
fn found(name: &str, value: &str, expected: impl Display) -> Error {
    let hint = if is_quoted(value) { "; leave out the quotes" } else { "" };
    wrong(name, format!("found `{}`, expected {expected}{hint}", shown(value)))
}

/// On one line, and not endless.
pub(crate) fn shown(value: &str) -> String {
    const LONGEST: usize = 64;
    let mut shown: String = value.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if value.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

pub(crate) fn wrong(name: &str, error: impl Display) -> Error {
    format!("{name}: {error}").into()
}
