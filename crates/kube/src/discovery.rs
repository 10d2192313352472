//! What kinds a server knows, by the names that people and manifests use.

use serde::Deserialize;

use crate::{Client, KubeError, ResourceKind};

/// The kinds of a server, each group's preferred version first.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    known: Vec<Known>,
}

#[derive(Clone, Debug)]
struct Known {
    kind: ResourceKind,
    singular: String,
    short_names: Vec<String>,
}

#[derive(Deserialize)]
struct GroupList {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    preferred_version: Version,
    versions: Vec<Version>,
}

#[derive(Clone, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Version {
    group_version: String,
}

#[derive(Deserialize)]
struct ResourceList {
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Resource {
    name: String,
    #[serde(default)]
    singular_name: String,
    kind: String,
    namespaced: bool,
    #[serde(default)]
    short_names: Vec<String>,
}

impl Discovery {
    /// Asks the server.
    ///
    /// # Errors
    /// When a request fails.
    pub async fn of(client: &Client) -> Result<Self, KubeError> {
        let mut versions = vec!["v1".to_owned()];
        let groups: GroupList = fetch(client, "/apis").await?;
        for group in groups.groups {
            let preferred = group.preferred_version.clone();
            let others = group.versions.into_iter().filter(|version| *version != preferred);
            versions.extend(
                std::iter::once(preferred.clone()).chain(others).map(|version| version.group_version),
            );
        }
        let mut known = Vec::new();
        for group_version in versions {
            let root = if group_version.contains('/') { "apis" } else { "api" };
            let list: ResourceList = fetch(client, &format!("/{root}/{group_version}")).await?;
            let (group, version) = group_version.split_once('/').unwrap_or(("", &group_version));
            for resource in list.resources.into_iter().filter(|resource| !resource.name.contains('/')) {
                known.push(Known {
                    kind: ResourceKind::new(
                        group,
                        version,
                        &resource.kind,
                        &resource.name,
                        resource.namespaced,
                    ),
                    singular: resource.singular_name,
                    short_names: resource.short_names,
                });
            }
        }
        Ok(Self { known })
    }

    /// Every kind, in every version that is served.
    pub fn kinds(&self) -> impl Iterator<Item = &ResourceKind> {
        self.known.iter().map(|known| &known.kind)
    }

    /// The kind of this plural, singular, kind or short name, with or without `.group` behind it.
    pub fn by_name(&self, name: &str) -> Option<&ResourceKind> {
        let name = name.to_lowercase();
        self.known.iter().find(|known| known.answers_to(&name)).map(|known| &known.kind)
    }

    /// The kind that a manifest means.
    pub fn by_type(&self, api_version: &str, kind: &str) -> Option<&ResourceKind> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let same = |known: &&Known| {
            known.kind.group == group && known.kind.version == version && known.kind.kind == kind
        };
        self.known.iter().find(same).map(|known| &known.kind)
    }
}

impl Known {
    fn answers_to(&self, name: &str) -> bool {
        let (name, group) = name.split_once('.').map_or((name, None), |(name, group)| (name, Some(group)));
        let named = self.kind.plural == name
            || self.singular == name
            || self.kind.kind.to_lowercase() == name
            || self.short_names.iter().any(|short| short == name);
        named && group.is_none_or(|group| self.kind.group == group)
    }
}

async fn fetch<T: serde::de::DeserializeOwned>(client: &Client, path: &str) -> Result<T, KubeError> {
    let value = client.raw_get(path, "application/json").await?;
    serde_json::from_value(value).map_err(|error| KubeError::Transport(format!("{path}: {error}")))
}
