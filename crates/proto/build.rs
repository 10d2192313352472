//! Generates the Envoy v3 types from the descriptor set that the `envoy-types` package ships.
//!
//! Two outputs: Rust types for the files that Lateen uses (roots below, and all they import), and the whole
//! descriptor set without source information, from which JSON is read and written by reflection.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, error::Error, fs};

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MessageOptions,
    MethodDescriptorProto, ServiceDescriptorProto,
};

/// Files whose messages get a Rust type; what they import comes along.
const ROOTS: &[&str] = &[
    "envoy/admin/v3/certs.proto",
    "envoy/admin/v3/clusters.proto",
    "envoy/admin/v3/config_dump.proto",
    "envoy/admin/v3/config_dump_shared.proto",
    "envoy/admin/v3/listeners.proto",
    "envoy/admin/v3/server_info.proto",
    "envoy/config/bootstrap/v3/bootstrap.proto",
    "envoy/config/cluster/v3/cluster.proto",
    "envoy/config/endpoint/v3/endpoint.proto",
    "envoy/config/listener/v3/listener.proto",
    "envoy/config/rbac/v3/rbac.proto",
    "envoy/config/route/v3/route.proto",
    "envoy/config/trace/v3/opentelemetry.proto",
    "envoy/config/trace/v3/zipkin.proto",
    "envoy/extensions/access_loggers/file/v3/file.proto",
    "envoy/extensions/access_loggers/grpc/v3/als.proto",
    "envoy/extensions/access_loggers/stream/v3/stream.proto",
    "envoy/extensions/clusters/dynamic_forward_proxy/v3/cluster.proto",
    "envoy/extensions/compression/gzip/compressor/v3/gzip.proto",
    "envoy/extensions/filters/common/set_filter_state/v3/value.proto",
    "envoy/extensions/filters/http/compressor/v3/compressor.proto",
    "envoy/extensions/filters/http/cors/v3/cors.proto",
    "envoy/extensions/filters/http/dynamic_forward_proxy/v3/dynamic_forward_proxy.proto",
    "envoy/extensions/filters/http/ext_authz/v3/ext_authz.proto",
    "envoy/extensions/filters/http/fault/v3/fault.proto",
    "envoy/extensions/filters/http/grpc_stats/v3/config.proto",
    "envoy/extensions/filters/http/grpc_web/v3/grpc_web.proto",
    "envoy/extensions/filters/http/header_to_metadata/v3/header_to_metadata.proto",
    "envoy/extensions/filters/http/health_check/v3/health_check.proto",
    "envoy/extensions/filters/http/jwt_authn/v3/config.proto",
    "envoy/extensions/filters/http/local_ratelimit/v3/local_rate_limit.proto",
    "envoy/extensions/filters/http/on_demand/v3/on_demand.proto",
    "envoy/extensions/filters/http/rbac/v3/rbac.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/http/set_filter_state/v3/set_filter_state.proto",
    "envoy/extensions/filters/listener/http_inspector/v3/http_inspector.proto",
    "envoy/extensions/filters/listener/original_dst/v3/original_dst.proto",
    "envoy/extensions/filters/listener/original_src/v3/original_src.proto",
    "envoy/extensions/filters/listener/proxy_protocol/v3/proxy_protocol.proto",
    "envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto",
    "envoy/extensions/filters/network/direct_response/v3/config.proto",
    "envoy/extensions/filters/network/ext_authz/v3/ext_authz.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/filters/network/local_ratelimit/v3/local_rate_limit.proto",
    "envoy/extensions/filters/network/rbac/v3/rbac.proto",
    "envoy/extensions/filters/network/set_filter_state/v3/set_filter_state.proto",
    "envoy/extensions/filters/network/sni_cluster/v3/sni_cluster.proto",
    "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto",
    "envoy/extensions/health_checkers/redis/v3/redis.proto",
    "envoy/extensions/load_balancing_policies/client_side_weighted_round_robin/v3/client_side_weighted_round_robin.proto",
    "envoy/extensions/load_balancing_policies/cluster_provided/v3/cluster_provided.proto",
    "envoy/extensions/load_balancing_policies/least_request/v3/least_request.proto",
    "envoy/extensions/load_balancing_policies/maglev/v3/maglev.proto",
    "envoy/extensions/load_balancing_policies/random/v3/random.proto",
    "envoy/extensions/load_balancing_policies/ring_hash/v3/ring_hash.proto",
    "envoy/extensions/load_balancing_policies/round_robin/v3/round_robin.proto",
    "envoy/extensions/load_balancing_policies/wrr_locality/v3/wrr_locality.proto",
    "envoy/extensions/network/dns_resolver/cares/v3/cares_dns_resolver.proto",
    "envoy/extensions/path/match/uri_template/v3/uri_template_match.proto",
    "envoy/extensions/path/rewrite/uri_template/v3/uri_template_rewrite.proto",
    "envoy/extensions/request_id/uuid/v3/uuid.proto",
    "envoy/extensions/retry/host/omit_canary_hosts/v3/omit_canary_hosts.proto",
    "envoy/extensions/retry/host/previous_hosts/v3/previous_hosts.proto",
    "envoy/extensions/retry/priority/previous_priorities/v3/previous_priorities_config.proto",
    "envoy/extensions/transport_sockets/proxy_protocol/v3/upstream_proxy_protocol.proto",
    "envoy/extensions/transport_sockets/raw_buffer/v3/raw_buffer.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
    "envoy/service/auth/v3/external_auth.proto",
    "envoy/service/discovery/v3/ads.proto",
    "envoy/service/secret/v3/sds.proto",
    "udpa/type/v1/typed_struct.proto",
    "xds/type/v3/typed_struct.proto",
    "google/rpc/status.proto",
    "istio/ca.proto",
    "istio/nds.proto",
    "spiffe/workload.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let shipped = fs::read(descriptor_set()?)?;
    let own = FileDescriptorSet {
        file: vec![
            certificate_service(),
            name_table(),
            workload_api(),
            typed_struct("udpa/type/v1/typed_struct.proto", "udpa.type.v1"),
            typed_struct("xds/type/v3/typed_struct.proto", "xds.type.v3"),
        ],
    };
    // Reading and writing the set would lose what it says about each field's bounds, which are extensions of options.
    // A set followed by another is the set of both.
    let mut descriptors = without_sources(&shipped)?;
    own.encode(&mut descriptors)?;
    fs::write(out.join("descriptors.bin"), descriptors)?;

    let mut set = FileDescriptorSet::decode(shipped.as_slice())?;
    set.file.extend(own.file);
    for file in &mut set.file {
        file.source_code_info = None;
    }

    let mut config = prost_build::Config::new();
    config
        .btree_map(["."])
        .bytes([".envoy.config.core.v3.DataSource", ".envoy.config.core.v3.HeaderValue"])
        .extern_path(".google.protobuf.Any", "crate::Any")
        .enable_type_names()
        .type_name_domain(["."], "type.googleapis.com")
        .disable_comments(["."])
        .include_file("envoy.rs");
    tonic_prost_build::configure().out_dir(&out).compile_fds_with_config(closure(set, ROOTS)?, config)?;
    Ok(())
}

/// A descriptor set without the source information of its files, everything else untouched.
fn without_sources(set: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    use prost::encoding::{WireType, encode_key, encode_varint};
    const FILE: u32 = 1;
    const SOURCE_CODE_INFO: u32 = 9;
    let mut out = Vec::with_capacity(set.len());
    for (tag, file) in fields(set)? {
        let body: Vec<u8> = fields(payload(file)?)?
            .into_iter()
            .filter(|(tag, _)| *tag != SOURCE_CODE_INFO)
            .flat_map(|(_, field)| field.iter().copied())
            .collect();
        if tag == FILE {
            encode_key(FILE, WireType::LengthDelimited, &mut out);
            encode_varint(body.len() as u64, &mut out);
            out.extend(body);
        }
    }
    Ok(out)
}

/// A field of an encoded message: its number, and all its bytes.
type Field<'m> = (u32, &'m [u8]);

/// The fields of an encoded message.
fn fields(message: &[u8]) -> Result<Vec<Field<'_>>, Box<dyn Error>> {
    use prost::encoding::{DecodeContext, decode_key, skip_field};
    let mut rest = message;
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let before = rest;
        let (tag, wire_type) = decode_key(&mut rest)?;
        skip_field(wire_type, tag, &mut rest, DecodeContext::default())?;
        fields.push((tag, &before[..before.len() - rest.len()]));
    }
    Ok(fields)
}

/// What a length-delimited field holds.
fn payload(mut field: &[u8]) -> Result<&[u8], Box<dyn Error>> {
    prost::encoding::decode_key(&mut field)?;
    let length = usize::try_from(prost::encoding::decode_varint(&mut field)?)?;
    field.get(..length).ok_or_else(|| "a field of the descriptor set is cut short".into())
}

/// Where `envoy-types` keeps its descriptor set.
fn descriptor_set() -> Result<PathBuf, Box<dyn Error>> {
    let cargo = env::var("CARGO")?;
    let manifest = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("Cargo.toml");
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--manifest-path"])
        .arg(manifest)
        .output()?;
    if !output.status.success() {
        return Err(format!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == "envoy-types")
        .and_then(|package| package["manifest_path"].as_str())
        .and_then(|path| Path::new(path).parent())
        .map(|folder| folder.join("src/generated/types.bin"))
        .ok_or_else(|| "envoy-types is not among the packages that cargo metadata lists".into())
}

/// The root files and everything they import, in the order of the set (imports first).
fn closure(set: FileDescriptorSet, roots: &[&str]) -> Result<FileDescriptorSet, String> {
    let files: BTreeMap<&str, &FileDescriptorProto> = set.file.iter().map(|f| (f.name(), f)).collect();
    let mut wanted = BTreeSet::new();
    let mut open: Vec<&str> = roots.to_vec();
    while let Some(name) = open.pop() {
        let Some(file) = files.get(name) else {
            return Err(format!("the descriptor set of envoy-types has no file {name}"));
        };
        if wanted.insert(name.to_owned()) {
            open.extend(file.dependency.iter().map(String::as_str));
        }
    }
    Ok(FileDescriptorSet { file: set.file.into_iter().filter(|f| wanted.contains(f.name())).collect() })
}

/// `istio.v1.auth.IstioCertificateService`, by which a workload's agent has its key certified.
fn certificate_service() -> FileDescriptorProto {
    file(
        "istio/ca.proto",
        "istio.v1.auth",
        vec![
            message(
                "IstioCertificateRequest",
                vec![
                    field("csr", 1, Type::String),
                    field("validity_duration", 3, Type::Int64),
                    reference("metadata", 4, ".google.protobuf.Struct"),
                ],
            ),
            message("IstioCertificateResponse", vec![repeated(field("cert_chain", 1, Type::String))]),
        ],
        vec![ServiceDescriptorProto {
            name: Some("IstioCertificateService".into()),
            method: vec![MethodDescriptorProto {
                name: Some("CreateCertificate".into()),
                input_type: Some(".istio.v1.auth.IstioCertificateRequest".into()),
                output_type: Some(".istio.v1.auth.IstioCertificateResponse".into()),
                ..Default::default()
            }],
            ..Default::default()
        }],
        vec!["google/protobuf/struct.proto"],
    )
}

/// `SpiffeWorkloadAPI`, which is in no package, with its profile of X.509-SVIDs.
fn workload_api() -> FileDescriptorProto {
    let entry = MessageOptions { map_entry: Some(true), ..Default::default() };
    let bundle = DescriptorProto {
        options: Some(entry),
        ..message(
            "FederatedBundlesEntry",
            vec![field("key", 1, Type::String), field("value", 2, Type::Bytes)],
        )
    };
    let response = DescriptorProto {
        nested_type: vec![bundle],
        ..message(
            "X509SVIDResponse",
            vec![
                repeated(reference("svids", 1, ".X509SVID")),
                repeated(field("crl", 2, Type::Bytes)),
                repeated(reference("federated_bundles", 3, ".X509SVIDResponse.FederatedBundlesEntry")),
            ],
        )
    };
    let svid = message(
        "X509SVID",
        vec![
            field("spiffe_id", 1, Type::String),
            field("x509_svid", 2, Type::Bytes),
            field("x509_svid_key", 3, Type::Bytes),
            field("bundle", 4, Type::Bytes),
            field("hint", 5, Type::String),
        ],
    );
    let service = ServiceDescriptorProto {
        name: Some("SpiffeWorkloadAPI".into()),
        method: vec![MethodDescriptorProto {
            name: Some("FetchX509SVID".into()),
            input_type: Some(".X509SVIDRequest".into()),
            output_type: Some(".X509SVIDResponse".into()),
            server_streaming: Some(true),
            ..Default::default()
        }],
        ..Default::default()
    };
    let messages = vec![message("X509SVIDRequest", vec![]), response, svid];
    FileDescriptorProto {
        package: None,
        ..file("spiffe/workload.proto", "", messages, vec![service], vec![])
    }
}

/// `istio.networking.nds.v1.NameTable`, the names that the agent's DNS server answers.
fn name_table() -> FileDescriptorProto {
    const TABLE: &str = ".istio.networking.nds.v1.NameTable";
    let info = message(
        "NameInfo",
        vec![
            repeated(field("ips", 1, Type::String)),
            field("registry", 2, Type::String),
            field("shortname", 3, Type::String),
            field("namespace", 4, Type::String),
        ],
    );
    let mut entry = message(
        "TableEntry",
        vec![field("key", 1, Type::String), reference("value", 2, &format!("{TABLE}.NameInfo"))],
    );
    entry.options = Some(MessageOptions { map_entry: Some(true), ..Default::default() });
    let mut table =
        message("NameTable", vec![repeated(reference("table", 1, &format!("{TABLE}.TableEntry")))]);
    table.nested_type = vec![info, entry];
    file("istio/nds.proto", "istio.networking.nds.v1", vec![table], vec![], vec![])
}

/// `TypedStruct`: the configuration of an extension whose message type the sender does not have.
fn typed_struct(name: &str, package: &str) -> FileDescriptorProto {
    let fields = vec![field("type_url", 1, Type::String), reference("value", 2, ".google.protobuf.Struct")];
    file(name, package, vec![message("TypedStruct", fields)], vec![], vec!["google/protobuf/struct.proto"])
}

fn file(
    name: &str,
    package: &str,
    message_type: Vec<DescriptorProto>,
    service: Vec<ServiceDescriptorProto>,
    imports: Vec<&str>,
) -> FileDescriptorProto {
    FileDescriptorProto {
        name: Some(name.into()),
        package: Some(package.into()),
        syntax: Some("proto3".into()),
        dependency: imports.into_iter().map(Into::into).collect(),
        message_type,
        service,
        ..Default::default()
    }
}

fn message(name: &str, field: Vec<FieldDescriptorProto>) -> DescriptorProto {
    DescriptorProto { name: Some(name.into()), field, ..Default::default() }
}

fn field(name: &str, number: i32, kind: Type) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        r#type: Some(kind.into()),
        ..Default::default()
    }
}

fn reference(name: &str, number: i32, type_name: &str) -> FieldDescriptorProto {
    FieldDescriptorProto { type_name: Some(type_name.into()), ..field(name, number, Type::Message) }
}

fn repeated(mut field: FieldDescriptorProto) -> FieldDescriptorProto {
    field.label = Some(Label::Repeated.into());
    field
}
