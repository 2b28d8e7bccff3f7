//! The options of `mqtt`, and of a connection of type `mqtt`.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, Visitor};

use super::outgoing::is_string;
use super::packet::Version;
use crate::config::{BuildError, WebhookKey};
use crate::egress::{ClientTls, Egress, TlsOptions};
use crate::module::broker::{BrokerUrl, MQTT_TOPIC, Scheme, Server, Template, forward, limit};
use crate::module::forward::Forward;

const PORT: u16 = 1883;
const TLS_PORT: u16 = 8883;

const SCHEMES: [Scheme; 2] =
    [Scheme { name: "mqtt", is_tls: false, port: PORT }, Scheme { name: "mqtts", is_tls: true, port: TLS_PORT }];

const KEEP_ALIVE: u16 = 60;

/// The longest user, password or client id, in bytes.
const MAX_TEXT: usize = 16 << 10;

/// The options of [`Mqtt`](super::Mqtt).
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MqttConfig {
    /// The topic to publish to, at most 32,768 bytes, without wildcards. It may contain `{namespace}`, `{webhook}` and
    /// `{header:NAME}`. Required without `tasmota_format`, which makes a topic of its own.
    pub topic: Option<String>,
    /// The words that come before the topic, with a slash between them.
    pub topic_prefix: Option<String>,
    /// How the server acknowledges a message: 1, the default, is PUBACK, and 2 is PUBREC with PUBCOMP. 0 is no
    /// acknowledgement.
    pub qos: Option<u8>,
    /// Whether the server keeps the message as the last one of its topic. Off by default.
    #[serde(default)]
    pub retained: bool,
    /// The message: `json` or `raw`, which are both the body, or `envelope`. The default is `json`.
    #[serde(default)]
    pub format: MqttFormat,
    /// Whether the message is the body as the `params` of a message for Shelly devices of the second generation.
    #[serde(default)]
    pub shelly_gen2_format: bool,
    /// The `id` in a message for Shelly devices. The default is `webhook`.
    pub device_id: Option<String>,
    /// Whether the topic is that of a device with the firmware Tasmota, and the message an object of JSON.
    #[serde(default)]
    pub tasmota_format: bool,
    /// The kind of the topic for Tasmota. The default is `cmnd`.
    pub tasmota_type: Option<TasmotaType>,
    /// The device in the topic for Tasmota. The default is `webhook`.
    pub device_name: Option<String>,
    /// The last word of the topic for the `tasmota_type` `cmnd`. The default is `webhook`.
    pub command: Option<String>,
    /// Whether an event that no client gets is an error. Only MQTT 5 with `qos` 1 or 2 can tell; there it is on by
    /// default, except with `retained`.
    pub require_receiver: Option<bool>,
    /// Whether received header fields are sent on, as properties of MQTT 5 or in an envelope. Off by default.
    pub forward_headers: Option<bool>,
    /// The only received header fields that `forward_headers` sends on, at most 100; with an empty list none is.
    /// Credentials are sent on only if they are named here.
    pub allowed_headers: Option<Vec<String>>,
    /// The time limit for an attempt, in seconds: more than 0, at most 300. The default is 10.
    pub timeout: Option<f64>,
}

/// The content of a message.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum MqttFormat {
    /// The body, byte for byte.
    #[default]
    Json,
    /// The same.
    Raw,
    /// `{"payload": …, "headers": {…}}`.
    Envelope,
}

/// A kind of Tasmota's topics.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum TasmotaType {
    /// Commands: `cmnd/DEVICE/COMMAND`.
    #[default]
    Cmnd,
    /// States: `stat/DEVICE/status`.
    Stat,
    /// Telemetry: `tele/DEVICE/telemetry`.
    Tele,
}

impl MqttConfig {
    /// Checks what depends on the connection's version.
    pub(super) fn check(&self, version: Version) -> Result<(), BuildError> {
        let qos = self.qos();
        if qos > 2 {
            return Err("`qos` must be 0, 1 or 2".into());
        }
        if self.require_receiver == Some(true) && (version == Version::V4 || qos == 0) {
            return Err(
                "`require_receiver` needs `\"mqtt_version\": \"5\"` in the connection and a `qos` of 1 or 2: otherwise a \
                 server does not tell whether a client gets the event"
                    .into(),
            );
        }
        let forwards = self.forward_headers == Some(true) || self.allowed_headers.is_some();
        if forwards && version == Version::V4 && self.format != MqttFormat::Envelope {
            return Err("a message of MQTT 3.1.1 has no headers: `forward_headers` and `allowed_headers` need \
                 `\"mqtt_version\": \"5\"` in the connection, or `\"format\": \"envelope\"`"
                .into());
        }
        let of_device = match (self.shelly_gen2_format, self.tasmota_format) {
            (true, true) => return Err("`shelly_gen2_format` and `tasmota_format` exclude each other".into()),
            (is_shelly, is_tasmota) => is_shelly || is_tasmota,
        };
        if of_device && self.format == MqttFormat::Envelope {
            return Err("`\"format\": \"envelope\"` is not for `shelly_gen2_format` and `tasmota_format`".into());
        }
        if self.device_id.is_some() && !self.shelly_gen2_format {
            return Err("`device_id` needs `shelly_gen2_format`".into());
        }
        let of_tasmota = [
            ("tasmota_type", self.tasmota_type.is_some()),
            ("device_name", self.device_name.is_some()),
            ("command", self.command.is_some()),
        ];
        match of_tasmota.iter().find(|(_, is_set)| *is_set && !self.tasmota_format) {
            Some((name, _)) => Err(format!("`{name}` needs `tasmota_format`").into()),
            None => Ok(()),
        }
    }

    pub(super) fn qos(&self) -> u8 {
        self.qos.unwrap_or(1)
    }

    pub(super) fn topic(&self, webhook: &WebhookKey) -> Result<Template, BuildError> {
        let topic = match (self.tasmota_format, &self.topic) {
            (true, _) => self.topic_of_tasmota()?,
            (false, Some(topic)) => topic.trim().to_owned(),
            (false, None) => return Err("the key `topic` is missing".into()),
        };
        let topic = match &self.topic_prefix {
            None => topic,
            Some(prefix) => {
                let prefix = prefix.trim().trim_end_matches('/');
                if prefix.is_empty() {
                    return Err("`topic_prefix` is empty".into());
                }
                format!("{prefix}/{}", topic.strip_prefix('/').unwrap_or(&topic))
            }
        };
        Template::compile("topic", &topic, MQTT_TOPIC, webhook)
    }

    fn topic_of_tasmota(&self) -> Result<String, BuildError> {
        let word = |option: &str, text: &Option<String>| {
            let text = text.as_deref().unwrap_or("webhook").trim().to_owned();
            match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte)) {
                true => Ok(text),
                false => Err(format!("`{option}` may have ASCII letters, digits, `_`, `-`, `.` and `/` only")),
            }
        };
        let device = word("device_name", &self.device_name)?;
        match (self.tasmota_type.unwrap_or_default(), &self.command) {
            (TasmotaType::Cmnd, command) => Ok(format!("cmnd/{device}/{}", word("command", command)?)),
            (_, Some(_)) => Err("`command` needs the `tasmota_type` `cmnd`".into()),
            (TasmotaType::Stat, None) => Ok(format!("stat/{device}/status")),
            (TasmotaType::Tele, None) => Ok(format!("tele/{device}/telemetry")),
        }
    }

    pub(super) fn forward(&self) -> Result<Forward, BuildError> {
        forward(self.forward_headers.unwrap_or(false), self.allowed_headers.as_deref())
    }

    pub(super) fn limit(&self) -> Result<Duration, BuildError> {
        limit(self.timeout)
    }
}

/// The options of [`MqttConnection`](super::MqttConnection).
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MqttConnectionConfig {
    /// `mqtt://` or, with TLS, `mqtts://`: `mqtts://user:password@host:8883`. Either this or `host` is required.
    pub url: Option<String>,
    /// The host, without scheme and port.
    pub host: Option<String>,
    /// The port. The default is 1883, or 8883 with `tls`.
    pub port: Option<u16>,
    /// The user.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// The client id. By default each client has its own, drawn at random. A server disconnects a client when another one
    /// with the same id logs in, so a fixed id suits one process only.
    pub client_id: Option<String>,
    /// How long the server waits for a sign of life before it gives up the client, in seconds; it waits one and a half
    /// times as long. The default is 60, and 0 means for ever.
    pub keepalive: Option<u16>,
    /// The version of the protocol: `3.1.1`, the default, or `5`.
    #[serde(default, deserialize_with = "version")]
    pub mqtt_version: Option<MqttVersion>,
    /// TLS: `true`, or an object with `ca`, `client_cert`, `client_key` (all PEM) and `server_name`. Off by default,
    /// except for `mqtts://`.
    #[serde(default, deserialize_with = "TlsOptions::switch")]
    pub tls: Option<TlsOptions>,
    /// Must be `false`: a server without a valid certificate is not trusted.
    #[serde(default)]
    pub tls_insecure: bool,
    /// The path of a file in place of `ca` in `tls`. It is read at each attempt to connect.
    pub tls_ca_cert_file: Option<String>,
    /// The path of a file in place of `client_cert` in `tls`.
    pub tls_cert_file: Option<String>,
    /// The path of a file in place of `client_key` in `tls`.
    pub tls_key_file: Option<String>,
}

/// A version of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MqttVersion {
    /// 3.1.1
    #[default]
    V3,
    /// 5
    V5,
}

/// Reads `mqtt_version`: a string, or the number 5.
fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<MqttVersion>, D::Error> {
    struct Reading;

    impl Visitor<'_> for Reading {
        type Value = Option<MqttVersion>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("`3.1.1` or `5`")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
            match text {
                "3.1.1" => Ok(Some(MqttVersion::V3)),
                "5" | "5.0" => Ok(Some(MqttVersion::V5)),
                _ => Err(E::custom("expected `3.1.1` or `5`, found another version")),
            }
        }

        fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Self::Value, E> {
            match number {
                5 => Ok(Some(MqttVersion::V5)),
                _ => Err(E::custom("expected `3.1.1` or `5`, found another version")),
            }
        }

        fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Self::Value, E> {
            self.visit_u64(if number == 5.0 { 5 } else { 0 })
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }

    deserializer.deserialize_any(Reading).map_err(D::Error::custom)
}

/// The user and password of a session.
#[derive(Clone, Default)]
pub(super) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

/// TLS, with certificates in the configuration or in files.
pub(super) enum Tls {
    Given(ClientTls),
    /// Read at each attempt to connect.
    Files {
        ca: Option<String>,
        client: Option<(String, String)>,
        server_name: Option<String>,
    },
}

/// The options of a connection, checked.
pub(super) struct Access {
    pub(super) server: Server,
    pub(super) login: Login,
    pub(super) client_id: Option<String>,
    pub(super) keep_alive: u16,
    pub(super) version: Version,
    pub(super) tls: Option<Tls>,
}

impl MqttConnectionConfig {
    pub(super) fn read(self, egress: &Egress) -> Result<Access, BuildError> {
        let (server, login, is_tls) = self.place()?;
        for (option, text) in [("username", &login.user), ("password", &login.password), ("client_id", &self.client_id)]
        {
            let is_fine = |text: &String| !text.is_empty() && text.len() <= MAX_TEXT && is_string(text);
            if text.as_ref().is_some_and(|text| !is_fine(text)) {
                return Err(format!("`{option}` must have 1 to {MAX_TEXT} bytes and no control character").into());
            }
        }
        if login.password.is_some() && login.user.is_none() {
            return Err("`password` needs `username`".into());
        }
        let version = match self.mqtt_version.unwrap_or_default() {
            MqttVersion::V3 => Version::V4,
            MqttVersion::V5 => Version::V5,
        };
        let keep_alive = self.keepalive.unwrap_or(KEEP_ALIVE);
        let client_id = self.client_id.clone();
        Ok(Access { server, login, client_id, keep_alive, version, tls: self.tls(egress, is_tls)? })
    }

    /// The server and the login, and whether the URL asks for TLS.
    fn place(&self) -> Result<(Server, Login, bool), BuildError> {
        let own = Login { user: self.username.clone(), password: self.password.clone() };
        match (&self.url, &self.host) {
            (Some(_), Some(_)) => Err("expected `url` or `host`, found both".into()),
            (None, None) => Err("`host` or `url` is required".into()),
            (Some(_), None) if self.port.is_some() => Err("`port` needs `host`: with `url` the port is in it".into()),
            (Some(url), None) => {
                let url = BrokerUrl::parse("url", url, &SCHEMES)?;
                if url.path.as_deref().is_some_and(|path| !path.is_empty()) {
                    return Err("`url` must not have a path".into());
                }
                let [server] = <[Server; 1]>::try_from(url.servers)
                    .map_err(|_| "`url` must name one server: put a load balancer in front of several")?;
                let of_url = Login { user: url.user, password: url.password };
                let login = match (of_url.user.is_some(), own.user.is_some() || own.password.is_some()) {
                    (true, true) => {
                        return Err("`url` has a user, so `username` and `password` must be left out".into());
                    }
                    (true, false) => of_url,
                    (false, _) if of_url.password.is_some() => return Err("`url` has a password and no user".into()),
                    (false, _) => own,
                };
                Ok((server, login, url.scheme.is_tls))
            }
            (None, Some(host)) => {
                let default = if self.tls.is_some() { TLS_PORT } else { PORT };
                Ok((Server::new(host, self.port.unwrap_or(default))?, own, false))
            }
        }
    }

    fn tls(self, egress: &Egress, is_tls: bool) -> Result<Option<Tls>, BuildError> {
        if self.tls_insecure {
            return Err(
                "`tls_insecure` is not supported, because anybody could pass for the server: remove it, and give the \
                 server's certificate or its authority in `ca` of `tls`, or in `tls_ca_cert_file`"
                    .into(),
            );
        }
        let (ca, certificate, key) = (self.tls_ca_cert_file, self.tls_cert_file, self.tls_key_file);
        let has_files = ca.is_some() || certificate.is_some() || key.is_some();
        let options = match (self.tls, is_tls) {
            (Some(options), _) => options,
            (None, true) => TlsOptions::default(),
            (None, false) if has_files => {
                return Err("`tls_ca_cert_file` and the other files need `\"tls\": true`".into());
            }
            (None, false) => return Ok(None),
        };
        let given = egress.client_tls(&options).map_err(|error| format!("`tls`: {error}"))?;
        if !has_files {
            return Ok(Some(Tls::Given(given)));
        }
        if options.ca.is_some() || options.client_cert.is_some() {
            return Err("expected certificates in `tls` or in files, found both".into());
        }
        let client = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err("`tls_cert_file` needs `tls_key_file`".into()),
            (None, Some(_)) => return Err("`tls_key_file` needs `tls_cert_file`".into()),
        };
        Ok(Some(Tls::Files { ca, client, server_name: options.server_name }))
    }
}

/// Omits everything that may hold a secret.
impl fmt::Debug for MqttConnectionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MqttConnectionConfig")
            .field("mqtt_version", &self.mqtt_version)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str, version: Version) -> Result<MqttConfig, String> {
        let config: MqttConfig = serde_json::from_str(json).map_err(|error| error.to_string())?;
        let checked = config.check(version).and_then(|()| config.limit()).and_then(|_| config.forward());
        checked.map_err(|error| error.to_string())?;
        Ok(config)
    }

    fn topic(json: &str) -> Result<String, String> {
        let topic = config(json, Version::V4)?.topic(&WebhookKey::new("shop", "orders").unwrap());
        topic.map(|topic| topic.constant().unwrap_or("?").to_owned()).map_err(|error| error.to_string())
    }

    fn access(json: &str) -> Result<Access, String> {
        let config: MqttConnectionConfig = serde_json::from_str(json).map_err(|error| error.to_string())?;
        assert!(!format!("{config:?}").contains("s3cret"));
        config.read(&Egress::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn topics_are_those_of_the_service_before() {
        for (json, expected) in [
            (r#"{"topic": "a/b"}"#, "a/b"),
            (r#"{"topic": "events", "topic_prefix": "webhook"}"#, "webhook/events"),
            (r#"{"topic": "/events", "topic_prefix": "webhook/"}"#, "webhook/events"),
            (r#"{"topic": "{namespace}/{webhook}", "topic_prefix": "x"}"#, "x/shop/orders"),
            (r#"{"tasmota_format": true}"#, "cmnd/webhook/webhook"),
            (
                r#"{"topic": "t", "tasmota_format": true, "tasmota_type": "cmnd", "device_name": "s1", "command": "POWER"}"#,
                "cmnd/s1/POWER",
            ),
            (r#"{"tasmota_format": true, "tasmota_type": "stat", "device_name": "s1"}"#, "stat/s1/status"),
            (r#"{"tasmota_format": true, "tasmota_type": "tele", "topic_prefix": "x"}"#, "x/tele/webhook/telemetry"),
            (r#"{"topic": "a/{header:X-Kind}"}"#, "?"),
        ] {
            assert_eq!(topic(json).as_deref(), Ok(expected), "{json}");
        }
    }

    #[test]
    fn options_that_cannot_work_are_refused() {
        for (json, words) in [
            ("{}", "`topic` is missing"),
            (r#"{"topic": "a/+"}"#, "wildcards"),
            (r#"{"topic": "a", "qos": 3}"#, "`qos` must be"),
            (r#"{"topic": "a", "topic_prefix": " / "}"#, "`topic_prefix` is empty"),
            (r#"{"topic": "a", "topic_prefix": "$SYS"}"#, "begin with `$`"),
            (r#"{"topic": "a", "require_receiver": true}"#, "`require_receiver` needs"),
            (r#"{"topic": "a", "forward_headers": true}"#, "has no headers"),
            (r#"{"topic": "a", "device_id": "d"}"#, "`device_id` needs"),
            (r#"{"topic": "a", "command": "c"}"#, "`command` needs"),
            (r#"{"tasmota_format": true, "tasmota_type": "stat", "command": "c"}"#, "`command` needs"),
            (r#"{"tasmota_format": true, "device_name": "a b"}"#, "`device_name` may have"),
            (r#"{"tasmota_format": true, "device_name": "{header:x}"}"#, "`device_name` may have"),
            (r#"{"topic": "a", "tasmota_format": true, "shelly_gen2_format": true}"#, "exclude each other"),
            (r#"{"topic": "a", "shelly_gen2_format": true, "format": "envelope"}"#, "is not for"),
            (r#"{"topic": "a", "format": "xml"}"#, "unknown variant"),
            (r#"{"topic": "a", "timeout": 0}"#, "`timeout`"),
            (r#"{"topic": "a", "retain": true}"#, "unknown field"),
        ] {
            let error = topic(json).unwrap_err();
            assert!(error.contains(words), "{json}: {error}");
        }
        for json in [
            r#"{"topic": "a", "require_receiver": true}"#,
            r#"{"topic": "a", "forward_headers": true, "allowed_headers": ["X-A"]}"#,
        ] {
            assert!(config(json, Version::V5).is_ok(), "{json}");
        }
        assert!(config(r#"{"topic": "a", "require_receiver": true, "qos": 0}"#, Version::V5).is_err());
        assert!(config(r#"{"topic": "a", "forward_headers": true, "format": "envelope"}"#, Version::V4).is_ok());
    }

    #[test]
    fn a_connection_has_the_keys_of_the_service_before_or_a_url() {
        let old = access(
            r#"{"host": "broker", "port": 1884, "username": "u", "password": "s3cret", "client_id": "c", "keepalive": 30,
                "mqtt_version": "3.1.1", "tls": false, "tls_insecure": false}"#,
        )
        .unwrap();
        assert_eq!((old.server.to_string(), old.version, old.keep_alive), ("broker:1884".into(), Version::V4, 30));
        assert_eq!((old.client_id.as_deref(), old.login.user.as_deref()), (Some("c"), Some("u")));
        assert!(old.tls.is_none());
        let files = access(
            r#"{"host": "broker", "tls": true, "tls_ca_cert_file": "/ca", "tls_cert_file": "/c", "tls_key_file": "/k"}"#,
        )
        .unwrap();
        assert_eq!((files.server.port, files.keep_alive), (8883, 60));
        assert!(matches!(files.tls, Some(Tls::Files { ca: Some(_), client: Some(_), .. })));
        let url = access(r#"{"url": "mqtts://u:s3cret@broker", "mqtt_version": 5}"#).unwrap();
        assert_eq!((url.server.to_string(), url.version), ("broker:8883".into(), Version::V5));
        assert!(matches!(url.tls, Some(Tls::Given(_))));
        assert_eq!(url.login.password.as_deref(), Some("s3cret"));
        assert_eq!(access(r#"{"url": "mqtt://broker/", "mqtt_version": "5.0"}"#).unwrap().server.port, 1883);
        assert_eq!(access(r#"{"host": "broker"}"#).unwrap().version, Version::V4);
    }

    #[test]
    fn a_connection_that_cannot_work_is_refused_and_not_quoted() {
        for (json, words) in [
            ("{}", "`host` or `url` is required"),
            (r#"{"url": "mqtt://a", "host": "a"}"#, "found both"),
            (r#"{"url": "mqtt://a", "port": 1}"#, "`port` needs `host`"),
            (r#"{"url": "mqtt://a,b"}"#, "one server"),
            (r#"{"url": "mqtt://a/topic"}"#, "must not have a path"),
            (r#"{"url": "ws://u:s3cret@a"}"#, "`mqtt://` or `mqtts://`"),
            (r#"{"url": "mqtt://u:s3cret@a", "username": "u"}"#, "must be left out"),
            (r#"{"url": "mqtt://:s3cret@a"}"#, "a password and no user"),
            (r#"{"host": "a", "password": "s3cret"}"#, "`password` needs `username`"),
            (r#"{"host": "a", "username": "u", "password": "s3cret\u0000"}"#, "no control character"),
            (r#"{"host": "a", "client_id": ""}"#, "`client_id`"),
            (r#"{"host": "a", "mqtt_version": "3.1"}"#, "expected `3.1.1` or `5`"),
            (r#"{"host": "a", "mqtt_version": 4}"#, "expected `3.1.1` or `5`"),
            (r#"{"host": "a", "tls": true, "tls_insecure": true}"#, "anybody could pass for the server"),
            (r#"{"host": "a", "tls_ca_cert_file": "/s3cret"}"#, "need `\"tls\": true`"),
            (r#"{"host": "a", "tls": true, "tls_cert_file": "/s3cret"}"#, "`tls_cert_file` needs"),
            (r#"{"host": "a", "tls": {"ca": "s3cret"}}"#, "`tls`: `ca`"),
            (r#"{"host": "a", "tsl": true}"#, "unknown field"),
        ] {
            let error = access(json).err().unwrap_or_else(|| panic!("{json} is accepted"));
            assert!(error.contains(words) && !error.contains("s3cret"), "{json}: {error}");
        }
    }
}
