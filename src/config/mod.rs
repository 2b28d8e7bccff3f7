//! A webhook's configuration: what may be said, and what it is compiled into.
//!
//! A value is JSON. It is compiled once, when its bytes change: placeholders are filled in, guards are parsed, secrets
//! hashed, the module built. The request path parses nothing.
//!
//! # Keys of a webhook
//!
//! | key | type | default | |
//! |---|---|---|---|
//! | `module` | string | required, unless there is a `chain` | the module's name in the [`Registry`] |
//! | `module-config` | object | `{}` | the module's options |
//! | `data_type` | `"json"`, `"form"` or `"blob"` | `"json"` | what [`CheckPayload`](crate::layers::CheckPayload) demands of the body |
//! | `authorization` | secrets | none | a guard: see [`Authorization`](crate::auth::Authorization) |
//! | `header_auth` | object | none | a guard: see [`HeaderAuth`](crate::auth::HeaderAuth) |
//! | `query_auth` | object | none | a guard: see [`QueryAuth`](crate::auth::QueryAuth) |
//! | `basic_auth` | object | none | a guard: see `BasicAuth` in [`auth`](crate::auth) |
//! | `any_of` | array of objects | none | alternatives of guards: see [`AnyOf`](crate::auth::AnyOf) |
//! | `hmac` | object | none | a guard: see `HmacAuth` in [`auth`](crate::auth) |
//! | `ip_allow` | array of strings | none | a guard: see [`IpAllow`](crate::auth::IpAllow); `ip_whitelist` is its old name |
//! | `trusted_proxies` | array of strings | none | proxies that `ip_allow` trusts besides: see [`IpAllow::trusted_proxies`](crate::auth::IpAllow::trusted_proxies) |
//! | `ack` | `"delivered"` or `"accepted"` | `"delivered"` | what a 2xx promises: see [`Promise`]; `"accepted"` needs a queue |
//! | `dedup` | object | none | see [`Dedup`](crate::layers::Dedup): exactly one of `header`, `pointer`, `form`, `digest`, or `form` with `pointer`; and `ttl` |
//! | `connection` | string | none | the name of a connection the module uses |
//! | `retry` | object | none: 1 attempt, or 20 if `ack` is `"accepted"` | see [retries](#retries) |
//! | `chain` | array | none | see [chains](#chains) |
//! | `chain-config` | object | `{}` | how the items of a `chain` are done |
//! | `credential_cleanup` | object | none | see [below](#credentials) |
//! | `metadata` | any | none | for the application: see [`Webhook::metadata`] |
//!
//! A key that is not known is refused, with the nearest one that is, as is a key that stands twice: a misspelt guard
//! must not open a webhook. A webhook without any guard is open to everybody; the store counts those.
//!
//! What is odd and no reason to refuse the value is a [warning](crate::Webhook::warnings): a number of `retry` that was moved
//! into range, `retry` without `enabled`, a `module` beside a `chain`, a `connection` that no module asks for. Every other
//! number that is out of range is refused.
//!
//! A value has at most 512 KiB, 20,000 keys and items in all, and arrays and objects 64 levels deep. It has at most 1,000
//! placeholders, and what they come to has at most 512 KiB. The items of a chain have at most 20,000 keys and items once
//! each has its copy of `module-config`, and the copies have at most 512 KiB together.
//!
//! # Retries
//!
//! The key `retry` says whether an attempt that failed is followed by another. Without it an event that is answered
//! when it is delivered is tried once, and one that was accepted 20 times, with the other defaults below.
//!
//! | key | default | moved into | |
//! |---|---|---|---|
//! | `enabled` | `false` | | without it there is one attempt |
//! | `max_attempts` | 3 | 1 to 20 | with the first |
//! | `initial_delay` | 1 | 0 to 60 | seconds, before the second attempt |
//! | `max_delay` | 60 | `initial_delay` to 60 | seconds |
//! | `backoff_multiplier` | 2 | 0.1 to 10 | of the delay, after each attempt |
//! | `retryable_errors` | `connect`, `timeout`, `io`, `unavailable`, `throttled` | | what may be tried again |
//! | `non_retryable_errors` | none | | taken away from those |
//!
//! The delay is the longest wait: each is drawn evenly between nothing and it. What a target asks for in `Retry-After`
//! is waited for besides, one hour at most. Errors are the labels of
//! [`DeliverErrorKind`](crate::event::DeliverErrorKind) or `any`. `http_5xx` is accepted for `unavailable`, and
//! `http_429` for `throttled`; these class names of Python's, plain or qualified,
//! are read as labels: `ConnectionError`, `ConnectionRefusedError`, `ConnectionResetError`, `ConnectionAbortedError`,
//! `BrokenPipeError` (`connect`), `TimeoutError` (`timeout`), `OSError`, `IOError` (`io`), `AuthenticationError`,
//! `PermissionError` (`auth`), `ValueError`, `KeyError`, `TypeError` (`config`).
//!
//! # Chains
//!
//! A `chain` gives each event to 1 to 20 modules; the webhook's own `module` then has no effect. An item is the name
//! of a module, or an object with `module`, and with `connection`, `module-config` and `retry` if it is to have others
//! than the webhook's: the keys of its `module-config` are laid over those of the webhook's. Every item gets the same
//! event.
//!
//! | key of `chain-config` | default | |
//! |---|---|---|
//! | `execution` | `"sequential"` | in order; or `"parallel"`, all at once |
//! | `continue_on_error` | `true` | else the first failure ends the attempt: what has not begun does not, what runs is dropped |
//! | `timeout` | 30 | seconds for one attempt at the whole chain, at most 3600; what is not done then has failed |
//!
//! The event is delivered when every item has it. If some failed, those are tried again whose `retry` allows it, after
//! the longest of their waits, and what is done is not repeated. Attempts are counted for the event, not for each item.
//! The error is that of the first item, in order, that failed.
//!
//! # Credentials
//!
//! What is delivered is what was sent, credentials included, unless the webhook has the key `credential_cleanup`:
//!
//! | key | default | |
//! |---|---|---|
//! | `enabled` | `true` | |
//! | `mode` | `"mask"` | the value becomes the string `***REDACTED***`; or `"remove"`, the field goes |
//! | `fields` | `[]` | more names, in any case |
//!
//! It acts on header fields and, if the webhook's `data_type` is `json`, on the fields of every object in the body; if it
//! is `form`, on the form's fields, and in a value that is JSON, on the fields of every object. It acts on those
//! whose name contains `auth`, `cookie`, `credential`, `key`, `password`, `secret` or `token`, or is another that the
//! module `log` would redact. Such a value goes whole, whatever it is, and so may what only sounds like a secret:
//! `author`, `monkey`. Everything else stays byte for byte; a signature over the body is broken. A body that cannot be
//! read to its end is not delivered at all. Guards and `CheckPayload` see what was sent.
//!
//! # Keys of a connection
//!
//! | key | type | default | |
//! |---|---|---|---|
//! | `type` | string | required | the kind of the connection, in the [`Registry`] |
//! | `allowed_namespaces` | array of strings | all | the namespaces whose webhooks may name it; with `[]` none may |
//!
//! All other keys are the kind's: see [`HttpConnectionConfig`](crate::module::HttpConnectionConfig) for `http`. A
//! connection is compiled by itself, and refused by itself. A webhook that names one that is missing, that has never
//! compiled, that is of another kind than its module needs or that does not allow its namespace is refused. What webhooks
//! share of a connection is its client: see [`module::connection`](crate::module::connection).
//!
//! # Placeholders
//!
//! `{$VAR}` and `{$VAR:default}` in a string value stand for an environment variable, whole or inside a longer text;
//! keys are not touched. The value is taken as it is. When the placeholder is the whole value and the field is a number
//! or a boolean, it is read as one. A variable that is not set and has no default is an error, and so is a `{$` that
//! begins no placeholder.
//!
//! A variable that a connection names is not for webhooks: one that names it, too, is refused, also where the
//! placeholder has a default. Whoever may write a webhook could else send a connection's password anywhere. So a variable
//! that a connection begins to use takes every webhook out of service that uses it, at once; give the two a variable each. When the connection is deleted, or names it no more, webhooks may use it again. A connection that is
//! refused keeps its variables for itself all the same.
//!
//! `{$file:name}` stands for the text of a file, without a line break at its end: `{namespace}/name` in the [directory of
//! secrets](crate::Registry::secrets_dir), or `shared/name` if the namespace has no such file; `global/name` or
//! `shared/name` for a connection. There is no default, and no variable can be called `file`. The name has 1 to 128 of the
//! characters `A-Z a-z 0-9 . _ -`. The file is regular, has at most 64 KiB, is UTF-8 and not blank; symbolic links may not
//! lead out of the directory. Anything else is an error, and so is a file that is missing. What names a file is compiled
//! again when the file changes; if it is then missing or bad, that is a refusal like any other, and the last good value
//! keeps serving ([`OnInvalid::Keep`](crate::OnInvalid::Keep)). A file that a connection names is not for webhooks.
//!
//! Other placeholders are not filled in. A secret must be no such placeholder, and must not be blank; a variable in it, or
//! the default, must not be blank either, also inside a longer text. The texts of a guard are secrets, and what stands in
//! `module-config` or in a connection under the name of a secret (`password`, `api_key`, `signing_secret`,
//! `Authorization`) or of an address (`url`, `uri`, `dsn`): see [`check_secret`](crate::base::secret::check_secret).
//!
//! [`Registry`]: crate::Registry
//! [`Promise`]: crate::Promise
//! [`Webhook::metadata`]: crate::Webhook::metadata

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
mod secret_files;
pub(crate) mod secrets;
mod variables;
mod warning;

pub(crate) use self::connection::{BuiltConnection, Connection, ConnectionSpec, SharedClient};
pub use self::context::BuildContext;
pub use self::data_type::DataType;
#[cfg(feature = "file")]
pub(crate) use self::error::shown;
pub use self::error::{BuildError, CompileError};
pub(crate) use self::error::{did_you_mean, missing_key, quote, unknown_key};
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
pub(crate) use self::secret_files::SecretFiles;
pub(crate) use self::secrets::Place;
pub(crate) use self::variables::{OF_CONNECTIONS, Variables, candidates, is_file};
pub(crate) use self::warning::{Notes, Warning, Warnings};
