//! The accept loop of one worker on one address.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::connection;
use crate::listener::Bound;
use crate::worker::Worker;

/// How long to wait when the process has no more file descriptors.
const EXHAUSTED: Duration = Duration::from_millis(50);

/// Accepts until the address is closed or the process drains.
pub(crate) async fn run(worker: Rc<Worker>, bound: Arc<Bound>, socket: std::net::TcpListener) {
    let socket = match TcpListener::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(address = ?bound.address, %error, "cannot accept on a listener's socket");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = bound.closed.cancelled() => return,
            () = worker.shared.draining.cancelled() => return,
        };
        match accepted {
            Ok((tcp, peer)) => {
                let served = bound.served.load_full();
                connection::spawn(&worker, served, tcp, peer);
            }
            // A client that went away at once is no reason to wait; everything else is exhaustion.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(address = ?bound.address, %error, "cannot accept a connection");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
}
