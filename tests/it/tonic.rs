//! The layers before a service that answers with tonic's body, and before one whose body cannot be built.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tonic::Status;
use tower::{Service, ServiceBuilder, service_fn};
use tower_webhook::auth::Bearer;
use tower_webhook::layers::{ObserveLayer, ProblemJsonLayer, RequireAuthLayer};
use tower_webhook::{Rejection, RejectionKind};

use crate::support::{CREDENTIAL, ask, post};

async fn grpc(_: Request<Full<Bytes>>) -> Result<Response<tonic::body::Body>, Infallible> {
    let body = Full::new(Bytes::from_static(b"\0\0\0\0\0")).map_err(|never| match never {});
    Ok(Response::builder().header("grpc-status", "0").body(tonic::body::Body::new(body)).unwrap())
}

/// Whether tonic accepts the service, once its body is boxed again.
fn is_servable<S, B>(service: S) -> S
where
    S: Service<Request<Full<Bytes>>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    B: Body<Data = Bytes, Error = Status> + Send + 'static,
{
    let _ = |body: B| tonic::body::Body::new(body);
    service
}

#[tokio::test]
async fn a_refusal_in_front_of_tonic_s_body_is_a_problem_document() {
    let service = is_servable(
        ServiceBuilder::new()
            .layer(ProblemJsonLayer::new())
            .layer(ObserveLayer::new())
            .layer(RequireAuthLayer::new(Bearer::new("s3cret-token").unwrap()))
            .service(service_fn(grpc)),
    );
    let answer = ask(&service, post("/", "")).await;
    assert_eq!((answer.status.as_u16(), answer.header("grpc-status"), answer.body.len()), (200, "0", 5));
    let mut stranger = post("/", "");
    assert_eq!(stranger.headers_mut().remove("authorization").unwrap(), CREDENTIAL);
    let answer = ask(&service, stranger).await;
    assert_eq!(answer.problem(401), "Unauthorized");
    assert_eq!(answer.header("www-authenticate"), r#"Bearer realm="webhook""#);
}

/// A body with its own error type that has no default and cannot be made from bytes.
#[derive(Clone)]
struct Stubborn(&'static str);

impl Body for Stubborn {
    type Data = Bytes;
    type Error = std::num::ParseIntError;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Poll::Ready(match self.0.parse::<u8>() {
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(7)
    }
}

#[tokio::test]
async fn a_body_of_any_other_service_passes_problem_json_unchanged() {
    let service = ServiceBuilder::new().layer(ProblemJsonLayer::new()).service(service_fn(
        |request: Request<Full<Bytes>>| async move {
            let mut response = Response::new(Stubborn(if request.uri() == "/fail" { "x" } else { "1" }));
            if request.uri() == "/refuse" {
                *response.status_mut() = http::StatusCode::CONFLICT;
                response.extensions_mut().insert(Rejection::from(RejectionKind::InProgress));
            }
            Ok::<_, Infallible>(response)
        },
    ));
    assert_eq!(ask(&service, post("/", "")).await.body, "");
    assert_eq!(ask(&service, post("/refuse", "")).await.problem(409), "This event is being processed");
    let mut service = service;
    let answer = service.call(post("/fail", "")).await.unwrap();
    assert_eq!(answer.body().size_hint().exact(), Some(7));
    assert!(answer.into_body().collect().await.is_err());
}
