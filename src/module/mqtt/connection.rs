//! The connection type `mqtt`.

use std::fmt;
use std::iter::repeat_with;
use std::sync::Arc;

use super::config::{Access, MqttConnectionConfig};
use super::dial::Dialer;
use super::packet::Version;
use super::session::Session;
use crate::config::BuildError;
use crate::egress::{Egress, check_host};
use crate::event::DeliverError;
use crate::module::broker::Sessions;
use crate::module::connection::{ConnectionContext, ConnectionKind};

/// A server of MQTT and the login of webhooks that name a connection of type `mqtt`.
///
/// ```json
/// {"type": "mqtt", "url": "mqtts://mqtt.example.com", "mqtt_version": "5",
///  "username": "webhooks", "password": "{$MQTT_PASSWORD}"}
/// ```
///
/// All webhooks share one network connection with at most 64 messages, or 16 MiB of them, on their way at a time. The
/// first delivery opens it. If it is lost, it is made anew at once, and then with waits of up to 5 s; meanwhile deliveries
/// fail with [`Connect`](crate::event::DeliverErrorKind::Connect). A server that is silent for 15 s is given up.
pub struct MqttConnection {
    dialer: Dialer,
    has_client_id: bool,
}

impl MqttConnection {
    /// Connects through `egress`, which checks each address.
    ///
    /// # Errors
    ///
    /// When an option violates the rules in [`MqttConnectionConfig`], or the host is an address that the policy of
    /// `egress` refuses. The addresses of names are checked when a connection is made.
    pub fn new(egress: &Egress, config: MqttConnectionConfig) -> Result<Self, BuildError> {
        let Access { server, login, client_id, keep_alive, version, tls } = config.read(egress)?;
        check_host(&server.host, egress.policy()).map_err(|error| format!("the host {error}"))?;
        let has_client_id = client_id.is_some();
        let dialer = Dialer {
            egress: egress.clone(),
            shown: server.to_string().into(),
            server: Arc::new(server),
            tls: tls.map(Arc::new),
            version,
            client_id: client_id.unwrap_or_default().into(),
            login: Arc::new(login),
            keep_alive,
        };
        Ok(Self { dialer, has_client_id })
    }

    pub(super) fn version(&self) -> Version {
        self.dialer.version
    }
}

impl ConnectionKind for MqttConnection {
    const TYPE: &'static str = "mqtt";
    type Config = MqttConnectionConfig;
    type Client = MqttClient;

    /// Connects to public addresses only.
    fn build(config: MqttConnectionConfig, _: &ConnectionContext<'_>) -> Result<Self, BuildError> {
        Self::new(&Egress::default(), config)
    }

    /// Begins to connect, and does not wait for it.
    async fn connect(&self) -> Result<MqttClient, DeliverError> {
        let mut dialer = self.dialer.clone();
        if !self.has_client_id {
            dialer.client_id = own_id().into();
        }
        Ok(MqttClient(Sessions::open(dialer)))
    }
}

/// A client id that no other client has: 22 letters and digits, which each server accepts (MQTT 3.1.1, §3.1.3.1).
fn own_id() -> String {
    "tw".chars().chain(repeat_with(fastrand::alphanumeric).take(20)).collect()
}

/// The client of an [`MqttConnection`], which holds its network connection.
#[derive(Debug)]
pub struct MqttClient(Sessions<Session>);

impl MqttClient {
    pub(super) async fn session(&self) -> Result<Session, DeliverError> {
        self.0.current().await
    }
}

/// Shows only the server: everything else may hold a secret.
impl fmt::Debug for MqttConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MqttConnection").field("server", &self.dialer.shown).finish_non_exhaustive()
    }
}
