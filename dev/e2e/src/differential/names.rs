//! The resolver of a lane: answers what the world says, and that other names do not exist.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{RData, Record, RecordType};
use tokio::net::UdpSocket;

use super::Problem;

/// What is answered.
pub(crate) type Names = Arc<Mutex<Book>>;

/// What a resolver knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Book {
    /// Addresses by name; a name without any fails (SERVFAIL).
    pub(crate) addresses: BTreeMap<String, Vec<Ipv4Addr>>,
    /// How long an answer holds, in seconds; 30 when it is 0.
    pub(crate) ttl: u32,
}

/// A resolver that answers until this is dropped.
pub(crate) struct Serving(tokio::task::AbortHandle);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Serves names at an address.
pub(crate) async fn serve(address: SocketAddr, names: Names) -> Result<Serving, Problem> {
    let socket = UdpSocket::bind(address).await.map_err(|error| format!("{address}: {error}"))?;
    let task = tokio::spawn(async move {
        let mut bytes = [0; 1500];
        while let Ok((size, peer)) = socket.recv_from(&mut bytes).await {
            let Ok(query) = Message::from_vec(&bytes[..size]) else { continue };
            let Ok(answer) = answer(&query, &names).to_vec() else { continue };
            // Whoever asked will ask again.
            let _ = socket.send_to(&answer, peer).await;
        }
    });
    Ok(Serving(task.abort_handle()))
}

fn answer(query: &Message, names: &Names) -> Message {
    let mut out = Message::response(query.metadata.id, query.metadata.op_code);
    out.metadata.message_type = MessageType::Response;
    out.metadata.recursion_available = true;
    for question in &query.queries {
        out.add_query(question.clone());
        let name = question.name().to_ascii().trim_end_matches('.').to_lowercase();
        let names = names.lock().unwrap_or_else(PoisonError::into_inner);
        let ttl = if names.ttl == 0 { 30 } else { names.ttl };
        match names.addresses.get(&name) {
            Some(addresses) if addresses.is_empty() => out.metadata.response_code = ResponseCode::ServFail,
            Some(addresses) if question.query_type() == RecordType::A => {
                for address in addresses {
                    out.add_answer(Record::from_rdata(question.name().clone(), ttl, RData::A(A(*address))));
                }
            }
            Some(_) => {}
            None => out.metadata.response_code = ResponseCode::NXDomain,
        }
    }
    out
}
