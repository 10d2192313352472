//! The labs' own files: manifests of the sample applications, scripts and the Makefile of certificates, as the folders
//! `samples`, `istiolabmanual` and `tools/certs` of the repository have them.

/// Bookinfo's services, accounts and deployments.
pub const BOOKINFO: &str = include_str!("../../../samples/bookinfo/platform/kube/bookinfo.yaml");
/// The gateway and virtual service that let the world in to Bookinfo.
pub const BOOKINFO_GATEWAY: &str = include_str!("../../../samples/bookinfo/networking/bookinfo-gateway.yaml");
/// Bookinfo's destination rules, one subset per version.
pub const BOOKINFO_DESTINATION_RULES: &str =
    include_str!("../../../samples/bookinfo/networking/destination-rule-all.yaml");

/// All files, in the order of their paths.
pub const FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/samples.rs"));

/// A file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path from the top of the repository, with `/`.
    pub path: &'static str,
    /// What is in it.
    pub text: &'static str,
}

impl File {
    /// Whether it is a script, to be run by its name.
    pub fn is_program(&self) -> bool {
        self.text.starts_with("#!")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every path that the documents name, from the folder of an unpacked release.
    const NAMED: &str = "
        istiolabmanual/circuitbreaking.yaml istiolabmanual/delay.yaml istiolabmanual/egressgw.yaml
        istiolabmanual/egressse.yaml istiolabmanual/egressvs.yaml istiolabmanual/gateway.yaml
        istiolabmanual/helloworld-v1.yaml istiolabmanual/helloworld-v1vs.yaml istiolabmanual/httpbin-v1.yaml
        istiolabmanual/httpbin-v2.yaml istiolabmanual/httpbinsvc.yaml istiolabmanual/httpbinvs.yaml
        istiolabmanual/ingressgateway.yaml istiolabmanual/ingressgateway2.yaml istiolabmanual/ingressvs.yaml
        istiolabmanual/jwtap.yaml istiolabmanual/jwtra.yaml istiolabmanual/mirror.yaml
        istiolabmanual/mtlspermissive.yaml istiolabmanual/mtlsstrict.yaml istiolabmanual/mygatewayv1.yaml
        istiolabmanual/mygatewayv2.yaml istiolabmanual/retry.yaml istiolabmanual/reviewsv2.yaml
        istiolabmanual/sdsgateway.yaml istiolabmanual/sdshttpbin.yaml istiolabmanual/sdsvirtualserver.yaml
        istiolabmanual/serviceentry.yaml istiolabmanual/timeout.yaml istiolabmanual/virtualservice.yaml
        samples/addons/grafana.yaml samples/addons/jaeger.yaml samples/addons/kiali.yaml
        samples/addons/prometheus.yaml samples/bookinfo/networking/bookinfo-gateway.yaml
        samples/bookinfo/networking/destination-rule-all.yaml
        samples/bookinfo/networking/virtual-service-all-v1.yaml
        samples/bookinfo/networking/virtual-service-ratings-test-abort.yaml
        samples/bookinfo/networking/virtual-service-ratings-test-delay.yaml
        samples/bookinfo/networking/virtual-service-reviews-50-v3.yaml
        samples/bookinfo/networking/virtual-service-reviews-test-v2.yaml
        samples/bookinfo/networking/virtual-service-reviews-v3.yaml
        samples/bookinfo/platform/kube/bookinfo.yaml samples/bookinfo/platform/kube/cleanup.sh
        samples/egress/gateway-patch.json samples/egress/mesh.yaml samples/egress/nginx.conf samples/egress/nginx.yaml
        samples/extauthz/ext-authz.yaml
        samples/helloworld/helloworld.yaml samples/httpbin/httpbin.yaml
        samples/httpbin/sample-client/fortio-deploy.yaml samples/jwt/demo.jwt samples/jwt/jwks.json
        samples/multicluster/expose-istiod.yaml samples/multicluster/expose-services.yaml
        samples/multicluster/gen-eastwest-gateway.sh samples/sleep/sleep.yaml
        tools/certs/Makefile.selfsigned.mk";

    #[test]
    fn every_path_that_the_documents_name_is_there() {
        let missing: Vec<&str> = NAMED
            .split_whitespace()
            .filter(|path| !FILES.iter().any(|file| file.path == *path && !file.text.is_empty()))
            .collect();
        assert_eq!(missing, [""; 0]);
        assert!(FILES.is_sorted_by(|one, next| one.path < next.path));
    }

    #[test]
    fn scripts_are_programs_and_nothing_else_is() {
        let programs: Vec<&str> =
            FILES.iter().filter(|file| file.is_program()).map(|file| file.path).collect();
        let wanted =
            ["samples/bookinfo/platform/kube/cleanup.sh", "samples/multicluster/gen-eastwest-gateway.sh"];
        assert_eq!(programs, wanted);
    }

    #[test]
    fn every_manifest_is_good_yaml_with_kind_and_name() {
        for file in FILES.iter().filter(|file| file.path.ends_with(".yaml")) {
            let read: Result<Vec<serde_json::Value>, _> = serde_saphyr::from_multiple(file.text);
            let objects = read.unwrap_or_else(|error| panic!("{}: {error}", file.path));
            assert!(!objects.is_empty(), "{}", file.path);
            for object in objects {
                assert!(
                    object["kind"].is_string() && object["metadata"]["name"].is_string(),
                    "{}",
                    file.path
                );
            }
        }
    }
}
