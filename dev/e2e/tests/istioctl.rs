//! The table of istioctl's commands, run on a cluster with the demo profile and Bookinfo, by the name `istioctl`.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::symlink;

use e2e::{Cluster, DataPlane, repository, tools};
use tempfile::TempDir;

#[path = "../../testkit/src/commands.rs"]
mod commands;

const TABLE: &str = include_str!("istioctl.txt");

const OPERATOR: &str = "\
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  values:
    global:
      meshID: mesh1
      multiCluster:
        clusterName: cluster1
      network: network1
";

#[test]
fn the_labs_commands_find_what_they_know() {
    if !tools(&["kubectl", "bash"]) {
        return;
    }
    let cluster = Cluster::up(DataPlane::Lateen);
    for sample in [
        "sleep/sleep.yaml",
        "httpbin/httpbin.yaml",
        "bookinfo/platform/kube/bookinfo.yaml",
        "bookinfo/networking/bookinfo-gateway.yaml",
    ] {
        cluster.apply_sample(sample);
    }
    cluster.wait_for_pods("default", 8);
    let folder = TempDir::new().unwrap();
    symlink(repository().join("samples"), folder.path().join("samples")).unwrap();
    for name in ["op_cluster1.yaml", "cluster1.yaml"] {
        std::fs::write(folder.path().join(name), OPERATOR).unwrap();
    }
    symlink(e2e::lateen(), folder.path().join("istioctl")).unwrap();
    let pod = |namespace: &str, app: &str| {
        let pods = cluster.list(&["pod", "-n", namespace, "-l", &format!("app={app}")]);
        pods[0]["metadata"]["name"].as_str().unwrap().to_owned()
    };
    let variables = [
        ("SLEEP", pod("default", "sleep")),
        ("PRODUCTPAGE", pod("default", "productpage")),
        ("INGRESS", pod("istio-system", "istio-ingressgateway")),
        ("CTX_CLUSTER1", cluster.kubectl(&["config", "current-context"]).trim().to_owned()),
    ];
    let shell = commands::Shell {
        program: "bash",
        home: folder.path(),
        folder: folder.path(),
        kubeconfig: cluster.kubeconfig().into(),
        variables: variables.map(|(name, value)| (name.to_owned(), value)).into(),
    };
    let wrong = shell.judge(TABLE, 0);
    drop(cluster);
    assert!(wrong.is_empty(), "{} rows of the table do not hold:\n\n{}", wrong.len(), wrong.join("\n"));
}
