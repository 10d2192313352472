//! `WasmPlugin` and `TrafficExtension`: code that runs inside the proxy.

use serde_json::{Map, Value};

use super::rules::{CODE_URL, ONE_TARGET, count, part, text};
use super::selector::{LabelSelector, PolicyTargetReference};
use crate::field::{Rule, enumeration, message};

const INLINE_VALUE: Rule = Rule::Cel {
    rule: "(has(self.valueFrom) ? self.valueFrom : \"\") != \"HOST\" || !has(self.value)",
    message: "value may only be set when valueFrom is INLINE",
    holds: |value| text(value, "value_from") != "HOST" || part(value, "value").is_none(),
};

message! {
    /// WebAssembly that runs inside the proxy. See https://istio.io/docs/reference/config/proxy_extensions/wasm-plugin/.
    pub struct WasmPlugin [ONE_TARGET] {
        /// The workloads it is for; all of the namespace when absent.
        selector: Option<LabelSelector>,
        /// The object it is attached to.
        target_ref: Option<PolicyTargetReference>,
        /// The objects it is attached to.
        target_refs: Vec<PolicyTargetReference> [MaxItems(16)],
        /// Where the module is fetched from: oci, file, http or https.
        url: String [Required, MinLength(1), CODE_URL],
        /// The checksum of the module or image.
        sha256: String [Pattern("(^$|^[a-f0-9]{64}$)")],
        /// When an image is pulled.
        image_pull_policy: PullPolicy,
        /// The secret for pulling.
        image_pull_secret: String [MinLength(1), MaxLength(253)],
        /// Not in use.
        verification_key: String,
        /// The configuration of the plugin.
        plugin_config: Option<Map<String, Value>>,
        /// The name of the plugin inside the module.
        plugin_name: String [MinLength(1), MaxLength(256)],
        /// Where in the filter chain.
        phase: PluginPhase,
        /// The place among plugins of a phase: higher comes first.
        priority: Option<i32> [Nullable],
        /// What happens when it fails.
        fail_strategy: FailStrategy,
        /// The virtual machine.
        vm_config: Option<VmConfig>,
        /// Which traffic.
        r#match: Vec<TrafficSelector>,
        /// The type of filter.
        r#type: PluginType,
    }
}

message! {
    /// Which traffic.
    pub struct TrafficSelector {
        /// The side.
        mode: TrafficMode,
        /// The ports; all when empty.
        ports: Vec<SelectedPort> [ListKey("number")],
    }
}

message! {
    /// A port.
    pub struct SelectedPort {
        /// Its number.
        number: u32 [Required, Min(1), Max(65535)],
    }
}

enumeration! {
    /// A side of traffic.
    pub enum TrafficMode {
        /// As CLIENT_AND_SERVER.
        Undefined = "UNDEFINED" 0,
        /// The client's.
        Client = "CLIENT" 1,
        /// The server's.
        Server = "SERVER" 2,
        /// Both.
        ClientAndServer = "CLIENT_AND_SERVER" 3,
    }
}

enumeration! {
    /// The type of filter.
    pub enum PluginType {
        /// As HTTP.
        Unspecified = "UNSPECIFIED_PLUGIN_TYPE" 0,
        /// An HTTP filter.
        Http = "HTTP" 1,
        /// A network filter.
        Network = "NETWORK" 2,
    }
}

enumeration! {
    /// Where in the filter chain.
    pub enum PluginPhase {
        /// At the end, before the router.
        Unspecified = "UNSPECIFIED_PHASE" 0,
        /// Before authentication.
        Authn = "AUTHN" 1,
        /// Before authorization.
        Authz = "AUTHZ" 2,
        /// Before statistics.
        Stats = "STATS" 3,
    }
}

enumeration! {
    /// When an image is pulled.
    pub enum PullPolicy {
        /// IfNotPresent, and Always for the tag `latest`.
        Unspecified = "UNSPECIFIED_POLICY" 0,
        /// When it is not there.
        IfNotPresent = "IfNotPresent" 1,
        /// Always.
        Always = "Always" 2,
    }
}

enumeration! {
    /// What happens when code fails.
    pub enum FailStrategy {
        /// Traffic is refused.
        FailClose = "FAIL_CLOSE" 0,
        /// The code is skipped.
        FailOpen = "FAIL_OPEN" 1,
        /// The virtual machine is started again.
        FailReload = "FAIL_RELOAD" 2,
    }
}

message! {
    /// The virtual machine.
    pub struct VmConfig {
        /// Environment variables.
        env: Vec<EnvVar> [MaxItems(256), ListKey("name")],
    }
}

message! {
    /// An environment variable.
    pub struct EnvVar [INLINE_VALUE] {
        /// Its name.
        name: String [Required, MinLength(1), MaxLength(256)],
        /// Where its value comes from.
        value_from: EnvValueSource,
        /// Its value.
        value: String [MaxLength(2048)],
    }
}

enumeration! {
    /// Where a variable's value comes from.
    pub enum EnvValueSource {
        /// It is written down.
        Inline = "INLINE" 0,
        /// From the proxy's environment.
        Host = "HOST" 1,
    }
}

message! {
    /// WebAssembly or Lua that runs inside the proxy.
    pub struct TrafficExtension [
        OneOf(&["wasm", "lua"]),
        Cel {
            rule: "(has(self.selector) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1",
            message: "only one of targetRefs or selector can be set",
            holds: |value| count(value, &["selector", "target_refs"]) <= 1,
        },
        Cel {
            rule: "has(self.wasm) != has(self.lua)",
            message: "exactly one of wasm or lua must be set",
            holds: |value| count(value, &["wasm", "lua"]) == 1,
        },
    ] {
        /// The workloads it is for; all of the namespace when absent.
        selector: Option<LabelSelector>,
        /// The objects it is attached to.
        target_refs: Vec<PolicyTargetReference> [MaxItems(16)],
        /// Where in the filter chain.
        phase: ExtensionPhase,
        /// The place among extensions of a phase: higher comes first.
        priority: Option<i32> [Nullable],
        /// Which traffic.
        r#match: Vec<TrafficSelector>,
        /// WebAssembly.
        wasm: Option<WasmConfig>,
        /// Lua.
        lua: Option<LuaConfig>,
    }
}

enumeration! {
    /// Where in the filter chain.
    pub enum ExtensionPhase {
        /// At the end, before the router.
        Unspecified = "UNSPECIFIED" 0,
        /// Before authentication.
        Authn = "AUTHN" 1,
        /// Before authorization.
        Authz = "AUTHZ" 2,
        /// Before statistics.
        Stats = "STATS" 3,
    }
}

message! {
    /// A WebAssembly module.
    pub struct WasmConfig {
        /// Where the module is fetched from: oci, file, http or https.
        url: String [Required, MinLength(1), CODE_URL],
        /// The checksum of the module or image.
        sha256: String [Pattern("(^$|^[a-f0-9]{64}$)")],
        /// When an image is pulled.
        image_pull_policy: PullPolicy,
        /// The secret for pulling.
        image_pull_secret: String [MinLength(1), MaxLength(253)],
        /// Not in use.
        verification_key: String,
        /// The configuration of the plugin.
        plugin_config: Option<Map<String, Value>>,
        /// The name of the plugin inside the module.
        plugin_name: String [MinLength(1), MaxLength(256)],
        /// What happens when it fails.
        fail_strategy: FailStrategy,
        /// The virtual machine.
        vm_config: Option<VmConfig>,
        /// The type of filter.
        r#type: PluginType,
    }
}

message! {
    /// A Lua script.
    pub struct LuaConfig {
        /// The script.
        inline_code: String [Required, MinLength(1), MaxLength(65536)],
    }
}
