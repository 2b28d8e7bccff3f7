//! The rate of a module beside that of the bare client: the same server, the same message, the same acknowledgement, and the
//! same number in flight, in rounds that alternate.

use std::future::Future;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http::HeaderMap;
use serde_json::Value;
use tokio::task::JoinHandle;
use tower_webhook::config::{DataType, WebhookInfo, WebhookKey};
use tower_webhook::event::{Ack, DeliverError, Delivery};
use tower_webhook::module::{ConfigModule, Egress, Module};
use tower_webhook::source::FixedSource;
use tower_webhook::{Registry, Store, reflect};

use super::rig::{NAMESPACE, Rig};

/// How many messages are on their way at a time.
const IN_FLIGHT: usize = 64;

/// The lengths of a body.
const LENGTHS: [usize; 2] = [250, 4096];

/// The rounds of each length, after one that does not count, and the time that each takes. Without optimisation the rates say
/// nothing: then one short round shows that both ways work.
const ROUNDS: usize = if OPTIMISED { 9 } else { 1 };
const ROUND: Duration = Duration::from_millis(if OPTIMISED { 400 } else { 100 });
const OPTIMISED: bool = !cfg!(debug_assertions);

/// The least share of the bare client's rate. One of a few measurements must reach it: other work on the machine may slow one
/// of the two down.
const LEAST: f64 = 0.8;
const MEASUREMENTS: usize = 3;

/// The id of the webhook.
pub(crate) const WEBHOOK: &str = "orders";

/// The time in the messages of the bare client, which are as long as those of the module.
pub(crate) const RECEIVED_AT: &str = "2026-11-27T12:00:00.000Z";

/// The received header fields.
pub(crate) const RECEIVED: [(&str, &str); 4] = [
    ("host", "hooks.example"),
    ("content-type", "application/json"),
    ("user-agent", "Shop-Hookshot/2f1c90a"),
    ("x-shop-event", "order.paid"),
];

/// Those of them that a module sends on if it sends all on, beside the content type.
pub(crate) const SENT_ON: [(&str, &str); 2] = [RECEIVED[2], RECEIVED[3]];

/// A module as the registry builds it for a webhook, and all that keeps its connection open.
pub(crate) struct Subject<M> {
    module: Arc<M>,
    info: Arc<WebhookInfo>,
    connection: Value,
    webhook: Value,
    _store: Store,
    reflector: JoinHandle<()>,
}

impl<M: ConfigModule> Subject<M> {
    /// Of this `webhook`, with the connection `c`.
    pub(crate) async fn new(connection: &Value, webhook: &Value) -> Self {
        let built = Arc::new(OnceLock::new());
        let keep = Arc::clone(&built);
        let registry = Registry::builtin().egress(&Egress::new("127.0.0.0/8".parse().unwrap()));
        let registry = registry.module_fn(M::NAME, move |config, cx| {
            let module = Arc::new(M::build(config, cx)?);
            Ok(Kept(Arc::clone(keep.get_or_init(|| module))))
        });
        let source = FixedSource::new().connection("c", connection.to_string()).unwrap();
        let source = source.webhook(NAMESPACE, WEBHOOK, webhook.to_string()).unwrap();
        let (store, reflector) = reflect(source, registry);
        let reflector = tokio::spawn(reflector.run());
        store.wait_ready(Duration::from_secs(20)).await.unwrap();
        let refused: Vec<_> = store.snapshot().refusals().map(|(_, refusal)| refusal.reason().to_owned()).collect();
        assert!(refused.is_empty(), "{refused:?}");
        let info = Arc::new(WebhookInfo::new(WebhookKey::new(NAMESPACE, WEBHOOK).unwrap(), DataType::Json));
        let module = Arc::clone(built.get().unwrap());
        let (connection, webhook) = (connection.clone(), webhook.clone());
        Self { module, info, connection, webhook, _store: store, reflector }
    }

    /// Prints a row with this name for each measurement of a length. `bare` sends the same event. Between rounds `clean` removes
    /// what the server has stored.
    pub(crate) async fn beside<F>(
        &self,
        name: &str,
        bare: impl Fn(Delivery) -> F + Send + Sync + 'static,
        clean: impl AsyncFn(),
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let headers: HeaderMap =
            RECEIVED.iter().map(|&(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let rig = Arc::new(Rig::start().await);
        rig.connection("c", &self.connection).await;
        rig.webhook(WEBHOOK, &self.webhook).await;
        let bare = Arc::new(bare);
        let mut least = f64::INFINITY;
        for length in LENGTHS {
            let body = body(length);
            let event = {
                let (info, headers, body) = (Arc::clone(&self.info), headers.clone(), body.clone());
                move || Delivery::new(Arc::clone(&info), headers.clone(), body.clone())
            };
            let of_bare = async || {
                let (bare, event) = (Arc::clone(&bare), event.clone());
                rate(move || bare(event())).await
            };
            let of_module = async || {
                let (module, event) = (Arc::clone(&self.module), event.clone());
                let deliver = move || {
                    let (module, event) = (Arc::clone(&module), event());
                    async move { assert_eq!(module.deliver(event).await.unwrap(), Ack::Delivered) }
                };
                rate(deliver).await
            };
            let of_receiver = || {
                let (rig, headers, body) = (Arc::clone(&rig), headers.clone(), body.clone());
                rate(move || {
                    let (rig, headers, body) = (Arc::clone(&rig), headers.clone(), body.clone());
                    async move { assert_eq!(rig.post_with(WEBHOOK, &headers, body).await.status, 200) }
                })
            };
            let mut best = 0.0;
            for _ in 0..MEASUREMENTS {
                let (bares, modules) = rounds(&of_bare, &of_module, &clean).await;
                let of_receiver = of_receiver().await;
                clean().await;
                best = f64::max(best, report(name, length, &bares, &modules, of_receiver));
                if !OPTIMISED || best >= LEAST {
                    break;
                }
            }
            least = f64::min(least, best);
        }
        assert!(!OPTIMISED || least >= LEAST, "{name} has {least:.2} of the bare client's rate, expected {LEAST}");
    }
}

impl<M> Drop for Subject<M> {
    fn drop(&mut self) {
        self.reflector.abort();
    }
}

/// The rates in rounds that alternate.
async fn rounds(
    of_bare: impl AsyncFn() -> f64,
    of_module: impl AsyncFn() -> f64,
    clean: impl AsyncFn(),
) -> (Vec<f64>, Vec<f64>) {
    let (mut bares, mut modules) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (bare, module) = match round % 2 {
            0 => {
                let bare = of_bare().await;
                clean().await;
                (bare, of_module().await)
            }
            _ => {
                let module = of_module().await;
                clean().await;
                (of_bare().await, module)
            }
        };
        clean().await;
        if round > 0 {
            bares.push(bare);
            modules.push(module);
        }
    }
    (bares, modules)
}

/// Prints a row of a table in Markdown: the medians, and the range of the ratios. Returns the median of the ratios.
fn report(name: &str, length: usize, bares: &[f64], modules: &[f64], of_receiver: f64) -> f64 {
    let mut ratios: Vec<_> = bares.iter().zip(modules).map(|(bare, module)| module / bare).collect();
    let ratio = median(&mut ratios);
    let (bare, module) = (median(&mut bares.to_vec()), median(&mut modules.to_vec()));
    let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
    println!(
        "| {name} | {length} B | {bare:.0}/s | {module:.0}/s | **{ratio:.2}** ({least:.2} to {most:.2}) | {of_receiver:.0}/s |"
    );
    ratio
}

/// A document of JSON with exactly this length.
fn body(length: usize) -> Bytes {
    let (begin, end) = (r#"{"order":""#, r#""}"#);
    format!("{begin}{}{end}", "x".repeat(length - begin.len() - end.len())).into()
}

/// Calls `send` for the time of a round, in as many tasks as messages are on their way. Returns the rate for a second.
async fn rate<F>(send: impl Fn() -> F + Send + Sync + 'static) -> f64
where
    F: Future<Output = ()> + Send + 'static,
{
    let (sent, send) = (Arc::new(AtomicUsize::new(0)), Arc::new(send));
    let began = Instant::now();
    let tasks = (0..IN_FLIGHT).map(|_| {
        let (sent, send) = (Arc::clone(&sent), Arc::clone(&send));
        tokio::spawn(async move {
            while began.elapsed() < ROUND {
                send().await;
                sent.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    for ended in join_all(tasks).await {
        ended.unwrap();
    }
    sent.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A module whose handle is kept.
struct Kept<M>(Arc<M>);

impl<M: Module> Module for Kept<M> {
    fn deliver(&self, delivery: Delivery) -> impl Future<Output = Result<Ack, DeliverError>> + Send {
        self.0.deliver(delivery)
    }
}
