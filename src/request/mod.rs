//! The types that all layers share: the head, the body and the peer of a request, and refusals.

mod body;
mod client_address;
mod head;
mod memory;
mod missing;
mod peer;
pub(crate) mod rejection;
mod response_future;

pub use self::body::{Collected, ResponseBody};
pub use self::client_address::{ClientAddress, InvalidClientAddress};
pub use self::head::Head;
pub use self::memory::{BodyMemory, SMALL_BODY};
pub(crate) use self::memory::{Charge, Share};
pub(crate) use self::missing::Missing;
pub use self::peer::{ClientCertificate, Peer};
pub(crate) use self::rejection::{Rejection, RejectionKind};
pub use self::response_future::ResponseFuture;
pub use crate::base::network::{InvalidNetwork, Network};
pub use crate::base::secret_names::{REDACTED, is_credential};
