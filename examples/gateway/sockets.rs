//! The listening sockets.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use tokio::net::{TcpListener, TcpSocket};

use crate::Error;
use crate::settings::Settings;

/// How many connections may wait to be accepted. Linux lowers it to `net.core.somaxconn`, 4,096 by default. The system does
/// not answer a connection beyond it, and its peer tries again only after a second.
const BACKLOG: u32 = 4096;

pub(crate) struct Sockets {
    pub(crate) webhooks: TcpListener,
    /// The socket of the operator's listener, if there is one.
    pub(crate) admin: Option<TcpListener>,
}

/// Opens the sockets. Must be called within the runtime.
pub(crate) fn bind(settings: &Settings) -> Result<Sockets, Error> {
    let bind = |variables: &str, host: &str, port: u16| {
        listen(host, port).map_err(|error| format!("{variables}: cannot listen on {host}:{port}: {error}"))
    };
    let webhooks = bind("HOST, PORT", &settings.host, settings.port)?;
    let admin = settings.admin_address.as_ref();
    let admin = admin.map(|(host, port)| bind("ADMIN_HOST, ADMIN_PORT", host, *port)).transpose()?;
    Ok(Sockets { webhooks, admin })
}

/// Listens on the first address of `host` that can be bound.
fn listen(host: &str, port: u16) -> io::Result<TcpListener> {
    let mut outcome = Err(io::Error::new(io::ErrorKind::NotFound, "the host has no address"));
    for address in (host, port).to_socket_addrs()? {
        outcome = listen_on(address);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // So that a restart need not wait for the closed connections of the previous process.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
