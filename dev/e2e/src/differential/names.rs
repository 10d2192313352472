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
pub(crate) type Names = Arc<Mutex<BTreeMap<String, Vec<Ipv4Addr>>>>;

/// Serves names at an address.
pub(crate) async fn serve(address: SocketAddr, names: Names) -> Result<(), Problem> {
    let socket = UdpSocket::bind(address).await.map_err(|error| format!("{address}: {error}"))?;
    tokio::spawn(async move {
        let mut bytes = [0; 1500];
        while let Ok((size, peer)) = socket.recv_from(&mut bytes).await {
            let Ok(query) = Message::from_vec(&bytes[..size]) else { continue };
            let Ok(answer) = answer(&query, &names).to_vec() else { continue };
            // Whoever asked will ask again.
            let _ = socket.send_to(&answer, peer).await;
        }
    });
    Ok(())
}

fn answer(query: &Message, names: &Names) -> Message {
    let mut out = Message::response(query.metadata.id, query.metadata.op_code);
    out.metadata.message_type = MessageType::Response;
    out.metadata.recursion_available = true;
    for question in &query.queries {
        out.add_query(question.clone());
        let name = question.name().to_ascii().trim_end_matches('.').to_lowercase();
        let names = names.lock().unwrap_or_else(PoisonError::into_inner);
        match names.get(&name) {
            Some(addresses) if question.query_type() == RecordType::A => {
                for address in addresses {
                    out.add_answer(Record::from_rdata(question.name().clone(), 30, RData::A(A(*address))));
                }
            }
            Some(_) => {}
            None => out.metadata.response_code = ResponseCode::NXDomain,
        }
    }
    out
}
