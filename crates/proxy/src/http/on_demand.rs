//! Phase: a request waits for its cluster, which is asked for now.

use lateen_route::http_manager::OnDemand;

use super::exchange::Exchange;

/// Asks for a cluster that is not there, and waits until it is, or surely is not, or the time is over.
pub(crate) async fn fetch(exchange: &mut Exchange, rules: OnDemand, cluster: &str) {
    let shared = exchange.worker.shared.clone();
    if cluster.is_empty() || exchange.cluster.is_some() {
        return;
    }
    let Some(mut wait) = shared.on_demand.ask(cluster) else { return };
    let came = async {
        while shared.snapshot.load().cluster(cluster).is_none() && !wait.is_over() {
            wait.changed().await;
        }
    };
    let pulse = exchange.pulse.clone();
    // A stream whose time is over meanwhile is told so by what waits next.
    let in_time = tokio::time::timeout(rules.timeout, Box::pin(came));
    let mut in_time = std::pin::pin!(in_time);
    std::future::poll_fn(|cx| match pulse.expired() {
        Some(_) => std::task::Poll::Ready(()),
        None => in_time.as_mut().poll(cx).map(drop),
    })
    .await;
    exchange.cluster = shared.snapshot.load().cluster(cluster).cloned();
}
