//! Every tower layer, one file each.

pub mod call_auth;
pub mod challenge;
pub mod check_payload;
pub mod collect_body;
pub mod dedup;
pub mod dispatch;
mod evidence;
pub mod finish;
pub mod handshake;
pub mod lookup;
pub mod observe;
pub mod problem_json;
mod require_auth;
pub mod require_post;
pub mod route;
mod verify_body;

pub use self::call_auth::{CallAuth, CallAuthFuture, CallAuthLayer, DEFAULT_CALL_DEADLINE, DEFAULT_MAX_CALLS};
pub use self::challenge::{Challenge, ChallengeLayer};
pub use self::check_payload::{CheckPayload, CheckPayloadLayer};
pub use self::collect_body::{CollectBody, CollectBodyLayer};
pub use self::dedup::{Dedup, DedupFuture, DedupLayer};
pub use self::dispatch::{DEFAULT_DEADLINE, Dispatch, DispatchFuture};
pub use self::evidence::{Matched, Permit};
pub use self::finish::{Finish, FinishLayer, Remainders};
pub use self::handshake::{AnswerHandshake, ChallengeFuture, HandshakeLayer};
pub use self::lookup::{LookupWebhook, LookupWebhookLayer};
pub use self::observe::{Observe, ObserveLayer};
pub use self::problem_json::{ProblemBody, ProblemJson, ProblemJsonLayer};
pub use self::require_auth::{RequireAuth, RequireAuthLayer};
pub use self::require_post::{RequirePost, RequirePostLayer};
#[cfg(fuzzing)]
pub(crate) use self::route::fuzz;
pub use self::route::{RouteNamespace, RouteNamespaceLayer};
pub use self::verify_body::{VerifyBody, VerifyBodyLayer};
