//! Whatever a user writes as a manifest or mesh configuration: it is read or refused, and what was read is judged, written
//! and read again as the same, without a panic.
//!
//! The first byte chooses between the two, the rest is the text.
#![no_main]

use lateen_api::mesh::MeshConfig;
use lateen_api::validate::validate_mesh_config;
use lateen_api::{Document, Object, parse_json, parse_yaml, validate};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, bytes)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if kind % 4 == 0 {
        if let Ok(mesh) = MeshConfig::parse(text) {
            validate_mesh_config(&mesh);
        }
        return;
    }
    for document in parse_yaml("f.yaml", text).into_iter().flatten() {
        if let Document::Istio(object) = document {
            drive(&object);
        }
    }
});

fn drive(object: &Object) {
    validate(object);
    match parse_json(&object.write()) {
        Ok(again) => assert_eq!(again.spec, object.spec),
        Err(error) => panic!("what was written is not read again: {error}"),
    }
}
