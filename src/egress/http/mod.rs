//! The clients of `http_webhook`: connections that webhooks share, and what is recorded and limited on each.

mod connector;
mod flood;
mod life;

pub(crate) use self::connector::Clients;
pub(crate) use self::life::Life;
