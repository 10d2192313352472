//! The schemas of built-in types.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::Resource as Typed;
use k8s_openapi::api::{
    admissionregistration::v1 as admission, apps::v1 as apps, authentication::v1 as authentication,
    authorization::v1 as authorization, autoscaling::v1 as autoscaling_v1, autoscaling::v2 as autoscaling_v2,
    batch::v1 as batch, coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
    events::v1 as events, networking::v1 as networking, policy::v1 as policy, rbac::v1 as rbac,
    scheduling::v1 as scheduling, storage::v1 as storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as extensions;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::patch::{List, rule};
use crate::resource::Resource;

/// The metadata of every object.
pub(super) const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Group, version and kind.
pub(crate) type Kind = (&'static str, &'static str, &'static str);

/// All definitions, with references among them in schemars' form.
pub(crate) struct Definitions {
    kinds: BTreeMap<Kind, Cow<'static, str>>,
    schemas: BTreeMap<String, Value>,
}

struct Collector {
    generator: SchemaGenerator,
    kinds: BTreeMap<Kind, Cow<'static, str>>,
}

impl Collector {
    fn add<T: Typed + JsonSchema>(&mut self) {
        self.generator.subschema_for::<T>();
        self.kinds.insert((T::GROUP, T::VERSION, T::KIND), T::schema_name());
    }
}

macro_rules! collect {
    ($($type:ty),* $(,)?) => {{
        let mut collector = Collector { generator: SchemaGenerator::default(), kinds: BTreeMap::new() };
        $(collector.add::<$type>();)*
        collector
    }};
}

impl Definitions {
    /// Makes them; it takes some milliseconds, and some megabytes as long as they are held.
    pub(crate) fn load() -> Self {
        let mut collector = collect!(
            core::Namespace,
            core::Node,
            core::Pod,
            core::Service,
            core::Endpoints,
            core::ConfigMap,
            core::Secret,
            core::ServiceAccount,
            core::Event,
            core::PersistentVolumeClaim,
            core::PersistentVolume,
            core::ReplicationController,
            core::ResourceQuota,
            core::LimitRange,
            apps::Deployment,
            apps::ReplicaSet,
            apps::StatefulSet,
            apps::DaemonSet,
            apps::ControllerRevision,
            batch::Job,
            batch::CronJob,
            discovery::EndpointSlice,
            extensions::CustomResourceDefinition,
            admission::MutatingWebhookConfiguration,
            admission::ValidatingWebhookConfiguration,
            authentication::TokenReview,
            authentication::SelfSubjectReview,
            authorization::SelfSubjectAccessReview,
            authorization::SelfSubjectRulesReview,
            authorization::LocalSubjectAccessReview,
            authorization::SubjectAccessReview,
            rbac::Role,
            rbac::RoleBinding,
            rbac::ClusterRole,
            rbac::ClusterRoleBinding,
            coordination::Lease,
            autoscaling_v1::HorizontalPodAutoscaler,
            autoscaling_v2::HorizontalPodAutoscaler,
            policy::PodDisruptionBudget,
            networking::Ingress,
            networking::IngressClass,
            networking::NetworkPolicy,
            events::Event,
            storage::StorageClass,
            scheduling::PriorityClass,
        );
        let made = collector.generator.take_definitions(true);
        let mut schemas: BTreeMap<String, Value> = made.into_iter().collect();
        for (name, schema) in &mut schemas {
            add_merge_keys(name, schema);
            // A default or an example in a schema of schemas: any value, which the generator calls an object.
            if let Some(schema) = schema.as_object_mut().filter(|_| name.ends_with(".apiextensions.v1.JSON"))
            {
                schema.remove("type");
            }
        }
        for ((group, version, kind), name) in &collector.kinds {
            if let Some(Value::Object(schema)) = schemas.get_mut(name.as_ref()) {
                add_kind(schema, group, version, kind);
            }
        }
        Self { kinds: collector.kinds, schemas }
    }

    /// The name of the definition of a resource's kind.
    pub(super) fn name(&self, resource: &Resource) -> Option<String> {
        let same = |(group, version, kind): &&Kind| {
            (*group, *version, *kind) == (&*resource.group, &*resource.version, &*resource.kind)
        };
        let found = self.kinds.keys().find(same)?;
        self.kinds.get(found).map(|name| name.to_string())
    }

    /// Group, version and kind of every object, with the name of its definition.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = (Kind, &str)> {
        self.kinds.iter().map(|(kind, name)| (*kind, name.as_ref()))
    }

    /// The definition that a schema refers to.
    pub(crate) fn reference(schema: &Value) -> Option<&str> {
        super::schema::target(schema.get("$ref"))
    }

    /// Every definition.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.schemas.iter()
    }

    /// The wanted definitions and those that they refer to.
    pub(super) fn with_references(&self, wanted: BTreeSet<String>) -> BTreeMap<&str, &Value> {
        let mut found = BTreeMap::new();
        let mut open: Vec<String> = wanted.into_iter().collect();
        while let Some(name) = open.pop() {
            if let Some((name, schema)) = self.schemas.get_key_value(&name)
                && found.insert(name.as_str(), schema).is_none()
            {
                super::schema::references(schema, &mut open);
            }
        }
        found
    }
}

/// Says which kind a schema is; the parts that only generators of Rust need are taken out.
fn add_kind(schema: &mut Map<String, Value>, group: &str, version: &str, kind: &str) {
    schema.insert(
        "x-kubernetes-group-version-kind".to_owned(),
        json!([{"group": group, "version": version, "kind": kind}]),
    );
    let required = schema.get_mut("required").and_then(Value::as_array_mut);
    required.into_iter().for_each(|list| list.retain(|field| field != "metadata"));
    if schema.get("required").is_some_and(|list| list.as_array().is_some_and(Vec::is_empty)) {
        schema.remove("required");
    }
}

/// Strategic merge patches are computed by clients as well: they have to know what the server merges by.
fn add_merge_keys(name: &str, schema: &mut Value) {
    let short = name.rsplit('.').next().unwrap_or_default();
    let of = match short {
        "EphemeralContainer" => "Container",
        other => other,
    };
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    for (field, property) in properties {
        let rule = match (of.ends_with("Status"), field.as_str()) {
            (true, "conditions") => rule("Status", field, false),
            _ => rule(of, field, false),
        };
        let merged = match rule.list {
            List::ByKey(key) => {
                property["x-kubernetes-patch-merge-key"] = json!(key);
                true
            }
            List::Set => true,
            List::Atomic => false,
        };
        let strategy = match (merged, rule.retain_keys) {
            (true, true) => "merge,retainKeys",
            (true, false) => "merge",
            (false, true) => "retainKeys",
            (false, false) => continue,
        };
        property["x-kubernetes-patch-strategy"] = json!(strategy);
    }
}
