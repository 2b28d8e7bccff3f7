//! How much is answered at a time.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::ServiceExt;
use tower_webhook::admin::AdminBody;

use super::world::{ALL, World};
use crate::support::Answer;

async fn open(world: &World, path: &str) -> http::Response<AdminBody> {
    let request = Request::get(path).header("authorization", format!("Bearer {ALL}"));
    world.admin.clone().oneshot(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn four_answers_are_read_at_a_time() {
    let world = World::new().await;
    let mut kept = Vec::new();
    for _ in 0..4 {
        kept.push(open(&world, "/webhooks").await);
    }
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let busy = Answer::of(open(&world, "/webhooks").await).await;
    assert_eq!(busy.header("retry-after"), "1");
    busy.problem(503);
    assert_eq!(began.elapsed().as_secs(), 10);
    for path in ["/session", "/health", "/ready", "/ui/"] {
        assert_eq!(open(&world, path).await.status(), 200, "{path}");
    }
    kept.pop();
    assert_eq!(open(&world, "/webhooks").await.status(), 200);
}

#[tokio::test]
async fn sixteen_streams_are_read_at_a_time_beside_other_answers() {
    let world = World::new().await;
    let mut kept = Vec::new();
    for _ in 0..16 {
        kept.push(open(&world, "/events/live").await);
        assert_eq!(kept.last().unwrap().status(), 200);
    }
    Answer::of(open(&world, "/events/live").await).await.problem(503);
    assert_eq!(open(&world, "/webhooks").await.status(), 200);
    kept.pop();
    assert_eq!(open(&world, "/events/live").await.status(), 200);
}

#[tokio::test]
async fn a_large_dead_letter_is_sent_in_pieces() {
    use http_body_util::BodyExt;
    let mut world = World::new().await;
    let text = format!("\"{}\"", "é\\n".repeat(500_000));
    let id = world.dead_letter("a", &text).await;
    let mut body = open(&world, &format!("/dead-letters/{id}")).await.into_body();
    let (mut whole, mut largest) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let piece = frame.unwrap().into_data().unwrap();
        largest = largest.max(piece.len());
        whole.extend_from_slice(&piece);
    }
    assert!(largest < 300_000, "{largest}");
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&whole).unwrap()["body"], text);
}
