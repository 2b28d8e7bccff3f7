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

/// What a request names: an own thing, a thing of `b`, or nothing that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Own,
    Other,
    Nobody,
}

/// The kind of an id.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Event,
    Waiting,
    DeadLetter,
}

#[derive(Clone, Debug)]
struct Asked {
    route: usize,
    whose: Whose,
    kind: Kind,
    nth: usize,
    parameters: Vec<bool>,
}

struct Filled {
    world: World,
    own: [Vec<String>; 3],
    other: [Vec<String>; 3],
}

impl Filled {
    async fn new() -> Self {
        let mut world = World::new().await;
        let (mut own, mut other) = ([const { Vec::new() }; 3], [const { Vec::new() }; 3]);
        for _ in 0..4 {
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
        let ids = &ids[asked.kind as usize];
        let id = match whose {
            Whose::Nobody => "019c8a3e-0000-7000-8000-000000000000",
            _ => &ids[asked.nth % ids.len()],
        };
        let webhook = if asked.nth.is_multiple_of(2) { "direct" } else { "queued" };
        let path = path.replace("{namespace}", namespace).replace("{webhook}", webhook).replace("{id}", id);
        let mut query = Vec::new();
        for (name, is_there) in names.iter().zip(&asked.parameters) {
            let value = match &**name {
                "namespace" => namespace,
                "webhook" => webhook,
                "q" => "marker",
                "dry_run" => {
                    if asked.nth == 0 {
                        "true"
                    } else {
                        "false"
                    }
                }
                "limit" => "3",
                _ => continue,
            };
            if *is_there {
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
}

fn asked() -> impl Strategy<Value = Asked> {
    let whose = prop::sample::select(vec![Whose::Own, Whose::Other, Whose::Other]);
    let kind = prop::sample::select(vec![Kind::Event, Kind::Waiting, Kind::DeadLetter]);
    let parameters = prop::collection::vec(any::<bool>(), 12);
    (0..ROUTES.len(), whose, kind, 0..4usize, parameters).prop_map(|(route, whose, kind, nth, parameters)| Asked {
        route,
        whose,
        kind,
        nth,
        parameters,
    })
}

fn shown(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_token_of_a_namespace_sees_and_does_nothing_in_another(requests in prop::collection::vec(asked(), 1..60)) {
        let runtime = Runtime::new().unwrap();
        runtime.block_on(async {
            let filled = Filled::new().await;
            let before = filled.other().await;
            for asked in &requests {
                if ROUTES[asked.route].1 == "/events/live" {
                    continue;
                }
                let line = filled.line(asked, asked.whose);
                let answer = filled.world.ask(A, &line).await;
                let text = shown(&answer);
                prop_assert!(answer.status != 401 && answer.status != 500, "{}: {}", line, text);
                for marker in MARKERS {
                    prop_assert!(!text.contains(marker), "{}: {}", line, text);
                }
                for id in filled.other.iter().flatten() {
                    prop_assert!(!text.contains(id), "{}: {}", line, text);
                }
                if asked.whose == Whose::Other && filled.line(asked, Whose::Nobody) != line {
                    // What belongs to others cannot be told from what does not exist.
                    let nobody = filled.world.ask(A, &filled.line(asked, Whose::Nobody)).await;
                    prop_assert_eq!((answer.status, text), (nobody.status, shown(&nobody)), "{}", line);
                }
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
