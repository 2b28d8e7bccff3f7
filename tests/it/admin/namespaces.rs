//! A token of a namespace sees and does nothing in another one, whatever it asks for.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::Value;
use tokio::runtime::Runtime;

use super::world::{A, ALL, World};
use crate::support::Answer;

/// Texts that answer for the namespace `b`.
const MARKERS: [&str; 4] = ["b-marker", "target of b", "\"b/", "\"namespace\":\"b\""];

/// Each route with its parameters, from the service's own description.
static ROUTES: LazyLock<Vec<(String, String, Vec<String>)>> = LazyLock::new(|| {
    let runtime = Runtime::new().unwrap();
    let document = runtime.block_on(async { World::new().await.ask(ALL, "GET /openapi.json").await.json() });
    let mut routes = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let parameters = operation["parameters"].as_array().unwrap().iter();
            let names =
                parameters.filter(|one| one["in"] == "query").map(|one| one["name"].as_str().unwrap().to_owned());
            routes.push((method.to_uppercase(), path.clone(), names.collect()));
        }
    }
    assert!(routes.len() > 20, "{routes:?}");
    routes
});

/// The owner of the thing that a request names: `a`, `b`, or nobody, if it does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Own,
    Other,
    Nobody,
}

/// The kind of thing that the path of a route names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    /// Nothing: the answer shows what the token may see.
    Nothing,
    Webhook,
    Event,
    Waiting,
    DeadLetter,
    /// Nothing, and the answer never ends: it has a test of its own.
    Stream,
}

impl Names {
    /// A route without a line here fails: it needs one.
    fn of(method: &str, path: &str) -> Self {
        match (method, path) {
            ("GET", "/session" | "/health" | "/ready" | "/config-status" | "/system" | "/openapi.json") => {
                Self::Nothing
            }
            ("GET", "/webhooks" | "/events" | "/events/summary" | "/waiting") => Self::Nothing,
            ("GET", "/dead-letters" | "/dead-letters/groups") => Self::Nothing,
            ("POST", "/dead-letters/replay" | "/dead-letters/delete") => Self::Nothing,
            ("GET", "/webhooks/{namespace}/{webhook}") => Self::Webhook,
            ("POST", "/webhooks/{namespace}/{webhook}/test") => Self::Webhook,
            ("GET" | "DELETE", "/events/{id}") => Self::Event,
            ("GET", "/events/{id}/body") | ("POST", "/events/{id}/replay") => Self::Event,
            ("GET" | "DELETE", "/waiting/{id}") | ("POST", "/waiting/{id}/retry") => Self::Waiting,
            ("GET" | "DELETE", "/dead-letters/{id}") => Self::DeadLetter,
            ("POST", "/dead-letters/{id}/replay") => Self::DeadLetter,
            ("GET", "/events/live") => Self::Stream,
            _ => panic!("say what the path of the route {method} {path} names"),
        }
    }
}

/// How a route is asked.
#[derive(Clone, Debug)]
struct Asked {
    route: usize,
    whose: Whose,
    nth: usize,
    /// Which of the route's parameters are given.
    parameters: Vec<bool>,
    /// Also an id of another kind must show nothing, such as a dead letter's as that of an event.
    other_kind: bool,
}

/// How many things of each kind there are in each namespace.
const THINGS: usize = 4;

struct Filled {
    world: World,
    /// Events, waiting events and dead letters.
    own: [Vec<String>; 3],
    other: [Vec<String>; 3],
}

impl Filled {
    async fn new() -> Self {
        let mut world = World::new().await;
        let (mut own, mut other) = ([const { Vec::new() }; 3], [const { Vec::new() }; 3]);
        for _ in 0..THINGS {
            for (namespace, ids) in [("a", &mut own), ("b", &mut other)] {
                ids[0].push(world.record(namespace, |_| {}).to_string());
                ids[1].push(world.accept(namespace, &format!("\"{namespace}-marker\"")).await.0.to_string());
                ids[2].push(world.dead_letter(namespace, &format!("\"{namespace}-marker\"")).await.to_string());
            }
        }
        Self { world, own, other }
    }

    fn line(&self, asked: &Asked, whose: Whose) -> String {
        let (method, path, names) = &ROUTES[asked.route];
        let (namespace, ids) = match whose {
            Whose::Own => ("a", &self.own),
            Whose::Other => ("b", &self.other),
            Whose::Nobody => ("zzz", &self.own),
        };
        let kind = match Names::of(method, path) {
            Names::Waiting => 1,
            Names::DeadLetter => 2,
            _ => 0,
        };
        let kind = if asked.other_kind { (kind + 1) % 3 } else { kind };
        let id = match whose {
            Whose::Nobody => "019c8a3e-0000-7000-8000-000000000000",
            _ => &ids[kind][asked.nth],
        };
        let webhook = if asked.nth.is_multiple_of(2) { "direct" } else { "queued" };
        let path = path.replace("{namespace}", namespace).replace("{webhook}", webhook).replace("{id}", id);
        let mut query = Vec::new();
        for (name, is_there) in names.iter().zip(&asked.parameters) {
            // Without its times, the counts are those of the last hour, whose bounds change.
            let is_there = *is_there || (path == "/events/summary" && matches!(&**name, "since" | "until"));
            let value = match &**name {
                "namespace" => namespace,
                "webhook" => webhook,
                "q" => "marker",
                "since" => "2020-01-01T00:00:00Z",
                "until" => "2100-01-01T00:00:00Z",
                "dry_run" => ["true", "false"][asked.nth % 2],
                "limit" => "3",
                "outcome" => "delivered,failed",
                "kind" if path.starts_with("/dead") => "permanent",
                "older_than" => "0",
                // These name one of few things, none of which is a namespace's.
                "kind" | "status" | "state" | "min_revision" | "after" => continue,
                name => panic!("give the parameter {name} of {method} {path} a value"),
            };
            if is_there {
                query.push(format!("{name}={value}"));
            }
        }
        format!("{method} {path}?{}", query.join("&"))
    }

    /// Everything that there is in `b`.
    async fn other(&self) -> Vec<Value> {
        let mut all = Vec::new();
        for path in
            ["/events?namespace=b", "/waiting?namespace=b", "/dead-letters?namespace=b", "/webhooks?namespace=b"]
        {
            all.push(self.world.ask(ALL, &format!("GET {path}")).await.json());
        }
        for id in &self.other[0] {
            all.push(self.world.ask(ALL, &format!("GET /events/{id}")).await.json()["actions"].clone());
        }
        all
    }

    async fn check(&self, asked: &Asked) -> Result<(), TestCaseError> {
        let line = self.line(asked, asked.whose);
        let answer = self.world.ask(A, &line).await;
        let text = shown(&answer);
        prop_assert!(answer.status != 401 && answer.status != 500, "{}: {}", line, text);
        for marker in MARKERS {
            prop_assert!(!text.contains(marker), "{}: {}", line, text);
        }
        for id in self.other.iter().flatten() {
            prop_assert!(!text.contains(id), "{}: {}", line, text);
        }
        let (method, path, _) = &ROUTES[asked.route];
        if asked.whose == Whose::Other && Names::of(method, path) != Names::Nothing {
            prop_assert_eq!(answer.status.as_u16(), 404, "{}: {}", line, text);
        }
        if asked.whose == Whose::Other && self.line(asked, Whose::Nobody) != line {
            // What belongs to others cannot be told from what does not exist.
            let nobody = self.world.ask(A, &self.line(asked, Whose::Nobody)).await;
            prop_assert_eq!((answer.status, text), (nobody.status, shown(&nobody)), "{}", line);
        }
        Ok(())
    }
}

/// Each route, in any order: its own things, and those of others.
fn asked() -> impl Strategy<Value = Vec<Asked>> {
    let one = |route: usize, whose: Whose| {
        let parameters = prop::collection::vec(any::<bool>(), 12);
        (0..THINGS, parameters, prop::bool::weighted(0.2)).prop_map(move |(nth, parameters, other_kind)| Asked {
            route,
            whose,
            nth,
            parameters,
            other_kind,
        })
    };
    let is_answered = |route: &usize| Names::of(&ROUTES[*route].0, &ROUTES[*route].1) != Names::Stream;
    let routes = (0..ROUTES.len()).filter(is_answered);
    let all: Vec<_> = routes.flat_map(|route| [one(route, Whose::Other), one(route, Whose::Own)]).collect();
    all.prop_shuffle()
}

fn shown(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn a_token_of_a_namespace_sees_and_does_nothing_in_another_whatever_the_route(requests in asked()) {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let filled = Filled::new().await;
            let before = filled.other().await;
            for asked in &requests {
                filled.check(asked).await?;
            }
            let after = filled.other().await;
            prop_assert_eq!(before, after);
            Ok(())
        })?;
    }
}

/// The lists of the token are those of a token that sees all, without what belongs to others.
#[tokio::test]
async fn a_list_of_a_namespace_is_the_part_of_the_whole_list() {
    let filled = Filled::new().await;
    for (path, name) in
        [("/events", "events"), ("/waiting", "waiting"), ("/dead-letters", "dead_letters"), ("/webhooks", "webhooks")]
    {
        let list = async |token: &str| {
            let answer = filled.world.ask(token, &format!("GET {path}")).await.json();
            answer[name].as_array().unwrap().clone()
        };
        let (own, mut all) = (list(A).await, list(ALL).await);
        let namespaces: BTreeSet<_> = all.iter().map(|one| one["namespace"].as_str().unwrap().to_owned()).collect();
        assert_eq!(namespaces.len(), 2, "{path}");
        all.retain(|one| one["namespace"] == "a");
        assert_eq!(own, all, "{path}");
    }
    let total = async |token: &str, path: &str| filled.world.ask(token, path).await.json()["total"].clone();
    for path in ["GET /waiting", "GET /dead-letters", "GET /events/summary"] {
        assert_eq!(total(A, path).await.as_u64().unwrap() * 2, total(ALL, path).await.as_u64().unwrap(), "{path}");
    }
}

/// The live events of others are not shown, not even their number.
#[tokio::test]
async fn a_stream_has_the_events_of_the_namespace_only() {
    use bytes::Bytes;
    use http::Request;
    use http_body_util::{BodyExt, Full};
    use tower::ServiceExt;

    let world = World::new().await;
    let request = Request::get("/events/live").header("authorization", format!("Bearer {A}"));
    let answer = world.admin.clone().oneshot(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    let mut body = answer.into_body();
    for _ in 0..3000 {
        world.record("b", |_| {});
    }
    let own = world.record("a", |_| {});
    let mut text = String::new();
    while !text.contains(&own.to_string()) {
        let frame = crate::support::within("a piece", body.frame()).await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    assert!(!text.contains("marker") && !text.contains("\"b/"), "{text}");
    assert!(text.contains("event: missed\ndata: {\"count\":null}"), "{text}");
    assert_eq!(text.matches("event: event\n").count(), 1, "{text}");
}
