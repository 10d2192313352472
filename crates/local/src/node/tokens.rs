//! Service-account tokens in a pod's volumes, renewed before they expire.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;

use crate::api::{Api, TokenRequest, name_of, namespace_of};
use crate::node::volumes::{Tokens, account, wanted_tokens};

/// The tokens of one pod.
#[derive(Debug, Default)]
pub(super) struct TokenKeeper {
    tokens: Tokens,
    renewals: BTreeMap<(String, String), Instant>,
}

impl TokenKeeper {
    pub(super) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// How long until a token has to be renewed.
    pub(super) fn next_renewal(&self) -> Duration {
        let first = self.renewals.values().min();
        first.map_or(Duration::from_secs(3600), |at| at.saturating_duration_since(Instant::now()))
    }

    /// Issues what is missing or has passed four fifths of its life.
    pub(super) async fn renew(&mut self, api: &Api, pod: &Pod) -> Result<(), String> {
        for (key, wanted) in wanted_tokens(pod) {
            if self.renewals.get(&key).is_some_and(|at| *at > Instant::now()) {
                continue;
            }
            let seconds = wanted.expiration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
            let lifetime = Duration::from_secs(seconds.unwrap_or(3600).max(600));
            let request = TokenRequest {
                namespace: namespace_of(&pod.metadata).to_owned(),
                account: account(pod).to_owned(),
                audience: wanted.audience,
                lifetime,
                pod: name_of(&pod.metadata).to_owned(),
            };
            let volume = &key.0;
            let token = api.token(request).await.map_err(|error| {
                format!("MountVolume.SetUp failed for volume \"{volume}\" : failed to fetch token: {error}")
            })?;
            self.tokens.insert(key.clone(), token);
            self.renewals.insert(key, Instant::now() + lifetime * 4 / 5);
        }
        Ok(())
    }
}
