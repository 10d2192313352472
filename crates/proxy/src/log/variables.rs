//! What each variable of a format stands for.

use http::HeaderValue;
use lateen_proto::Value;
use lateen_proto::value::Kind;
use lateen_route::format::Variable;
use lateen_route::request::HeaderRef;

use super::Record;
use super::time::write_time;

impl Record<'_> {
    /// Writes a variable; false when there is nothing to say.
    pub(crate) fn write(&self, variable: &Variable, out: &mut Vec<u8>) -> bool {
        match variable {
            Variable::StartTime(format) => self.write_start(format.as_deref(), out),
            Variable::Request(choice) => {
                self.write_request_header(&choice.first, out)
                    || choice.second.as_ref().is_some_and(|header| self.write_request_header(header, out))
            }
            Variable::Response(choice) | Variable::Trailer(choice) => {
                self.write_response_header(&choice.first, out)
                    || choice.second.as_ref().is_some_and(|header| self.write_response_header(header, out))
            }
            Variable::LocalReplyBody => {
                out.extend_from_slice(self.local_reply.as_bytes());
                true
            }
            Variable::Protocol => text(self.protocol, out),
            Variable::ResponseCode => number(self.status.into(), out),
            Variable::ResponseFlags if self.flags.is_empty() => false,
            Variable::ResponseFlags => {
                self.flags.write(out);
                true
            }
            Variable::ResponseFlagsLong if self.flags.is_empty() => false,
            Variable::ResponseFlagsLong => {
                self.flags.write_long(out);
                true
            }
            Variable::ResponseCodeDetails => text(Some(self.details).filter(|t| !t.is_empty()), out),
            Variable::ConnectionTerminationDetails => text(self.termination, out),
            Variable::UpstreamTransportFailureReason => {
                // One word, as Envoy writes it.
                text(self.upstream_failure.map(|reason| reason.replace(' ', "_")).as_deref(), out)
            }
            Variable::BytesReceived
            | Variable::DownstreamWireBytesReceived
            | Variable::UpstreamWireBytesSent => number(self.received, out),
            Variable::BytesSent | Variable::DownstreamWireBytesSent | Variable::UpstreamWireBytesReceived => {
                number(self.sent, out)
            }
            Variable::Duration => number(u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX), out),
            Variable::UpstreamHost | Variable::UpstreamRemoteAddress => {
                text(self.host.map(|h| &*h.text), out)
            }
            Variable::UpstreamRemoteAddressWithoutPort => text(self.host.map(|h| without_port(&h.text)), out),
            Variable::UpstreamRemotePort => text(self.host.and_then(|h| port(&h.text)), out),
            Variable::UpstreamCluster => text(self.cluster.map(|(_, stat)| stat), out),
            Variable::UpstreamClusterRaw => text(self.cluster.map(|(raw, _)| raw), out),
            Variable::UpstreamLocalAddress => text(self.upstream_local, out),
            Variable::UpstreamPeerUriSan => text(self.upstream_peer_uri, out),
            Variable::UpstreamRequestAttemptCount => number(self.attempts.into(), out),
            Variable::RouteName => text(self.route.filter(|name| !name.is_empty()), out),
            Variable::GrpcStatus { number: true } | Variable::GrpcStatusNumber => {
                self.grpc_status.is_some_and(|status| number(status.into(), out))
            }
            Variable::GrpcStatus { number: false } => text(self.grpc_status.map(grpc_name), out),
            Variable::DynamicMetadata(path) => self.write_metadata(path, out),
            Variable::Environment(name) => text(std::env::var(&**name).ok().as_deref(), out),
            Variable::Hostname => text(std::env::var("HOSTNAME").ok().as_deref(), out),
            other => self.write_downstream(other, out),
        }
    }

    fn write_downstream(&self, variable: &Variable, out: &mut Vec<u8>) -> bool {
        let down = self.down;
        let tls = down.tls.as_ref();
        let peer = tls.and_then(|tls| tls.peer.as_ref());
        match variable {
            Variable::ConnectionId => number(down.id, out),
            Variable::DownstreamLocalAddress => text(Some(&down.local_text), out),
            Variable::DownstreamLocalAddressWithoutPort => text(Some(without_port(&down.local_text)), out),
            Variable::DownstreamLocalPort => number(down.local.port().into(), out),
            Variable::DownstreamRemoteAddress => text(Some(&down.remote_text), out),
            Variable::DownstreamRemoteAddressWithoutPort => text(Some(without_port(&down.remote_text)), out),
            Variable::DownstreamRemotePort => number(down.remote.port().into(), out),
            Variable::DownstreamDirectRemoteAddress => text(Some(&down.direct_remote.to_string()), out),
            Variable::DownstreamDirectRemoteAddressWithoutPort => {
                text(Some(&down.direct_remote.ip().to_string()), out)
            }
            Variable::RequestedServerName => text(down.inspected.server_name.as_deref(), out),
            Variable::FilterChainName => text(Some(&*down.chain).filter(|name| !name.is_empty()), out),
            Variable::DownstreamTlsVersion => text(tls.map(|tls| tls.version), out),
            Variable::DownstreamTlsCipher => text(tls.map(|tls| &*tls.cipher), out),
            Variable::DownstreamLocalUriSan => {
                text(tls.map(|tls| tls.local_uris.join(",")).filter(|uris| !uris.is_empty()).as_deref(), out)
            }
            Variable::DownstreamPeerUriSan => {
                text(peer.map(|peer| peer.uris.join(",")).filter(|uris| !uris.is_empty()).as_deref(), out)
            }
            Variable::DownstreamPeerSubject => text(peer.map(|peer| &*peer.subject), out),
            Variable::DownstreamPeerSerial => text(peer.map(|peer| &*peer.serial), out),
            Variable::DownstreamPeerFingerprint256 => text(peer.map(|peer| &*peer.sha256), out),
            _ => false,
        }
    }

    /// A value of the metadata: a text as it is, anything else as JSON.
    fn write_metadata(&self, path: &[Box<str>], out: &mut Vec<u8>) -> bool {
        let metadata = self.head.and_then(|head| head.metadata.as_deref());
        let Some((namespace, keys)) = path.split_first() else { return false };
        let Some(fields) = metadata.and_then(|all| all.filter_metadata.get(&**namespace)) else {
            return false;
        };
        let whole = Value { kind: Some(Kind::StructValue(fields.clone())) };
        let found = keys.iter().try_fold(&whole, |value, key| match &value.kind {
            Some(Kind::StructValue(inner)) => inner.fields.get(&**key),
            _ => None,
        });
        match found.map(|value| &value.kind) {
            None | Some(None) => false,
            Some(Some(Kind::StringValue(words))) => text(Some(words), out),
            Some(Some(kind)) => text(Some(&json(kind).to_string()), out),
        }
    }

    fn write_start(&self, format: Option<&str>, out: &mut Vec<u8>) -> bool {
        match format {
            None => self.worker.write_date(self.started_at, out),
            Some(format) => write_time(self.started_at, format, out),
        }
        true
    }

    fn write_request_header(&self, header: &HeaderRef, out: &mut Vec<u8>) -> bool {
        let Some(head) = self.head else { return false };
        match header {
            HeaderRef::Method => text(Some(head.method.as_str()), out),
            HeaderRef::Scheme => text(Some(head.scheme), out),
            HeaderRef::Authority => text(Some(head.authority()).filter(|a| !a.is_empty()), out),
            HeaderRef::Path => text(Some(head.path()).filter(|p| !p.is_empty()), out),
            HeaderRef::Named(name) => header_text(head.headers.get(name), out),
        }
    }

    fn write_response_header(&self, header: &HeaderRef, out: &mut Vec<u8>) -> bool {
        let HeaderRef::Named(wanted) = header else { return false };
        header_text(self.response.iter().find(|(name, _)| name == wanted).map(|(_, value)| value), out)
    }
}

fn header_text(value: Option<&HeaderValue>, out: &mut Vec<u8>) -> bool {
    match value {
        Some(value) => {
            out.extend_from_slice(value.as_bytes());
            true
        }
        None => false,
    }
}

fn text(value: Option<&str>, out: &mut Vec<u8>) -> bool {
    match value {
        Some(value) => {
            out.extend_from_slice(value.as_bytes());
            true
        }
        None => false,
    }
}

fn number(value: u64, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    true
}

fn without_port(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(ip, _)| ip.trim_start_matches('[').trim_end_matches(']'))
}

fn port(address: &str) -> Option<&str> {
    address.rsplit_once(':').map(|(_, port)| port)
}

/// gRPC's names of its statuses, as Envoy writes them.
fn grpc_name(status: u32) -> &'static str {
    match status {
        0 => "OK",
        1 => "Canceled",
        2 => "Unknown",
        3 => "InvalidArgument",
        4 => "DeadlineExceeded",
        5 => "NotFound",
        6 => "AlreadyExists",
        7 => "PermissionDenied",
        8 => "ResourceExhausted",
        9 => "FailedPrecondition",
        10 => "Aborted",
        11 => "OutOfRange",
        12 => "Unimplemented",
        13 => "Internal",
        14 => "Unavailable",
        15 => "DataLoss",
        16 => "Unauthenticated",
        _ => "InvalidCode",
    }
}

/// Metadata as JSON; whole numbers without a point.
fn json(kind: &Kind) -> serde_json::Value {
    let of = |value: &Value| value.kind.as_ref().map_or(serde_json::Value::Null, json);
    match kind {
        Kind::NullValue(_) => serde_json::Value::Null,
        Kind::BoolValue(truth) => (*truth).into(),
        Kind::StringValue(words) => words.as_str().into(),
        // Beyond 2^53 there is nothing between whole numbers.
        Kind::NumberValue(number) if number.fract() == 0.0 && number.abs() < 9e15 => (*number as i64).into(),
        Kind::NumberValue(number) => (*number).into(),
        Kind::ListValue(list) => list.values.iter().map(of).collect(),
        Kind::StructValue(object) => {
            object.fields.iter().map(|(key, value)| (key.clone(), of(value))).collect()
        }
    }
}
