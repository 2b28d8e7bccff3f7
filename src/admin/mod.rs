//! The admin service: a tower service for operators, with a page that shows what happened.
//!
//! [`Admin`] answers the routes below the path where it is mounted: the state of the configuration, the events that
//! arrived, those that wait, and dead letters. `/openapi.json` describes each route, and `/ui/` is a page for a browser.
//! Everything but the files of the page needs a token.
//!
//! ```
//! use axum::Router;
//! use tower_webhook::admin::{Admin, AdminToken, AdminTokens, Operator};
//! use tower_webhook::source::FixedSource;
//! use tower_webhook::{Registry, receiver, reflect};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (store, reflector) = reflect(FixedSource::new(), Registry::builtin());
//! tokio::spawn(reflector.run());
//!
//! let token = AdminToken::new(Operator::new("ops")?, "s3cret")?; // of the environment, in a program
//! let admin = Admin::new(store.clone()).tokens(AdminTokens::new(vec![token])?);
//! let app: Router = Router::new().nest_service("/webhook", receiver(store)).nest_service("/admin", admin);
//!
//! use axum::{body::Body, http::Request};
//! use tower::ServiceExt;
//! let request = Request::get("/admin/config-status").header("authorization", "Bearer s3cret").body(Body::empty())?;
//! assert_eq!(app.oneshot(request).await?.status(), 200);
//! # Ok(()) }
//! ```
//!
//! The service needs no axum: `tests/it/admin.rs` serves it with bare hyper. It reads the path as it gets it, so whatever
//! mounts it must take the path of the mount point away, as axum's `nest_service` does.

mod answer;
mod body;
mod dead_letters;
mod events;
mod health;
mod live;
mod openapi;
mod probes;
mod query;
mod replay;
mod routes;
mod send;
mod state;
mod tokens;
mod ui;
mod upload;
mod views;
mod waiting;
mod webhooks;

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use tokio::time::timeout;
use tower_service::Service;

use self::answer::{Answer, Problem};
pub use self::body::AdminBody;
use self::dead_letters::Work;
use self::query::Query;
use self::routes::{Call, Found};
use self::state::{Ask, Door, State};
pub use self::tokens::{AdminToken, AdminTokens, InvalidTokens, Operator};
use crate::form;
use crate::history::History;
use crate::queue::Queue;
use crate::request::Peer;
use crate::store::Store;

/// The largest revision that etcd can have.
const MAX_REVISION: u64 = i64::MAX as u64;

/// How long a request waits for its turn to be answered.
const TURN: Duration = Duration::from_secs(10);

/// The admin service. See the [module docs](self).
///
/// Until it has [`tokens`](Self::tokens), or [`without_tokens`](Self::without_tokens) is called, it answers 403 to
/// everything but the files of the page.
///
/// At most four answers are made or read at a time, because some hold a whole event; further requests wait for at most
/// 10 s, and then get 503. At most sixteen streams of events are read at a time.
#[derive(Clone)]
pub struct Admin {
    state: Arc<State>,
}

impl Admin {
    /// A service that shows the configuration in `store`. Nobody is let in yet.
    pub fn new(store: Store) -> Self {
        Self { state: Arc::new(State::new(store)) }
    }

    /// Shows the events that wait in this queue and its dead letters, and lets an operator act on them.
    #[must_use]
    pub fn queue(self, queue: Queue) -> Self {
        self.with(|state| state.queue = Some(queue))
    }

    /// Shows the events of this history.
    #[must_use]
    pub fn history(self, history: History) -> Self {
        self.with(|state| state.history = Some(history))
    }

    /// Lets in requests with `Authorization: Bearer` and one of these tokens.
    #[must_use]
    pub fn tokens(self, tokens: AdminTokens) -> Self {
        self.with(|state| state.door = Door::Tokens(tokens))
    }

    /// Lets every request in: a guard of the application stands before the service.
    ///
    /// The guard may put an [`Operator`] into the extensions of the request. The routes then show and do only what that
    /// operator may see and do, and log lines have its name.
    #[must_use]
    pub fn without_tokens(self) -> Self {
        self.with(|state| state.door = Door::Open)
    }

    /// Lets nobody in, and sets the text of the 403 that says why.
    #[must_use]
    pub fn closed(self, reason: impl Into<Cow<'static, str>>) -> Self {
        let reason = reason.into();
        self.with(|state| state.door = Door::Closed(reason))
    }

    /// Sets the time limit for the delivery of a test event or of a replayed one. The default is 30 s.
    #[must_use]
    pub fn delivery_deadline(self, deadline: Duration) -> Self {
        self.with(|state| state.deadline = deadline)
    }

    /// Sets the future that resolves when the server begins to stop: `/ready` is then answered 503, and streams of events
    /// end, so that they do not delay the stop.
    #[must_use]
    pub fn stop(self, stop: impl Future<Output = ()> + Send + 'static) -> Self {
        self.with(|state| state.stop = stop.boxed().shared())
    }

    /// The service for `/health` and `/ready` alone. It has no guard, since probes have no token.
    pub fn probes(&self) -> Probes {
        Probes { state: Arc::clone(&self.state) }
    }

    fn with(mut self, change: impl FnOnce(&mut State)) -> Self {
        change(Arc::make_mut(&mut self.state));
        self
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

impl<B: Body + Send + 'static> Service<Request<B>> for Admin {
    type Response = Response<AdminBody>;
    type Error = Infallible;
    type Future = AdminFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, req: Request<B>) -> AdminFuture {
        let state = Arc::clone(&self.state);
        let (head, body) = req.into_parts();
        AdminFuture(Box::pin(async move {
            let answered = answer(&state, &head, body).await;
            finish(&head, answered)
        }))
    }
}

/// `/health` and `/ready`, without a guard. See [`Admin::probes`].
#[derive(Clone)]
pub struct Probes {
    state: Arc<State>,
}

impl fmt::Debug for Probes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probes").finish_non_exhaustive()
    }
}

impl<B: Send + 'static> Service<Request<B>> for Probes {
    type Response = Response<AdminBody>;
    type Error = Infallible;
    type Future = AdminFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, req: Request<B>) -> AdminFuture {
        let state = Arc::clone(&self.state);
        let (head, _) = req.into_parts();
        AdminFuture(Box::pin(async move {
            let answered = probe(&state, &head).await;
            finish(&head, answered)
        }))
    }
}

/// Response future of [`Admin`] and of [`Probes`].
pub struct AdminFuture(BoxFuture<'static, Response<AdminBody>>);

impl fmt::Debug for AdminFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminFuture").finish_non_exhaustive()
    }
}

impl Future for AdminFuture {
    type Output = Result<Response<AdminBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

/// Adds the fields that every answer has, and takes the body of an answer to HEAD.
fn finish(head: &Parts, answered: Result<Answer, Problem>) -> Answer {
    let mut answer = answered.unwrap_or_else(Problem::into_answer);
    if head.method == Method::HEAD {
        if let Some(size) = answer.body().size_hint().exact() {
            answer.headers_mut().insert(header::CONTENT_LENGTH, size.into());
        }
        *answer.body_mut() = AdminBody::default();
    }
    let fields = answer.headers_mut();
    fields.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    fields.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// A probe may have any other parameter: it is not looked at.
async fn probe(state: &Arc<State>, head: &Parts) -> Result<Answer, Problem> {
    let Found { route, .. } = routes::find(&head.method, head.uri.path())?;
    match route.call {
        Call::Health => Ok(probes::health(state)),
        Call::Ready => {
            let wrong = || Problem::bad_request("min_revision must be a whole number");
            let query = head.uri.query().unwrap_or_default().as_bytes();
            let revision = match form::fields(query).any(|field| field.name == b"min_revision") {
                true => {
                    Some(form::find(query, "min_revision").ok().and_then(|text| text.parse().ok()).ok_or_else(wrong)?)
                }
                false => None,
            };
            probes::ready(state, revision).await
        }
        _ => Err(Problem::not_found("Not Found")),
    }
}

async fn answer<B: Body + Send + 'static>(state: &Arc<State>, head: &Parts, body: B) -> Result<Answer, Problem> {
    let path = head.uri.path();
    if let Some(below) = ui::below(path) {
        return ui::answer(head, below);
    }
    if matches!(path, "" | "/") {
        return Err(Problem::not_found("Not Found"));
    }
    let operator = let_in(state, head)?;
    let Found { route, pieces } = routes::find(&head.method, path)?;
    let has_right = if route.writes() { operator.may_write() } else { operator.may_read() };
    if !has_right {
        let right = if route.writes() { "write" } else { "read" };
        return Err(Problem::new(StatusCode::FORBIDDEN, format!("the token does not have the right `{right}`")));
    }
    let query = Query::read(head.uri.query(), route.query)?;
    let ask = Ask { state, operator, query, pieces };
    if !route.call.needs_place() {
        return respond(route.call, &ask, body).await;
    }
    let Ok(Ok(place)) = timeout(TURN, Arc::clone(&state.places).acquire_owned()).await else {
        let busy = "other answers are being read; read those, or end their connections, and try again";
        return Err(Problem::busy(busy));
    };
    // The place is given up with the body, or with a problem at once: that is small.
    Ok(respond(route.call, &ask, body).await?.map(|body| body.hold(place)))
}

/// The operator who sends a request.
fn let_in(state: &State, head: &Parts) -> Result<Operator, Problem> {
    match &state.door {
        Door::Closed(reason) => Err(Problem::new(StatusCode::FORBIDDEN, reason.clone())),
        Door::Open => Ok(head.extensions.get().cloned().unwrap_or_else(Operator::unnamed)),
        Door::Tokens(tokens) => tokens.find(head).ok_or_else(|| {
            log_stranger(state, head);
            let challenge = HeaderValue::from_static(r#"Bearer realm="admin""#);
            let expected = "Unauthorized: expected `Authorization: Bearer` with a valid token";
            Problem::new(StatusCode::UNAUTHORIZED, expected).with(header::WWW_AUTHENTICATE, challenge)
        }),
    }
}

/// Somebody may be guessing a token.
fn log_stranger(state: &State, head: &Parts) {
    let Some(left_out) = state.strangers.admit(()) else { return };
    let left_out = (left_out > 0).then_some(left_out);
    let peer = Peer::of(&head.extensions);
    let client = peer.and_then(Peer::forwarded_for).map(tracing::field::display);
    let peer = peer.map(Peer::address).map(tracing::field::display);
    tracing::warn!(peer, client, left_out, "an admin request was refused: its bearer token is missing or wrong");
}

async fn respond<B: Body + Send + 'static>(call: Call, ask: &Ask<'_>, body: B) -> Result<Answer, Problem> {
    if call == Call::TestEvent {
        return webhooks::test(ask, upload::read(body).await?).await;
    }
    // No other route has one.
    drop(body);
    match call {
        Call::Session => Ok(health::session(ask)),
        Call::Health => Ok(probes::health(ask.state)),
        Call::Ready => probes::ready(ask.state, ask.query.number("min_revision", 0..=MAX_REVISION)?).await,
        Call::ConfigStatus => Ok(health::config_status(ask)),
        Call::System => health::system(ask).await,
        Call::Webhooks => webhooks::list(ask).await,
        Call::Webhook => webhooks::show(ask).await,
        Call::Events => events::list(ask).await,
        Call::Summary => events::summary(ask).await,
        Call::Live => live::open(ask),
        Call::Event => events::show(ask).await,
        Call::EventBody => events::kept_body(ask).await,
        Call::EraseEvent => events::erase(ask).await,
        Call::ReplayEvent => replay::replay(ask).await,
        Call::DeadLetters => dead_letters::list(ask).await,
        Call::DeadLetterGroups => dead_letters::groups(ask).await,
        Call::ReplayMany => dead_letters::many(ask, Work::Replay).await,
        Call::DeleteMany => dead_letters::many(ask, Work::Delete).await,
        Call::DeadLetter => dead_letters::show(ask).await,
        Call::ReplayDeadLetter => dead_letters::replay(ask).await,
        Call::DeleteDeadLetter => dead_letters::delete(ask).await,
        Call::Waiting => waiting::list(ask).await,
        Call::WaitingEvent => waiting::show(ask).await,
        Call::Retry => waiting::retry(ask).await,
        Call::Drop => waiting::drop(ask).await,
        Call::OpenApi => Ok(openapi::answer()),
        // Answered above, with the body.
        Call::TestEvent => Err(Problem::bad_request("the request has no body")),
    }
}
