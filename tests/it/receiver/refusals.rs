//! Bad requests and their answers.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use tower_webhook::{OnInvalid, Receiver, Registry, receiver};

use crate::support::body::{Script, Step, Unread};
use crate::support::driven::Driver;
use crate::support::{Answer, CREDENTIAL, ask, post, store};

async fn send(request: Request<Full<Bytes>>) -> Answer {
    ask(&receiver(store().await), request).await
}

async fn small() -> Receiver {
    Receiver::of_store(store().await).max_body_bytes(10).body_deadline(Duration::from_secs(1)).build()
}

#[tokio::test]
async fn an_event_that_is_taken_gets_exactly_this() {
    let answer = send(post("/shop/guarded", r#"{"hello": "world"}"#)).await;
    answer.assert_accepted();
    assert_eq!(answer.header("content-type"), "application/json");
    let mut names: Vec<_> = answer.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-type", "x-event-id"]);
}

#[tokio::test]
async fn the_event_id_is_a_uuid_of_version_7_and_each_is_new() {
    let receiver = receiver(store().await);
    let mut ids = Vec::new();
    for _ in 0..100 {
        let answer = ask(&receiver, post("/shop/open", "{}")).await;
        let id = uuid::Uuid::parse_str(answer.header("x-event-id")).unwrap();
        assert_eq!((id.get_version_num(), id.get_variant()), (7, uuid::Variant::RFC4122));
        assert_eq!(id.to_string(), answer.header("x-event-id"));
        ids.push(id);
    }
    assert!(ids.is_sorted());
    ids.dedup();
    assert_eq!(ids.len(), 100);
}

#[tokio::test]
async fn a_path_of_another_shape_is_404() {
    for path in ["/", "//", "/a/b/c", "//guarded", "/shop//guarded"] {
        assert_eq!(send(post(path, "{}")).await.problem(404), "Not Found", "{path}");
    }
    for path in ["/a/", "/shop/guarded/"] {
        let detail = send(post(path, "{}")).await.problem(404);
        assert_eq!(detail, "Not Found: remove the slash at the end of the path", "{path}");
    }
}

#[tokio::test]
async fn a_bad_namespace_or_id_is_400() {
    let long = "a".repeat(65);
    for id in [
        "%61",
        "a%2Fb",
        "a%0A",
        "..",
        ".",
        "a.b",
        "-a",
        "_a",
        "a--b",
        "a__b",
        "health",
        "HEALTH",
        "stats",
        "internal_x",
        "x_admin",
        "a:b",
        "a@b",
        "~a",
        &long,
    ] {
        send(post(&format!("/shop/{id}"), "{}")).await.problem(400);
        send(post(&format!("/{id}"), "{}")).await.problem(400);
    }
    for namespace in ["%73hop", "sh.op", "..", &long] {
        send(post(&format!("/{namespace}/guarded"), "{}")).await.problem(400);
    }
}

#[tokio::test]
async fn an_unknown_webhook_is_404_whatever_its_namespace() {
    for path in ["/shop/nothing", "/nowhere/guarded", "/guarded", "/default/guarded", "/Shop/guarded", "/shop/Guarded"]
    {
        assert_eq!(send(post(path, "{}")).await.problem(404), "Webhook ID not found", "{path}");
    }
}

#[tokio::test]
async fn another_method_is_405_with_the_right_one_in_allow() {
    for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "post"] {
        for (path, status) in
            [("/shop/guarded", 405), ("/shop/open", 405), ("/shop/broken", 503), ("/shop/nothing", 404)]
        {
            let mut request = post(path, "{}");
            *request.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
            let answer = send(request).await;
            answer.problem(status);
            assert_eq!(answer.headers.get("allow").is_some_and(|methods| methods == "POST"), status == 405);
        }
    }
}

#[tokio::test]
async fn no_or_a_wrong_credential_is_401_before_the_body_is_read() {
    let receiver = receiver(store().await);
    let refused = async |values: &[&str]| {
        let mut request = Request::post("/shop/guarded").body(Unread { announced: None }).unwrap();
        for value in values {
            request.headers_mut().append("authorization", value.parse().unwrap());
        }
        let answer = ask(&receiver, request).await;
        assert_eq!(answer.problem(401), "Unauthorized", "{values:?}");
        answer.header("www-authenticate").to_owned()
    };
    let missing = r#"Bearer realm="webhook""#;
    let invalid = r#"Bearer realm="webhook", error="invalid_token""#;
    assert_eq!(refused(&[]).await, missing);
    for value in ["", "Bearer", "s3cret-token", "Basic czNjcmV0LXRva2Vu", "Token s3cret-token"] {
        assert_eq!(refused(&[value]).await, missing, "{value}");
    }
    for value in ["Bearer x", "Bearer s3cret-toke", "Bearer s3cret-token1", "Bearer S3CRET-TOKEN", "Bearer  "] {
        assert_eq!(refused(&[value]).await, invalid, "{value}");
    }
    assert_eq!(refused(&[CREDENTIAL, CREDENTIAL]).await, invalid);
    assert_eq!(refused(&["Bearer x", CREDENTIAL]).await, invalid);
}

#[tokio::test]
async fn a_credential_in_another_place_does_not_count() {
    for request in [
        Request::post("/shop/guarded?access_token=s3cret-token"),
        Request::post("/shop/guarded").header("x-authorization", CREDENTIAL),
        Request::post("/shop/guarded").header("proxy-authorization", CREDENTIAL),
    ] {
        let request = request.body(Full::from("access_token=s3cret-token")).unwrap();
        assert_eq!(send(request).await.problem(401), "Unauthorized");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let receiver = small().await;
    ask(&receiver, post("/shop/guarded", "[12345678]")).await.assert_accepted();
    assert_eq!(ask(&receiver, post("/shop/guarded", "[123456789]")).await.problem(413), "Payload too large");
    let announced = authorized(Unread { announced: Some(11) });
    assert_eq!(ask(&receiver, announced).await.problem(413), "Payload too large");
    let chunked = authorized(Script::new([Step::data("[12345"), Step::data("6789]"), Step::Hang]));
    assert_eq!(ask(&receiver, chunked).await.problem(413), "Payload too large");
    // A sender without the credential does not learn the limit.
    let stranger = Request::post("/shop/guarded").body(Unread { announced: Some(11) }).unwrap();
    ask(&receiver, stranger).await.problem(401);
}

fn authorized<B>(body: B) -> Request<B> {
    Request::post("/shop/guarded").header("authorization", CREDENTIAL).body(body).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_slow_is_408() {
    let receiver = small().await;
    let silent = authorized(Script::new([Step::Hang]));
    assert_eq!(ask(&receiver, silent).await.problem(408), "The body did not arrive in time");
    let trickle = (0..10).flat_map(|_| [Step::Wait(Duration::from_millis(300)), Step::data("1")]);
    let trickle = authorized(Script::new(trickle));
    assert_eq!(ask(&receiver, trickle).await.problem(408), "The body did not arrive in time");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_400() {
    let broken = authorized(Script::new([Step::data("{}"), Step::Fail]));
    assert_eq!(ask(&receiver(store().await), broken).await.problem(400), "The body could not be read to its end");
}

#[tokio::test]
async fn a_body_that_is_not_one_json_value_is_400() {
    let deep = format!("{}{}", "[".repeat(51), "]".repeat(51));
    let bombs = ["[".repeat(1_000_000), "{\"a\":".repeat(200_000), deep];
    for body in [
        "",
        " \r\n\t",
        "{",
        "}",
        "{}{}",
        "{} x",
        "[1,]",
        "{\"a\":}",
        "{'a':1}",
        "nul",
        "NaN",
        "01",
        "a=b&c=d",
        "\u{feff}{}",
        "<xml/>",
        "\"",
        "\"\u{0}\"",
        "{\"a\" 1}",
        "\"\\x\"",
        "\"\\ud8\"",
    ] {
        assert!(!send(post("/shop/guarded", body)).await.problem(400).is_empty(), "{body:?}");
    }
    for body in bombs {
        let detail = send(post("/shop/guarded", body)).await.problem(400);
        assert!(detail.contains("50 levels"), "{detail}");
    }
    for body in [&b"\"\xff\""[..], b"{\"\xc3\x28\": 1}", b"\"\xed\xa0\x80\"", b"\xfe\xff\x00{\x00}", b"\x1f\x8b\x08"] {
        send(post("/shop/guarded", body)).await.problem(400);
    }
}

#[tokio::test]
async fn the_refusal_of_a_body_that_is_not_json_says_what_it_is() {
    for (content_type, body, found) in [
        ("application/x-www-form-urlencoded", &b"token=hunter2&text=a"[..], "found a form (application/x-www-form-url"),
        (
            "application/json",
            b"payload=%7B%22hunter2%22%3A1%7D",
            "found a form (application/x-www-form-urlencoded); send",
        ),
        ("application/x-www-form-urlencoded", b"hunter2", "found a form"),
        ("application/json", b"\x1f\x8b\x08\0\0\0\0\0hunter2", "found compressed data (gzip); send it uncompressed"),
        (
            "application/json",
            b"\xef\xbb\xbf{\"a\":\"hunter2\"}",
            "found a byte order mark (UTF-8) before it; send it without",
        ),
        ("application/json", b"\xff\xfe{\0}\0", "found a byte order mark (UTF-16) before it; send it in UTF-8"),
        ("application/json", b"{\0}\0", "found text in UTF-16"),
        ("text/xml", b"<a>hunter2</a>", "found XML"),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\nContent-Disposition: form-data\r\n\r\nhunter2",
            "(multipart/form-data)",
        ),
        ("text/plain", b"[object Object]", "JSON.stringify"),
        ("application/json", b"{'a': 'hunter2'}", "double quotes"),
        ("application/json", b"", "the body is empty; send one JSON value"),
        ("application/json", b"{\"hunter2\": }", "Malformed JSON payload: expected value at line 1 column 13"),
    ] {
        let mut request = post("/shop/guarded", body);
        request.headers_mut().insert("content-type", content_type.parse().unwrap());
        let detail = send(request).await.problem(400);
        assert!(detail.starts_with("Malformed JSON payload: ") && detail.contains(found), "{found}: {detail}");
        assert!(!detail.contains("hunter2"), "{detail}");
    }
    // The body decides that it is a form, whatever its `Content-Type`.
    let mut request = post("/shop/guarded", "{}");
    request.headers_mut().insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
    send(request).await.assert_accepted();
}

#[tokio::test]
async fn json_of_every_kind_is_taken() {
    let deep = format!("{}{}", "[".repeat(50), "]".repeat(50));
    for body in
        ["{}", "[]", "null", "true", "0", "-1.5E+3", "\"\"", " [1] \n", "{\"a\":1,\"a\":2}", "\"\\u0000é\"", &deep]
    {
        send(post("/shop/guarded", body.to_owned())).await.assert_accepted();
    }
}

#[tokio::test]
async fn an_encoded_body_is_415_and_identity_is_none() {
    let encoded = |value: &str| {
        let mut request = post("/shop/guarded", "{}");
        request.headers_mut().append("content-encoding", value.parse().unwrap());
        request
    };
    for value in ["gzip", "GZIP", "br", "deflate, gzip"] {
        assert_eq!(send(encoded(value)).await.problem(415), "Content-Encoding is not supported");
    }
    send(encoded("identity")).await.assert_accepted();
}

#[tokio::test]
async fn a_blob_may_be_anything() {
    for body in [&b""[..], b"\xff\x00", b"{", b"a=b"] {
        send(post("/shop/blob", body)).await.assert_accepted();
    }
}

#[tokio::test]
async fn while_nothing_is_loaded_every_webhook_is_503() {
    let mut driver = Driver::new(Registry::builtin(), OnInvalid::Keep);
    let receiver = receiver(driver.store.clone());
    let answer = ask(&receiver, post("/shop/guarded", "{}")).await;
    assert_eq!(answer.problem(503), "No configuration has been loaded yet");
    assert_eq!(answer.header("retry-after"), "1");
    // An empty configuration counts as loaded.
    driver.replace(Vec::new()).await;
    ask(&receiver, post("/shop/guarded", "{}")).await.problem(404);
}

#[tokio::test]
async fn a_webhook_whose_configuration_was_never_good_is_503_also_with_any_credential() {
    let answer = send(post("/shop/broken", "{}")).await;
    assert_eq!(answer.problem(503), "This webhook's configuration is invalid");
    assert_eq!(answer.header("retry-after"), "60");
    send(Request::post("/shop/broken").body(Full::from("{}")).unwrap()).await.problem(503);
}

#[tokio::test]
async fn an_unknown_data_type_or_module_refuses_that_webhook_only() {
    let webhooks = [
        ("shop", "type", r#"{"module": "discard", "data_type": "xml"}"#),
        ("shop", "module", r#"{"module": "discart"}"#),
        ("shop", "key", r#"{"module": "discard", "authorisation": "Bearer x"}"#),
        ("shop", "good", r#"{"module": "discard"}"#),
    ];
    let store = crate::support::store_of(Registry::builtin(), &webhooks).await;
    let receiver = receiver(store.clone());
    for id in ["type", "module", "key"] {
        ask(&receiver, post(&format!("/shop/{id}"), "{}")).await.problem(503);
    }
    ask(&receiver, post("/shop/good", "{}")).await.assert_accepted();
    assert_eq!(store.snapshot().counts().refused, 3);
}

#[tokio::test]
async fn the_settings_of_the_receiver_are_kept() {
    let webhooks = [("other", "a", r#"{"module": "discard"}"#)];
    let store = crate::support::store_of(Registry::builtin(), &webhooks).await;
    let builder = Receiver::of_store(store.clone()).prefix("/in/").default_namespace("other").unwrap();
    let receiver = builder.build();
    ask(&receiver, post("/in/a", "{}")).await.assert_accepted();
    ask(&receiver, post("/in/other/a", "{}")).await.assert_accepted();
    ask(&receiver, post("/a", "{}")).await.problem(404);
    ask(&receiver, post("/ina", "{}")).await.problem(404);
    assert!(Receiver::of_store(store).default_namespace("a/b").is_err());
}
