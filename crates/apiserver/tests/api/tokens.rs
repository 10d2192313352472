//! Identities and what they may do.

use lateen_apiserver::TokenRequest;
use serde_json::json;

use crate::rest::{Rest, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn service_accounts_do_what_their_roles_allow() {
    let server = Server::start().await;
    let rest = &server.rest;
    let kubeconfig = std::fs::read_to_string(server.handle.kubeconfig_path()).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(server.handle.kubeconfig_path()).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    rest.post("/api/v1/namespaces/default/serviceaccounts", &json!({"metadata": {"name": "bob"}}))
        .await
        .expect(201);
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": [], "expirationSeconds": 600}});
    let issued =
        rest.post("/api/v1/namespaces/default/serviceaccounts/bob/token", &request).await.expect(201);
    let token = issued["status"]["token"].as_str().unwrap();
    let bob = Rest::bearer(&kubeconfig, Some(token));
    let pods = "/api/v1/namespaces/default/pods";
    let refused = bob.get(pods).await.expect(403);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("User \"system:serviceaccount:default:bob\" cannot list resource \"pods\""),
        "{refused}"
    );
    let role = json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]});
    rest.post("/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", &role).await.expect(201);
    let binding = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "ServiceAccount", "name": "bob", "namespace": "default"}]});
    rest.post("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", &binding)
        .await
        .expect(201);
    bob.get(pods).await.expect(200);
    assert_eq!(bob.get("/api/v1/pods").await.code, 403, "only in its namespace");
    assert_eq!(bob.delete(pods).await.code, 403, "only that verb");
    assert_eq!(bob.get("/apis").await.code, 200);

    assert_eq!(Rest::bearer(&kubeconfig, None).get(pods).await.code, 403);
    assert_eq!(Rest::bearer(&kubeconfig, None).get("/healthz").await.code, 200);
    assert_eq!(Rest::bearer(&kubeconfig, Some("nonsense")).get(pods).await.code, 401);
    rest.delete("/api/v1/namespaces/default/serviceaccounts/bob").await.expect(200);
    assert_eq!(bob.get(pods).await.code, 401, "a token dies with its account");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_be_a_user_may_not_be_the_masters_nor_run_what_he_may_read() {
    let server = Server::start().await;
    let rest = &server.rest;
    let client = server.handle.client();
    let kubeconfig = std::fs::read_to_string(server.handle.kubeconfig_path()).unwrap();
    let account = json!({"metadata": {"name": "bob", "namespace": "default"}});
    client.create("serviceaccounts", account).await.unwrap();
    let wanted = TokenRequest { audiences: Vec::new(), expiration_seconds: None, pod: None };
    let issued = client.service_account_token("default", "bob", wanted).await.unwrap();
    let role = json!({"metadata": {"name": "r"}, "rules": [
        {"apiGroups": [""], "resources": ["users"], "resourceNames": ["ann"], "verbs": ["impersonate"]},
        {"apiGroups": [""], "resources": ["pods", "pods/exec"], "verbs": ["get"]}]});
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    rest.post(&format!("{rbac}/clusterroles"), &role).await.expect(201);
    let binding = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "r"},
        "subjects": [{"kind": "ServiceAccount", "name": "bob", "namespace": "default"}]});
    rest.post(&format!("{rbac}/clusterrolebindings"), &binding).await.expect(201);
    let bob = Rest::bearer(&kubeconfig, Some(&issued.token));
    let secrets = "/api/v1/namespaces/default/secrets";
    let ann = ("impersonate-user", "ann");
    let refused = bob.call("GET", secrets, &[ann], "").await.expect(403);
    assert!(refused["message"].as_str().unwrap().contains("User \"ann\" cannot list"), "{refused}");
    let masters = ("impersonate-group", "system:masters");
    let refused = bob.call("GET", secrets, &[ann, masters], "").await.expect(403);
    assert!(refused["message"].as_str().unwrap().contains("cannot impersonate"), "{refused}");
    let exec = bob.get("/api/v1/namespaces/default/pods/p/exec?command=id").await.expect(403);
    assert!(exec["message"].as_str().unwrap().contains("cannot create resource \"pods/exec\""), "{exec}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_reviewed_by_audience_and_pod() {
    let server = Server::start().await;
    let rest = &server.rest;
    let client = server.handle.client();
    let namespaced = |name: &str| json!({"metadata": {"name": name, "namespace": "default"}});
    client.create("serviceaccounts", namespaced("sa")).await.unwrap();
    let mut pod = namespaced("p");
    pod["spec"] = json!({"serviceAccountName": "sa", "containers": [{"name": "c", "image": "x"}]});
    client.create("pods", pod).await.unwrap();
    let wanted =
        TokenRequest { audiences: vec!["istio-ca".into()], expiration_seconds: None, pod: Some("p".into()) };
    let issued = client.service_account_token("default", "sa", wanted.clone()).await.unwrap();
    let review = async |audiences: &[&str]| {
        let body = json!({"spec": {"token": issued.token, "audiences": audiences}});
        rest.post("/apis/authentication.k8s.io/v1/tokenreviews", &body).await.expect(201)["status"].clone()
    };
    let good = review(&["istio-ca", "other"]).await;
    assert_eq!(
        (&good["authenticated"], &good["user"]["username"]),
        (&json!(true), &json!("system:serviceaccount:default:sa"))
    );
    assert_eq!(good["audiences"], json!(["istio-ca"]));
    assert_eq!(good["user"]["extra"]["authentication.kubernetes.io/pod-name"], json!(["p"]));
    assert_eq!(review(&["other"]).await["authenticated"], false);
    assert_eq!(review(&[]).await["authenticated"], false, "not for the API server");
    let missing = TokenRequest { pod: Some("q".into()), ..wanted.clone() };
    assert!(client.service_account_token("default", "sa", missing).await.unwrap_err().is_not_found());
    let short = TokenRequest { expiration_seconds: Some(5), ..wanted };
    assert_eq!(client.service_account_token("default", "sa", short).await.unwrap_err().code, 422);
    client.delete("pods", Some("default"), "p", Default::default()).await.unwrap();
    assert_eq!(review(&["istio-ca"]).await["authenticated"], false, "dies with its pod");
    let keys = rest.get("/openid/v1/jwks").await.expect(200);
    assert_eq!(keys["keys"][0]["kty"], "EC");
}
