//! The description of the routes (OpenAPI 3.1), made from the table of routes.

use std::sync::OnceLock;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::answer::{Answer, JSON, of};
use super::dead_letters::MAX_AGE;
use super::query::{MAX_PAGE, MAX_VALUE};
use super::routes::{Call, ROUTES, Route};
use super::upload;
use crate::event::DeliverErrorKind;
use crate::history::Outcome;

/// The schemas that the answers refer to.
const SCHEMAS: &str = include_str!("schemas.json");

pub(super) fn answer() -> Answer {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    let document = DOCUMENT.get_or_init(|| document().to_string().into());
    of(StatusCode::OK, JSON, document.clone())
}

fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let operations = paths.entry(route.path).or_insert_with(|| json!({}));
        operations[route.method.as_str().to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "tower-webhook: admin",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The routes for operators, below the path where they are mounted.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        // Relative to this document.
        "servers": [{"url": "./"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": serde_json::from_str::<Value>(SCHEMAS).unwrap_or_default(),
        },
    })
}

fn operation(route: &Route) -> Value {
    let (summary, status, content) = facts(route.call);
    let mut responses = Map::new();
    let mut success = json!({"description": summary});
    if let Some((content_type, schema)) = content {
        success["content"] = json!({ content_type: {"schema": schema} });
    }
    responses.insert(status.to_string(), success);
    for (status, description) in problems(route) {
        let content = json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}});
        responses.insert(status.to_string(), json!({"description": description, "content": content}));
    }
    let mut operation = json!({
        "operationId": format!("{:?}", route.call),
        "summary": summary,
        "parameters": pieces(route.path).chain(route.query.iter().map(|name| parameter(name, route.call))).collect::<Vec<_>>(),
        "responses": responses,
    });
    if route.call == Call::TestEvent {
        operation["requestBody"] = json!({
            "required": false,
            "description": format!("The event; at most {} bytes.", upload::MAX_BYTES),
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/TestRequest"}}},
        });
    }
    operation
}

/// The summary of a route, the status of its success, and the type and schema of the body.
fn facts(call: Call) -> (&'static str, u16, Option<(&'static str, Value)>) {
    let named = |name: &str| Some(("application/json", json!({"$ref": format!("#/components/schemas/{name}")})));
    match call {
        Call::Session => ("The name, rights and namespaces of the token", 200, named("Session")),
        Call::Health => ("Whether the process can serve", 200, named("Health")),
        Call::Ready => ("Whether a configuration is loaded, and a revision is reached", 200, named("Ready")),
        Call::ConfigStatus => ("The state of the configuration", 200, named("ConfigStatus")),
        Call::System => ("The state of the source, the queue, the history and the process", 200, named("System")),
        Call::Webhooks => ("The webhooks; webhooks in trouble come first", 200, named("Webhooks")),
        Call::Webhook => ("One webhook", 200, named("Webhook")),
        Call::TestEvent => ("Delivers a test event past the guards", 200, named("Tested")),
        Call::Events => ("The events, newest first", 200, named("Events")),
        Call::Summary => ("The counts of events", 200, named("Summary")),
        Call::Live => ("Events as they are answered", 200, Some(("text/event-stream", json!({"type": "string"})))),
        Call::Event => ("One event", 200, named("EventDetail")),
        Call::EraseEvent => ("Erases what is kept of an event", 204, None),
        Call::EventBody => ("The bytes that are kept of the body", 200, Some(("application/octet-stream", json!({})))),
        Call::ReplayEvent => ("Delivers an event again", 202, named("Id")),
        Call::Waiting => ("The events that wait or are being tried", 200, named("WaitingEvents")),
        Call::WaitingEvent => ("One waiting event", 200, named("WaitingDetail")),
        Call::Drop => ("Drops a waiting event", 204, None),
        Call::Retry => ("Tries a waiting event now", 202, named("Id")),
        Call::DeadLetters => ("The dead letters", 200, named("DeadLetters")),
        Call::DeadLetterGroups => ("The dead letters by webhook, kind and reason", 200, named("DeadLetterGroups")),
        Call::ReplayMany => ("Delivers the selected dead letters again", 200, named("Matched")),
        Call::DeleteMany => ("Deletes the selected dead letters", 200, named("Matched")),
        Call::DeadLetter => ("One dead letter", 200, named("DeadLetterDetail")),
        Call::DeleteDeadLetter => ("Deletes a dead letter", 204, None),
        Call::ReplayDeadLetter => ("Delivers a dead letter again", 202, named("Replayed")),
        Call::OpenApi => ("This description", 200, Some(("application/json", json!({"type": "object"})))),
    }
}

/// The statuses of problems, and when they occur.
fn problems(route: &Route) -> Vec<(u16, &'static str)> {
    let mut problems = vec![
        (400, "A parameter, an id or the body is unknown or malformed"),
        (401, "The token is missing or wrong"),
        (403, "No token is set, or the token does not have the right"),
        (500, "The storage failed"),
        (503, "Other answers are being read, or what is asked for is not there yet"),
    ];
    if !matches!(
        route.call,
        Call::Session | Call::Health | Call::Ready | Call::ConfigStatus | Call::System | Call::Webhooks | Call::OpenApi
    ) {
        problems.push((404, "There is no such thing for this token, or no queue, or no history"));
    }
    match route.call {
        Call::TestEvent => problems.extend([
            (408, "The body did not arrive in time"),
            (409, "The webhook has no valid configuration"),
            (413, "The body is too large"),
        ]),
        Call::ReplayEvent => problems.extend([
            (409, "The event must not be delivered again, or waits already"),
            (413, "The queue can never take the event"),
            (502, "The target did not take the event"),
            (504, "The target did not answer in time"),
            (508, "The event has passed too many webhooks"),
        ]),
        _ => {}
    }
    problems
}

/// The pieces of a path that stand for a text.
fn pieces(path: &str) -> impl Iterator<Item = Value> + '_ {
    let names = path.split('/').filter_map(|piece| piece.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| {
        let schema = match name {
            "id" => json!({"type": "string", "format": "uuid"}),
            _ => json!({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}),
        };
        json!({"name": name, "in": "path", "required": true, "schema": schema})
    })
}

/// A parameter of the query.
fn parameter(name: &str, call: Call) -> Value {
    let label = || json!({"type": "string", "pattern": "^[a-z0-9_]{1,64}$"});
    let of_letters = matches!(call, Call::DeadLetters | Call::DeadLetterGroups | Call::ReplayMany | Call::DeleteMany);
    let (description, schema) = match name {
        "namespace" => ("Only this namespace", json!({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"})),
        "webhook" => ("Only webhooks with this id", json!({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"})),
        "state" => ("Only webhooks in this state", json!({"$ref": "#/components/schemas/State"})),
        "outcome" => {
            let one = Outcome::ALL.map(Outcome::label).join("|");
            (
                "Only these outcomes, with commas between them",
                json!({"type": "string", "pattern": format!("^({one})(,({one}))*$"), "maxLength": 200}),
            )
        }
        "kind" if of_letters => (
            "Only this kind of error",
            json!({"type": "string", "enum": DeliverErrorKind::ALL.map(DeliverErrorKind::label)}),
        ),
        "kind" => ("Only this kind of refusal or error", label()),
        "status" => {
            ("A status, or a class of statuses", json!({"type": "string", "pattern": "^([1-5]xx|[1-5][0-9][0-9])$"}))
        }
        "q" => ("Only rows with this text", json!({"type": "string", "minLength": 1, "maxLength": MAX_VALUE})),
        "since" => ("At or after this time", json!({"type": "string", "format": "date-time"})),
        "until" => ("Before this time", json!({"type": "string", "format": "date-time"})),
        "limit" => {
            ("The size of the page", json!({"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": 100}))
        }
        "after" if call == Call::Webhooks => (
            "`next` of the page before",
            json!({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}/[A-Za-z0-9][A-Za-z0-9]{0,31}$"}),
        ),
        "after" => ("`next` of the page before", json!({"type": "string", "format": "uuid"})),
        "older_than" => {
            ("Given up more than this many seconds ago", json!({"type": "integer", "minimum": 0, "maximum": MAX_AGE}))
        }
        "min_revision" => {
            ("Waits for this revision, at most 10 s", json!({"type": "integer", "minimum": 0, "maximum": i64::MAX}))
        }
        "dry_run" => ("Only counts", json!({"type": "boolean", "default": false})),
        _ => ("", json!({"type": "string"})),
    };
    json!({"name": name, "in": "query", "description": description, "schema": schema})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_parameter_has_a_description_and_every_reference_a_schema() {
        let document = document();
        let text = document.to_string();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let referred: BTreeSet<_> =
            text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        for name in &referred {
            assert!(schemas.contains_key(*name), "{name}");
        }
        for name in schemas.keys() {
            assert!(referred.contains(name.as_str()), "{name} is not used");
        }
        for operations in document["paths"].as_object().unwrap().values() {
            for operation in operations.as_object().unwrap().values() {
                for parameter in operation["parameters"].as_array().unwrap() {
                    assert_ne!(parameter["description"], "", "{parameter}");
                }
            }
        }
    }
}
