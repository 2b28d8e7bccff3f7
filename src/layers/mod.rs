//! The tower layers. The page of each has an example, and [`guide::layers`](crate::guide::layers) says which other layers it
//! needs before it.
//!
//! `examples/axum_app.rs` puts some of them in front of one route of an axum application, `examples/hyper_app.rs` in front
//! of a service on hyper.

mod call_auth;
mod challenge;
mod challenge_future;
mod check_payload;
mod checks;
mod collect_body;
mod dedup;
mod dispatch;
pub(crate) mod evidence;
mod finish;
mod handshake;
mod lookup;
mod observe;
pub(crate) mod problem_json;
mod record_history;
mod require_auth;
mod require_post;
mod route;
mod trace;
mod verify_body;

pub use self::call_auth::{CallAuth, CallAuthFuture, CallAuthLayer};
pub use self::challenge::{Challenge, ChallengeLayer};
pub use self::challenge_future::ChallengeFuture;
pub use self::check_payload::{CheckPayload, CheckPayloadLayer};
pub(crate) use self::checks::Checked;
pub use self::collect_body::{CollectBody, CollectBodyFuture, CollectBodyLayer};
pub use self::dedup::{Dedup, DedupFuture, DedupLayer};
pub use self::dispatch::{Dispatch, DispatchFuture};
pub use self::finish::{Finish, FinishFuture, FinishLayer, Remainders};
pub use self::handshake::{AnswerHandshake, HandshakeLayer};
pub use self::lookup::{LookupWebhook, LookupWebhookLayer};
pub(crate) use self::observe::{CountWebhooks, CountWebhooksLayer};
pub use self::observe::{Observe, ObserveFuture, ObserveLayer};
pub use self::problem_json::{ProblemBody, ProblemJson, ProblemJsonFuture, ProblemJsonLayer};
pub use self::record_history::{RecordHistory, RecordHistoryFuture, RecordHistoryLayer};
pub use self::require_auth::{RequireAuth, RequireAuthLayer};
pub use self::require_post::{RequirePost, RequirePostLayer};
#[cfg(fuzzing)]
pub(crate) use self::route::fuzz;
pub use self::route::{RouteNamespace, RouteNamespaceFuture, RouteNamespaceLayer};
pub use self::verify_body::{VerifyBody, VerifyBodyLayer};
