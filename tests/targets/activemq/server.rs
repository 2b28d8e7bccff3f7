//! A real ActiveMQ 5.17, with a user that may use the queues `events` and `filler` and each topic.

use std::path::Path;
use std::process::Command;

use crate::support::certificates::Certificates;
use crate::support::server::{Directory, Ready, Server, free_port};
use crate::support::tool;

/// The user, with the tests' password.
pub(crate) const USER: &str = "tester";

/// The largest frame, in bytes.
pub(crate) const MAX_FRAME: usize = 1_000_000;

/// The password of the server's own file of keys.
const KEYS: &str = "secret";

pub(crate) struct ActiveMq {
    pub(crate) server: Server,
    pub(crate) port: u16,
    pub(crate) tls_port: u16,
    pub(crate) password: String,
    directory: Directory,
}

impl ActiveMq {
    /// With certificates it also speaks TLS.
    pub(crate) async fn start_with(password: &str, certificates: Option<&Certificates>) -> Self {
        let directory = Directory::new("activemq");
        let (port, tls_port) = (free_port(), free_port());
        if let Some(certificates) = certificates {
            keys(directory.path(), certificates);
        }
        write(directory.path(), port, tls_port, password);
        let base = directory.path().to_owned();
        let command = move || {
            let home = tool("activemq/share/activemq");
            let mut command = Command::new(tool("bin/java"));
            command
                .args(["-Xmx256m", "-XX:TieredStopAtLevel=1"])
                .arg(format!("-Dactivemq.home={}", home.display()))
                .arg(format!("-Dactivemq.base={}", base.display()))
                .arg(format!("-Dactivemq.conf={}", base.display()))
                .arg(format!("-Dactivemq.data={}/data", base.display()))
                .arg("-jar")
                .arg(home.join("bin/activemq.jar"))
                .args(["start", &format!("xbean:file:{}/activemq.xml", base.display())]);
            command
        };
        // It opens the port for TLS last.
        let last = if certificates.is_some() { tls_port } else { port };
        let server = Server::start(&directory, Ready::Port(last), command).await;
        Self { server, port, tls_port, password: password.to_owned(), directory }
    }

    /// The password for the next start.
    pub(crate) fn set_password(&mut self, password: &str) {
        write(self.directory.path(), self.port, self.tls_port, password);
        self.password = password.to_owned();
    }
}

/// Writes the server's certificate and its key to `keys.p12`: Java reads no PEM.
fn keys(directory: &Path, certificates: &Certificates) {
    let mut command = Command::new("openssl");
    command.args(["pkcs12", "-export", "-passout", &format!("pass:{KEYS}")]);
    for (option, name) in [("-in", "server.pem"), ("-inkey", "server.key")] {
        command.arg(option).arg(certificates.path(name));
    }
    let run = command.arg("-out").arg(directory.join("keys.p12")).output().unwrap();
    assert!(run.status.success(), "{run:?}");
}

/// Writes the configuration. It speaks TLS if there is a file of keys.
fn write(directory: &Path, port: u16, tls_port: u16, password: &str) {
    let file = directory.join("keys.p12");
    let (keys, tls) = match file.exists() {
        true => (
            format!(
                r#"<sslContext><sslContext keyStore="file:{}" keyStorePassword="{KEYS}" keyStoreType="PKCS12"/></sslContext>"#,
                file.display()
            ),
            format!(
                r#"<transportConnector name="tls" uri="stomp+ssl://127.0.0.1:{tls_port}?wireFormat.maxFrameSize={MAX_FRAME}"/>"#
            ),
        ),
        false => Default::default(),
    };
    let (data, beans) = (directory.join("data"), "http://www.springframework.org/schema/beans");
    let core = "http://activemq.apache.org/schema/core";
    let text = format!(
        r#"<beans xmlns="{beans}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="{beans} {beans}/spring-beans-2.0.xsd {core} {core}/activemq-core.xsd">
<broker xmlns="{core}" useJmx="false" brokerName="localhost" dataDirectory="{data}">
  <destinationPolicy><policyMap><policyEntries>
    <policyEntry queue=">" memoryLimit="16mb"/>
  </policyEntries></policyMap></destinationPolicy>
  <plugins>
    <simpleAuthenticationPlugin><users>
      <authenticationUser username="{USER}" password="{password}" groups="all"/>
    </users></simpleAuthenticationPlugin>
    <authorizationPlugin><map><authorizationMap><authorizationEntries>
      <authorizationEntry queue="events" read="all" write="all" admin="all"/>
      <authorizationEntry queue="filler" read="all" write="all" admin="all"/>
      <authorizationEntry topic="&gt;" read="all" write="all" admin="all"/>
    </authorizationEntries></authorizationMap></map></authorizationPlugin>
  </plugins>
  <persistenceAdapter>
    <kahaDB directory="{data}/kahadb" journalMaxFileLength="2mb" cleanupInterval="500" checkpointInterval="500"/>
  </persistenceAdapter>
  <systemUsage><systemUsage sendFailIfNoSpace="true">
    <memoryUsage><memoryUsage limit="64mb"/></memoryUsage>
    <storeUsage><storeUsage limit="40mb"/></storeUsage>
    <tempUsage><tempUsage limit="16mb"/></tempUsage>
  </systemUsage></systemUsage>
  {keys}
  <transportConnectors>
    <transportConnector name="stomp" uri="stomp://127.0.0.1:{port}?wireFormat.maxFrameSize={MAX_FRAME}"/>
    {tls}
  </transportConnectors>
</broker></beans>
"#,
        data = data.display(),
    );
    std::fs::write(directory.join("activemq.xml"), text).unwrap();
}
