//! The received header fields that a module sends on.

use std::collections::HashSet;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::base::secret_names::is_credential;
use crate::config::BuildError;

/// Fields that concern one connection (RFC 9110 §7.6.1), or the framing of the message on it.
const CONNECTION_FIELDS: [HeaderName; 11] = [
    header::CONNECTION,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
    header::CONTENT_LENGTH,
    header::EXPECT,
];

/// The received fields that are sent on. The fields of the sender's connection, including those that its `Connection`
/// names, never are; credentials are only if they are named.
#[derive(Debug)]
pub(crate) enum Forward {
    Nothing,
    Everything,
    Only(Vec<HeaderName>),
}

impl Forward {
    /// The rule of the options `forward_headers` and `allowed_headers`. The names in `reserved` belong to the module.
    pub(crate) fn new(
        forward_headers: bool,
        allowed_headers: Option<&[String]>,
        reserved: &[HeaderName],
    ) -> Result<Self, BuildError> {
        match (forward_headers, allowed_headers) {
            (false, None) => Ok(Self::Nothing),
            (false, Some(_)) => Err("`allowed_headers` requires `forward_headers`".into()),
            (true, None) => Ok(Self::Everything),
            (true, Some(names)) => {
                let names = names.iter().map(|name| name_of(name, reserved)).collect::<Result<_, _>>();
                Ok(Self::Only(names.map_err(|error| format!("`allowed_headers` has a name that {error}"))?))
            }
        }
    }

    /// Whether the field `name` decides what is sent on: it is sent on itself, or it says which fields are.
    pub(crate) fn uses(&self, name: &HeaderName) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => {
                name == header::CONNECTION || !(is_credential(name) || CONNECTION_FIELDS.contains(name))
            }
            Self::Only(names) => name == header::CONNECTION || names.contains(name),
        }
    }

    /// The `received` fields that are sent on, without fields that are `in_the_way`. The values of a name follow each other.
    pub(crate) fn of<'a>(
        &self,
        received: &'a HeaderMap,
        in_the_way: impl Fn(&HeaderName) -> bool,
    ) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> {
        let received = (!matches!(self, Self::Nothing)).then_some(received);
        let of_the_connection = received.map(named_by_connection).unwrap_or_default();
        received.into_iter().flatten().filter(move |(name, _)| {
            let wanted = match self {
                Self::Nothing => false,
                Self::Everything => !is_credential(name),
                Self::Only(names) => names.contains(name),
            };
            let is_of_the_connection =
                || CONNECTION_FIELDS.contains(name) || of_the_connection.contains(name.as_str().as_bytes());
            wanted && !is_of_the_connection() && !in_the_way(name)
        })
    }
}

/// Parses the name of a field that the configuration may set or forward. The error continues "a name that".
pub(crate) fn name_of(text: &str, reserved: &[HeaderName]) -> Result<HeaderName, &'static str> {
    let name = HeaderName::try_from(text).map_err(|_| "no field can have")?;
    if CONNECTION_FIELDS.contains(&name) {
        return Err("belongs to the connection or to the framing");
    }
    if reserved.contains(&name) {
        return Err("this module always sets itself");
    }
    Ok(name)
}

/// The additional fields that the sender's `Connection` names.
fn named_by_connection(received: &HeaderMap) -> HashSet<Vec<u8>> {
    // As bytes: an invalid byte makes one name unusable, not the whole list.
    let lists = received.get_all(header::CONNECTION).iter().map(HeaderValue::as_bytes);
    let names = lists.flat_map(|list| list.split(|&byte| byte == b','));
    names.map(|name| name.trim_ascii().to_ascii_lowercase()).collect()
}
