//! The service below a path of axum, and under hyper alone.

use axum::Router;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use tower::ServiceExt;

use super::world::{ALL, World};
use crate::hyper::{http1, http2, serve};
use crate::support::Answer;

fn request(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("authorization", format!("Bearer {ALL}")).body(Full::default()).unwrap()
}

#[tokio::test]
async fn it_is_mounted_in_axum() {
    let world = World::new().await;
    let app: Router = Router::new().nest_service("/operators", world.admin.clone());
    let ask = async |path: &str| {
        let request = request(path).map(axum::body::Body::new);
        Answer::of(app.clone().oneshot(request).await.unwrap()).await
    };
    assert_eq!(ask("/operators/session").await.json()["name"], "all");
    assert_eq!(ask("/operators/ui").await.header("location"), "ui/");
    assert_eq!(ask("/operators/ui/").await.status, 200);
    ask("/operators").await.problem(404);
    ask("/operators/nothing").await.problem(404);
    assert_eq!(ask("/session").await.status, 404);
}

#[tokio::test]
async fn it_is_served_by_hyper_alone() {
    let world = World::new().await;
    let address = serve(world.admin.clone()).await;
    let answer = http1(address, request("/session")).await;
    assert_eq!((answer.json()["name"].as_str(), answer.header("content-length").is_empty()), (Some("all"), false));
    assert_eq!(http1(address, request("/openapi.json")).await.json()["openapi"], "3.1.0");
    let request = Request::get(format!("http://{address}/session")).header("authorization", format!("Bearer {ALL}"));
    let answer = http2(address, request.body(Full::<Bytes>::default()).unwrap()).await;
    assert_eq!(answer.json()["name"], "all");
}
