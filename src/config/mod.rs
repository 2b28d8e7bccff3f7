//! The language of a value: names, the parser, placeholders, errors.
//!
//! [`guide::configuration`](crate::guide::configuration) says what a webhook and a connection may contain.

mod connection;
mod context;
mod data_type;
mod error;
mod info;
pub(crate) mod key;
pub(crate) mod legacy;
mod name;
mod networks;
mod node;
mod placeholder;
mod public_url;
mod secret_files;
pub(crate) mod secrets;
mod variables;
mod warning;

pub(crate) use self::connection::{BuiltConnection, Connection, ConnectionSpec, SharedClient};
pub use self::context::BuildContext;
pub(crate) use self::context::DedupBy;
pub use self::data_type::DataType;
pub use self::error::{BuildError, CompileError};
pub(crate) use self::error::{did_you_mean, missing_key, quote, shown, unknown_key};
pub use self::info::WebhookInfo;
pub use self::key::{InvalidKey, InvalidName, Key, MAX_NAME, Target, WebhookKey};
pub(crate) use self::name::Name;
pub(crate) use self::networks::read_networks;
pub(crate) use self::node::Node;
#[cfg(fuzzing)]
pub(crate) use self::node::fuzz as fuzz_node;
pub(crate) use self::node::{LONGEST, MOST_HELD, field_names};
#[cfg(fuzzing)]
pub(crate) use self::placeholder::fuzz as fuzz_placeholder;
pub(crate) use self::placeholder::{Lookup, Named, Room, expand, variables_of, variables_of_text};
pub use self::public_url::InvalidPublicUrl;
pub(crate) use self::public_url::PublicUrl;
pub(crate) use self::secret_files::SecretFiles;
pub(crate) use self::secrets::Place;
pub(crate) use self::variables::{OF_CONNECTIONS, Variables, candidates, is_file};
pub(crate) use self::warning::{Notes, Warning, Warnings};
