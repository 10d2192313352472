//! Named starting points of an installation.

use lateen_api::field::nearest;
use lateen_api::install::layer;
use serde_json::Value;

const PROFILES: &[(&str, &str)] = &[
    ("default", include_str!("profiles/default.yaml")),
    ("demo", include_str!("profiles/demo.yaml")),
    ("empty", include_str!("profiles/empty.yaml")),
    ("minimal", include_str!("profiles/minimal.yaml")),
    ("preview", include_str!("profiles/preview.yaml")),
    ("remote", include_str!("profiles/remote.yaml")),
];

/// There is no profile of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownProfile(pub String);

impl std::fmt::Display for UnknownProfile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = profiles().collect();
        write!(f, "unknown profile {:?}", self.0)?;
        match nearest(&self.0, &names) {
            Some(name) => write!(f, "; did you mean {name:?}?")?,
            None => write!(f, ".")?,
        }
        write!(f, " There are: {}", names.join(", "))
    }
}

impl std::error::Error for UnknownProfile {}

/// The names of all profiles.
pub fn profiles() -> impl Iterator<Item = &'static str> {
    PROFILES.iter().map(|(name, _)| *name)
}

/// A profile's `IstioOperator`, complete: over the profile `default`.
///
/// # Errors
/// When there is no profile of that name.
pub fn profile(name: &str) -> Result<Value, UnknownProfile> {
    let mut operator = document("default")?;
    if !matches!(name, "" | "default") {
        layer::overlay(&mut operator, &document(name)?);
    }
    Ok(operator)
}

fn document(name: &str) -> Result<Value, UnknownProfile> {
    let (_, text) =
        PROFILES.iter().find(|(known, _)| *known == name).ok_or_else(|| UnknownProfile(name.to_owned()))?;
    // The texts are part of the binary, and a test reads each.
    Ok(serde_saphyr::from_str(text).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use lateen_api::install::IstioOperator;

    use super::*;

    #[test]
    fn every_profile_is_an_operator() {
        for name in profiles() {
            let operator = profile(name).unwrap();
            assert!(operator["spec"]["components"].is_object(), "{name}");
            IstioOperator::read(&operator).unwrap_or_else(|errors| panic!("{name}: {errors}"));
        }
        assert_eq!(
            profile("dmo").unwrap_err().to_string(),
            "unknown profile \"dmo\"; did you mean \"demo\"? \
             There are: default, demo, empty, minimal, preview, remote"
        );
    }
}
