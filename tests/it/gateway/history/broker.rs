//! A broker that refuses an event.

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::Recorded;

const REFUSAL: &str = "-OOM command not allowed when used memory > 'maxmemory'.\r\n";

/// A server of Redis that has no memory left: it answers each XADD with an error.
async fn redis_without_memory() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    port
}

async fn serve(stream: TcpStream) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut command = Vec::new();
        for _ in 0..number(&mut stream, '*').await? {
            let mut text = vec![0; number(&mut stream, '$').await? + 2];
            stream.read_exact(&mut text).await.ok()?;
            command.push(String::from_utf8_lossy(&text).trim_end().to_uppercase());
        }
        let answer = if command.first()? == "XADD" { REFUSAL } else { "+OK\r\n" };
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}

async fn number(stream: &mut BufReader<TcpStream>, sign: char) -> Option<usize> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok()?;
    line.trim_end().strip_prefix(sign)?.parse().ok()
}

#[tokio::test]
async fn the_refusal_of_a_broker_is_quoted_in_its_attempt() {
    let port = redis_without_memory().await;
    let connections = json!({"cache": {"type": "redis", "host": "127.0.0.1", "port": port}});
    let webhook = json!({"module": "redis_stream", "connection": "cache", "module-config": {"stream": "orders"}});
    let recorded = Recorded::start(json!({"orders": webhook}), connections).await;
    let shown = recorded.ask("GET", "webhooks/shop/orders").await.json();
    assert_eq!(shown["targets"], json!([{"module": "redis_stream", "target": "orders"}]));
    assert_eq!(recorded.send("orders", &[], "{}").await.status, 502);
    let event = recorded.newest("orders").await;
    let attempt = &event["attempts_made"][0];
    assert_eq!((&attempt["module"], &attempt["kind"]), (&json!("redis_stream"), &json!("unavailable")), "{event}");
    let reason = attempt["reason"].as_str().unwrap();
    assert!(reason.contains("OOM") && reason.contains("maxmemory"), "{reason}");
    assert_eq!((&attempt["answer"], &event["outcome"]), (&json!(null), &json!("failed")));
}
