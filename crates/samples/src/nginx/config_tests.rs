use super::*;

/// The shape of a server with mutual TLS, as people mount it.
pub(in crate::nginx) const MUTUAL: &str = "
events {
}
http {
  log_format main '$remote_addr - $remote_user [$time_local]  $status '
  '\"$request\" $body_bytes_sent \"$http_referer\" '
  '\"$http_user_agent\" \"$http_x_forwarded_for\"';
  access_log /var/log/nginx/access.log main;
  error_log  /var/log/nginx/error.log;
  server {
    listen 443 ssl;
    root /usr/share/nginx/html;
    index index.html;
    server_name web.outside.svc.cluster.local;
    ssl_certificate /etc/certs/tls.crt;
    ssl_certificate_key /etc/certs/tls.key;
    ssl_client_certificate /etc/ca/root.crt;
    ssl_verify_client on;
  }
}";

#[test]
fn a_server_with_mutual_tls_is_read() {
    let config = Config::main(MUTUAL).unwrap();
    let server = &config.servers[0];
    let address = "0.0.0.0:443".parse().unwrap();
    assert_eq!(server.listens, [Listen { address, tls: true, default: false }]);
    assert_eq!((server.tls.verify, server.tls.client_ca.as_deref()), (Verify::On, Some("/etc/ca/root.crt")));
    assert!(server.is_named("web.outside.svc.cluster.local"));
    assert!(server.log.is_some());
}

#[test]
fn locations_are_exact_or_the_longest_beginning() {
    let config = Config::included(
        "server { listen 8080; server_name *.example.com a; root /srv; return_is_no_prefix off; }",
    );
    assert!(config.unwrap_err().to_string().contains("\"return_is_no_prefix\""));
    let config = Config::included(
        "server { listen 127.0.0.1:8080 default_server; server_name *.example.com;
           location / { root /a; } location /long/ { return 200 long; } location = /long/x { return 404; } }",
    )
    .unwrap();
    let server = &config.servers[0];
    let answered = |path: &str| server.place(path).answer.as_ref().map(|answer| answer.status);
    assert_eq!((answered("/long/y"), answered("/long/x"), answered("/else")), (Some(200), Some(404), None));
    assert_eq!(server.place("/else").root, "/a");
    assert!(server.is_named("x.example.com") && !server.is_named("example.com"));
    assert!(server.listens[0].default);
}

#[test]
fn what_is_not_played_is_refused_by_name_and_line() {
    let of = |inside: &str| {
        Config::main(&format!("http {{\nserver {{\nlisten 80;\n{inside}\n}} }}")).unwrap_err().to_string()
    };
    assert!(of("gzip on;").starts_with("directive \"gzip\"") && of("gzip on;").ends_with("in line 4"));
    assert!(of("location / { proxy_pass http://x; }").contains("\"proxy_pass\""));
    assert!(of("location ~ x { }").contains("write a path"));
    assert!(of("listen 80 http2;").contains("\"http2\""));
    assert!(of("listen x;").contains("invalid address \"x\""));
    assert!(of("listen 443 ssl;").contains("ssl_certificate"));
    assert!(of("access_log /tmp/x;").contains("/var/log/nginx/access.log"));
    assert!(of("access_log /dev/stdout none;").contains("log format \"none\""));
    assert!(of("return 99;").contains("return CODE"));
    assert!(of("ssl_verify_client optional_no_ca;").contains("on, off or optional"));
    assert!(Config::main("worker_processes 1;").unwrap_err().to_string().contains("\"worker_processes\""));
    assert!(Config::main("http { }").unwrap_err().to_string().contains("no server"));
}
