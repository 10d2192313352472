//! Services: defaults, cluster addresses and node ports.

use std::collections::{HashSet, VecDeque};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use parking_lot::Mutex;
use rand::Rng;
use serde_json::{Value, json};

use super::{each, set, set_all};
use crate::api::Api;
use crate::object::child_mut;
use crate::resource::Resource;
use crate::status::{Cause, Status};

/// Gives addresses and ports that no service has.
pub(crate) struct Allocator {
    network: (Ipv4Addr, u8),
    node_ports: RangeInclusive<u16>,
    /// Given out so recently that the service may not be stored yet.
    recent: Mutex<VecDeque<String>>,
}

/// As many as can be on their way to the store at once.
const RECENT: usize = 512;

/// What services have already.
struct Taken {
    values: HashSet<String>,
}

pub(super) fn complete(value: &mut Value, old: Option<&Value>) {
    let spec = child_mut(value, "spec");
    super::put(spec, "type", json!("ClusterIP"));
    super::put(spec, "sessionAffinity", json!("None"));
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    let external = matches!(kind.as_str(), "NodePort" | "LoadBalancer");
    if kind != "ExternalName" {
        super::put(spec, "internalTrafficPolicy", json!("Cluster"));
        super::put(spec, "ipFamilies", json!(["IPv4"]));
        super::put(spec, "ipFamilyPolicy", json!("SingleStack"));
    }
    if external {
        super::put(spec, "externalTrafficPolicy", json!("Cluster"));
    }
    if kind == "LoadBalancer" {
        super::put(spec, "allocateLoadBalancerNodePorts", json!(true));
    }
    if let Some(old) = old.filter(|_| kind != "ExternalName") {
        keep_allocated(spec, &old["spec"], external);
    }
    for port in each(&mut value["spec"], "ports") {
        set(port, "protocol", json!("TCP"));
        let own = port["port"].clone();
        set(port, "targetPort", own);
    }
    set_all(value, "status", json!({"loadBalancer": {}}));
}

/// A client that replaces the object without naming what was allocated keeps it.
fn keep_allocated(spec: &mut serde_json::Map<String, Value>, old: &Value, external: bool) {
    for key in ["clusterIP", "clusterIPs"] {
        if !old[key].is_null() {
            super::put(spec, key, old[key].clone());
        }
    }
    if !external {
        return;
    }
    let given: Vec<Value> =
        spec["ports"].as_array().into_iter().flatten().map(|p| p["nodePort"].clone()).collect();
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let same = |o: &&Value| o["port"] == port["port"] && protocol(o) == protocol(port);
        let before = old["ports"].as_array().into_iter().flatten().find(same).map(|o| o["nodePort"].clone());
        if let Some(number) = before.filter(|n| n.is_number() && !given.contains(n)) {
            set(port, "nodePort", number);
        }
    }
}

fn protocol(port: &Value) -> &str {
    port["protocol"].as_str().unwrap_or("TCP")
}

/// Gives a service its address and node ports; other objects pass.
pub(crate) fn allocate(api: &Api, resource: &Resource, value: &mut Value) -> Result<(), Status> {
    if !resource.is("services") {
        return Ok(());
    }
    let kind = value["spec"]["type"].as_str().unwrap_or_default().to_owned();
    let Some(allocator) = &api.allocator else { return Ok(()) };
    let name = crate::object::name(value).to_owned();
    let own = (crate::object::namespace(value).to_owned(), name.clone());
    let taken = Taken::load(api, &own);
    let invalid = |cause| Status::invalid("", "Service", &name, vec![cause]);
    if kind == "ExternalName" {
        return Ok(());
    }
    let spec = &mut value["spec"];
    match spec["clusterIP"].as_str().unwrap_or_default() {
        "" => {
            let address = allocator.address(&taken).map_err(Status::internal)?;
            spec["clusterIP"] = json!(address);
        }
        "None" => {}
        given if taken.values.contains(given) => {
            let cause = Cause::invalid(
                "spec.clusterIPs",
                &spec["clusterIP"],
                "failed to allocate IP: provided IP is already allocated",
            );
            return Err(invalid(cause));
        }
        _ => {}
    }
    spec["clusterIPs"] = json!([spec["clusterIP"]]);
    let wants =
        kind == "NodePort" || kind == "LoadBalancer" && spec["allocateLoadBalancerNodePorts"] != false;
    let mut chosen = Vec::new();
    for (index, port) in each(spec, "ports").enumerate() {
        match port["nodePort"].as_u64().unwrap_or(0) {
            0 if wants => {
                let number = allocator.node_port(&taken).map_err(Status::internal)?;
                port["nodePort"] = json!(number);
            }
            0 => drop(port.as_object_mut().map(|map| map.shift_remove("nodePort"))),
            given
                if taken.values.contains(&format!("{given}/{}", protocol(port)))
                    || chosen.contains(&given) =>
            {
                let field = format!("spec.ports[{index}].nodePort");
                return Err(invalid(Cause::invalid(
                    field,
                    &port["nodePort"],
                    "provided port is already allocated",
                )));
            }
            given => chosen.push(given),
        }
    }
    Ok(())
}

impl Taken {
    /// Of all services but `own`.
    fn load(api: &Api, own: &(String, String)) -> Self {
        let mut values = HashSet::new();
        for object in api.store.list(&"services".into(), None).objects {
            if (&*object.namespace, &*object.name) == (own.0.as_str(), own.1.as_str()) {
                continue;
            }
            let service = object.neutral().unwrap_or_default();
            values
                .extend(service["spec"]["clusterIP"].as_str().filter(|ip| *ip != "None").map(str::to_owned));
            for port in service["spec"]["ports"].as_array().into_iter().flatten() {
                values.extend(port["nodePort"].as_u64().map(|number| format!("{number}/{}", protocol(port))));
            }
        }
        Self { values }
    }
}

impl Allocator {
    pub(crate) fn new(network: (Ipv4Addr, u8), node_ports: RangeInclusive<u16>) -> Self {
        Self { network, node_ports, recent: Mutex::default() }
    }

    fn address(&self, taken: &Taken) -> Result<String, String> {
        let (base, prefix) = self.network;
        let size = 1u32.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(u32::MAX);
        let first = u32::from(base);
        // The first address is the network's, the second one the API server's service, the last one broadcast.
        let pick = |at: u32| Ipv4Addr::from(first.wrapping_add(at)).to_string();
        self.choose(2, size.saturating_sub(2), pick, |text| taken.values.contains(text))
            .ok_or_else(|| format!("all service addresses of {base}/{prefix} are in use"))
    }

    fn node_port(&self, taken: &Taken) -> Result<u64, String> {
        let (first, last) = (u32::from(*self.node_ports.start()), u32::from(*self.node_ports.end()));
        let used = |text: &str| ["TCP", "UDP"].iter().any(|p| taken.values.contains(&format!("{text}/{p}")));
        let chosen = self.choose(first, last, |at| at.to_string(), used);
        let chosen = chosen.and_then(|text| text.parse().ok());
        chosen.ok_or_else(|| format!("all node ports {first}-{last} are in use"))
    }

    /// A free one of `first..=last`, searched from a random start.
    fn choose(
        &self,
        first: u32,
        last: u32,
        word: impl Fn(u32) -> String,
        used: impl Fn(&str) -> bool,
    ) -> Option<String> {
        if first > last {
            return None;
        }
        let count = last - first + 1;
        let start = rand::rng().random_range(0..count);
        let mut recent = self.recent.lock();
        let mut all = (0..count).map(|step| {
            word(first + (u64::from(start) + u64::from(step)).rem_euclid(u64::from(count)) as u32)
        });
        let chosen = all.find(|text| !used(text) && !recent.contains(text))?;
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back(chosen.clone());
        Some(chosen)
    }
}
