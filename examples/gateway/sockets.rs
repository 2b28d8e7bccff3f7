//! The sockets that are listened on.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use tokio::net::{TcpListener, TcpSocket};

use crate::Error;
use crate::settings::Settings;

/// How many connections may wait to be accepted. Linux lowers it to `net.core.somaxconn`, which is 4,096 by default. A
/// connection beyond it is not answered, and its peer asks again only after a second.
const BACKLOG: u32 = 4096;

pub(crate) struct Sockets {
    pub(crate) webhooks: TcpListener,
    /// Of the operator's routes, if they have their own.
    pub(crate) admin: Option<TcpListener>,
}

/// Opens them. Called within the runtime.
pub(crate) fn bind(settings: &Settings) -> Result<Sockets, Error> {
    let bind = |variables: &str, host: &str, port: u16| {
        listen(host, port).map_err(|error| format!("{variables}: cannot listen on {host}:{port}: {error}"))
    };
    let webhooks = bind("HOST, PORT", &settings.host, settings.port)?;
    let admin = settings.admin_address.as_ref();
    let admin = admin.map(|(host, port)| bind("ADMIN_HOST, ADMIN_PORT", host, *port)).transpose()?;
    Ok(Sockets { webhooks, admin })
}

/// Listens on the first address of `host` that can be listened on.
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
    // A restart need not wait for the end of the connections that the process before it has closed.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
