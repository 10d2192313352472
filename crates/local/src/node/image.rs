//! Images are programs of this very binary, found by the repository's name: any registry, any tag.

/// What runs in place of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// The control plane; the container's arguments are its own (`discovery ...`).
    ControlPlane,
    /// The proxy; the container's arguments are its own (`proxy sidecar ...`).
    Proxy,
    /// A built-in application.
    App {
        /// Its name, as `lateen app NAME` takes it.
        name: &'static str,
        /// The version that the image's name carries.
        version: Option<&'static str>,
        /// The port the image listens on, where it is not the application's own default.
        port: Option<u16>,
    },
}

const TABLE: &[(&str, Program)] = &[
    ("pilot", Program::ControlPlane),
    ("proxyv2", Program::Proxy),
    ("examples-bookinfo-productpage-v1", versioned("productpage", "v1")),
    ("examples-bookinfo-details-v1", versioned("details", "v1")),
    ("examples-bookinfo-ratings-v1", versioned("ratings", "v1")),
    ("examples-bookinfo-reviews-v1", versioned("reviews", "v1")),
    ("examples-bookinfo-reviews-v2", versioned("reviews", "v2")),
    ("examples-bookinfo-reviews-v3", versioned("reviews", "v3")),
    ("examples-helloworld-v1", versioned("helloworld", "v1")),
    ("examples-helloworld-v2", versioned("helloworld", "v2")),
    ("httpbin", plain("httpbin")),
    ("go-httpbin", Program::App { name: "httpbin", version: None, port: Some(8080) }),
    ("curl", plain("sleep")),
    ("curl-ssl", plain("sleep")),
    ("sleep", plain("sleep")),
    ("fortio", plain("fortio")),
    ("nginx", plain("nginx")),
    ("tcp-echo-server", plain("tcp-echo")),
    ("ext-authz", plain("ext-authz")),
];

const fn versioned(name: &'static str, version: &'static str) -> Program {
    Program::App { name, version: Some(version), port: None }
}

const fn plain(name: &'static str) -> Program {
    Program::App { name, version: None, port: None }
}

/// The program for an image reference (`[REGISTRY/]REPOSITORY[:TAG][@DIGEST]`); none when nothing is built in.
pub(crate) fn program(image: &str) -> Option<Program> {
    let name = repository_name(image);
    TABLE.iter().find(|(known, _)| *known == name).map(|(_, program)| *program)
}

/// The last word of the repository, without registry, tag and digest.
fn repository_name(image: &str) -> &str {
    let image = image.split_once('@').map_or(image, |(repository, _)| repository);
    let last = image.rsplit_once('/').map_or(image, |(_, last)| last);
    last.split_once(':').map_or(last, |(repository, _)| repository)
}

/// Whether the text can be an image reference at all (`InvalidImageName` else).
pub(crate) fn is_reference(image: &str) -> bool {
    let name = repository_name(image);
    !name.is_empty() && image.chars().all(|c| c.is_ascii_alphanumeric() || "./:@_-".contains(c))
}

/// What to tell somebody whose image is not built in.
pub(crate) fn unknown(image: &str) -> String {
    let known: Vec<&str> = TABLE.iter().map(|(name, _)| *name).collect();
    format!(
        "image \"{image}\" is not one of the built-in programs of the local cluster, which runs no container \
         engine; it knows the repositories {}",
        known.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registry_and_tag_do_not_matter() {
        for image in [
            "docker.io/istio/examples-bookinfo-reviews-v2:1.16.2",
            "localhost:5000/examples-bookinfo-reviews-v2",
            "examples-bookinfo-reviews-v2@sha256:6668bcf4",
            "registry.istio.io/testing/examples-bookinfo-reviews-v2:1.20.3@sha256:66",
        ] {
            assert_eq!(program(image), Some(versioned("reviews", "v2")), "{image}");
        }
        assert_eq!(program("docker.io/kennethreitz/httpbin"), Some(plain("httpbin")));
        let go = Program::App { name: "httpbin", version: None, port: Some(8080) };
        assert_eq!(program("mccutchen/go-httpbin:v2.15.0"), Some(go));
        assert_eq!(program("curlimages/curl"), Some(plain("sleep")));
        assert_eq!(program("fortio/fortio:latest_release"), Some(plain("fortio")));
        assert_eq!(program("nginx"), Some(plain("nginx")));
        assert_eq!(program("istio/proxyv2:1.26.0"), Some(Program::Proxy));
        assert_eq!(program("redis:7"), None);
        assert!(unknown("redis:7").contains("\"redis:7\""));
    }

    #[test]
    fn references_are_told_from_nonsense() {
        assert!(is_reference("a/b:c"));
        assert!(!is_reference(""));
        assert!(!is_reference("a b"));
        assert!(!is_reference("a/:tag"));
    }
}
