//! The table of routes: the paths below the mount point, and what each of them takes.

use http::header::{self, HeaderValue};
use http::{Method, StatusCode};

use super::answer::Problem;

/// The parameters that select events.
const EVENTS: &[&str] = &["namespace", "webhook", "outcome", "kind", "status", "q", "since", "until", "limit", "after"];
const SUMMARY: &[&str] = &["namespace", "webhook", "outcome", "kind", "status", "q", "since", "until"];
/// The parameters that select dead letters.
const LETTERS: &[&str] = &["namespace", "webhook", "kind", "older_than", "q", "limit", "after"];
const GROUPS: &[&str] = &["namespace", "webhook", "kind", "older_than", "q"];
const MANY_LETTERS: &[&str] = &["namespace", "webhook", "kind", "older_than", "q", "dry_run"];

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const DELETE: Method = Method::DELETE;

/// Every route but the files of the page. The document of OpenAPI is made from this table too.
pub(super) const ROUTES: &[Route] = &[
    Route::new(GET, "/session", Call::Session, &[]),
    Route::new(GET, "/health", Call::Health, &[]),
    Route::new(GET, "/ready", Call::Ready, &["min_revision"]),
    Route::new(GET, "/config-status", Call::ConfigStatus, &[]),
    Route::new(GET, "/system", Call::System, &[]),
    Route::new(GET, "/webhooks", Call::Webhooks, &["namespace", "state", "q", "after"]),
    Route::new(GET, "/webhooks/{namespace}/{webhook}", Call::Webhook, &[]),
    Route::new(POST, "/webhooks/{namespace}/{webhook}/test", Call::TestEvent, &[]),
    Route::new(GET, "/events", Call::Events, EVENTS),
    Route::new(GET, "/events/summary", Call::Summary, SUMMARY),
    Route::new(GET, "/events/live", Call::Live, &[]),
    Route::new(GET, "/events/{id}", Call::Event, &[]),
    Route::new(DELETE, "/events/{id}", Call::EraseEvent, &[]),
    Route::new(GET, "/events/{id}/body", Call::EventBody, &[]),
    Route::new(POST, "/events/{id}/replay", Call::ReplayEvent, &[]),
    Route::new(GET, "/waiting", Call::Waiting, &["namespace", "webhook", "limit", "after"]),
    Route::new(GET, "/waiting/{id}", Call::WaitingEvent, &[]),
    Route::new(DELETE, "/waiting/{id}", Call::Drop, &[]),
    Route::new(POST, "/waiting/{id}/retry", Call::Retry, &[]),
    Route::new(GET, "/dead-letters", Call::DeadLetters, LETTERS),
    Route::new(GET, "/dead-letters/groups", Call::DeadLetterGroups, GROUPS),
    Route::new(POST, "/dead-letters/replay", Call::ReplayMany, MANY_LETTERS),
    Route::new(POST, "/dead-letters/delete", Call::DeleteMany, MANY_LETTERS),
    Route::new(GET, "/dead-letters/{id}", Call::DeadLetter, &[]),
    Route::new(DELETE, "/dead-letters/{id}", Call::DeleteDeadLetter, &[]),
    Route::new(POST, "/dead-letters/{id}/replay", Call::ReplayDeadLetter, &[]),
    Route::new(GET, "/openapi.json", Call::OpenApi, &[]),
];

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Call {
    Session,
    Health,
    Ready,
    ConfigStatus,
    System,
    Webhooks,
    Webhook,
    TestEvent,
    Events,
    Summary,
    Live,
    Event,
    EraseEvent,
    EventBody,
    ReplayEvent,
    Waiting,
    WaitingEvent,
    Drop,
    Retry,
    DeadLetters,
    DeadLetterGroups,
    ReplayMany,
    DeleteMany,
    DeadLetter,
    DeleteDeadLetter,
    ReplayDeadLetter,
    OpenApi,
}

impl Call {
    /// Whether the answer counts as one of those that are made or read at a time. The others are small or bounded apart.
    pub(super) fn needs_place(self) -> bool {
        !matches!(self, Self::Session | Self::Health | Self::Ready | Self::Live)
    }
}

/// A method and a path, whose pieces in braces stand for any text.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) call: Call,
    /// The names of the query's parameters.
    pub(super) query: &'static [&'static str],
}

impl Route {
    const fn new(method: Method, path: &'static str, call: Call, query: &'static [&'static str]) -> Self {
        Self { method, path, call, query }
    }

    /// Whether the route changes anything, and so needs the right to write.
    pub(super) fn writes(&self) -> bool {
        self.method != GET
    }

    /// The texts that stand for the pieces in braces, and the number of pieces that are equal; `None` if the path differs.
    fn fit<'a>(&self, path: &'a str) -> Option<(usize, Vec<&'a str>)> {
        let (mut equal, mut pieces) = (0, Vec::new());
        let (mut wanted, mut found) = (self.path.split('/'), path.split('/'));
        loop {
            match (wanted.next(), found.next()) {
                (None, None) => return Some((equal, pieces)),
                (Some(wanted), Some(found)) if wanted == found => equal += 1,
                (Some(wanted), Some(found)) if wanted.starts_with('{') && !found.is_empty() => pieces.push(found),
                _ => return None,
            }
        }
    }
}

/// A route, and the texts that stand for its pieces in braces.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) route: &'static Route,
    pub(super) pieces: Vec<&'a str>,
}

/// The route of a request. HEAD is answered as GET.
///
/// # Errors
///
/// A 404 for another path, a 405 for another method.
pub(super) fn find<'a>(method: &Method, path: &'a str) -> Result<Found<'a>, Problem> {
    let fitting: Vec<_> =
        ROUTES.iter().filter_map(|route| route.fit(path).map(|(equal, pieces)| (equal, route, pieces))).collect();
    // `/dead-letters/replay` is no dead letter.
    let nearest = fitting.iter().map(|(equal, ..)| *equal).max();
    let mut nearest: Vec<_> = fitting.into_iter().filter(|(equal, ..)| Some(*equal) == nearest).collect();
    let method = if method == Method::HEAD { &GET } else { method };
    if let Some(at) = nearest.iter().position(|(_, route, _)| route.method == method) {
        let (_, route, pieces) = nearest.swap_remove(at);
        return Ok(Found { route, pieces });
    }
    if nearest.is_empty() {
        return Err(Problem::not_found("Not Found"));
    }
    Err(wrong_method(nearest.iter().map(|(_, route, _)| &route.method)))
}

/// A 405 for a path with these methods.
pub(super) fn wrong_method<'a>(methods: impl Iterator<Item = &'a Method>) -> Problem {
    let mut allowed: Vec<&str> = methods.map(Method::as_str).collect();
    if allowed.contains(&"GET") {
        allowed.push("HEAD");
    }
    allowed.sort_unstable();
    let allowed = allowed.join(", ");
    let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("expected one of the methods {allowed}"));
    match HeaderValue::from_str(&allowed) {
        Ok(allowed) => problem.with(header::ALLOW, allowed),
        Err(_) => problem,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_route_is_found_by_its_own_path() {
        let mut calls = HashSet::new();
        for route in ROUTES {
            let path = route.path.replace("{id}", "x").replace("{namespace}", "a").replace("{webhook}", "b");
            let found = find(&route.method, &path).unwrap();
            assert_eq!(found.route.call, route.call, "{path}");
            assert_eq!(found.pieces.len(), route.path.matches('{').count(), "{path}");
            assert!(calls.insert(route.call), "{:?} has one route", route.call);
        }
    }

    #[test]
    fn a_literal_path_is_nearer_than_one_with_a_piece() {
        let status = |method: Method, path| find(&method, path).map(|found| found.route.call).map_err(|_| ());
        assert_eq!(status(GET, "/events/live"), Ok(Call::Live));
        assert_eq!(status(Method::HEAD, "/events/x"), Ok(Call::Event));
        assert_eq!(status(DELETE, "/events/live"), Err(()));
        assert_eq!(status(GET, "/dead-letters/replay"), Err(()));
        for path in ["", "/", "/events/", "/events//body", "//events", "/events/x/y", "/Session", "/webhooks/a"] {
            assert_eq!(find(&GET, path).unwrap_err().into_answer().status(), 404, "{path}");
        }
    }

    #[test]
    fn a_wrong_method_is_told_the_right_ones() {
        let allow = |method: &[u8], path| {
            let answer = find(&Method::from_bytes(method).unwrap(), path).unwrap_err().into_answer();
            assert_eq!(answer.status(), 405);
            answer.headers()["allow"].to_str().unwrap().to_owned()
        };
        assert_eq!(allow(b"PUT", "/events/x"), "DELETE, GET, HEAD");
        assert_eq!(allow(b"GET", "/dead-letters/replay"), "POST");
        assert_eq!(allow(b"OPTIONS", "/health"), "GET, HEAD");
    }
}
