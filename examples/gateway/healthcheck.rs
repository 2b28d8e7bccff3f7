//! `gateway healthcheck`: for containers that have no other tool to ask with.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::time::Duration;

use crate::Error;
use crate::settings::Settings;

const PATIENCE: Duration = Duration::from_secs(3);

/// Asks the gateway that runs with the same environment for `/health`. With TLS it only connects, unless the operator has
/// a listener of its own, which speaks plain HTTP.
pub(crate) fn run() -> Result<(), Error> {
    let settings = Settings::from_env()?;
    let (host, port, tls) = match &settings.admin_address {
        Some((host, port)) => (host, *port, false),
        None => (&settings.host, settings.port, settings.tls.is_some()),
    };
    let host = match host.parse() {
        Ok(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) => Ipv4Addr::LOCALHOST.to_string(),
        Ok(IpAddr::V6(Ipv6Addr::UNSPECIFIED)) => Ipv6Addr::LOCALHOST.to_string(),
        _ => host.clone(),
    };
    let mut stream = TcpStream::connect((host.as_str(), port))?;
    if tls {
        return Ok(());
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    match &head {
        b"HTTP/1.1 200" => Ok(()),
        _ => Err("/health did not answer 200".into()),
    }
}
