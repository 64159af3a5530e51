//! What endpoints say about their traffic, as it becomes a spec.

mod support;

use kiln_model::certificate::{CertificatePair, Key};
use kiln_model::handling::{Balance, Handling, HashKey, Limits};
use kiln_model::quantity::{Bytes, Millis};
use kiln_model::route::Protocol;
use serde_json::json;
use support::Files;

const STACK: &str = r#"
image "i" {
  base       = scratch()
  entrypoint = ["/bin/web"]
}
network "n" { cidr = "10.0.0.0/24" }
server "web" {
  image   = image.i
  network = network.n
}
server "api" {
  image   = image.i
  network = network.n
}
endpoint "shop" {
  listen     = "127.0.0.1:8443"
  to         = server.web
  port       = 8080
  protocol   = "http"
  tls        = [{ certificate = "/etc/a.pem", key = "/etc/a.key" }]
  balance    = { cookie = "sid" }
  limits     = { concurrency = 5, queue = 7, wait = "2s", body = "1MiB", head = "3s" }
  access_log = true
  dynamic "route" {
    for_each = ["/v1/", "/v2"]
    content {
      path = "/api${route.value}"
      to   = server.api
      port = 9000
    }
  }
  route {
    host = "*.Admin.example"
    to   = server.api
    port = 9001
  }
}
endpoint "names" {
  listen   = "127.0.0.1:53"
  to       = server.api
  port     = 53
  protocol = "udp"
}
endpoint "names-tcp" {
  listen         = "127.0.0.1:53"
  to             = server.api
  port           = 53
  protocol       = "tcp"
  proxy_protocol = true
}
output "url" { value = endpoint.shop.url }
"#;

#[test]
fn all_that_an_endpoint_says_is_in_its_spec() {
    let stack = Files::new(&[("main.kiln.hcl", STACK)]).stack();
    assert_eq!(stack.outputs["url"].value, json!("https://127.0.0.1:8443"));
    let find = |id: &str| {
        let spec = stack.specs.iter().find(|spec| spec.id.to_string() == id);
        spec.and_then(|spec| spec.as_endpoint()).expect("an endpoint").policy.clone()
    };
    let shop = find("endpoint.shop");
    let routes: Vec<_> = shop
        .routes
        .iter()
        .map(|r| (r.host.as_deref(), r.path.as_str(), r.to.to_string(), r.port))
        .collect();
    let api = || "server.api".to_owned();
    let expected = [
        (None, "/api/v1", api(), 9000),
        (None, "/api/v2", api(), 9000),
        (Some("*.admin.example"), "", api(), 9001),
    ];
    assert_eq!(routes, expected);
    let expected = Handling {
        tls: vec![
            CertificatePair {
                certificate: "/etc/a.pem".into(),
                key: Key::File("/etc/a.key".into()),
            }
            .into(),
        ],
        balance: Balance::Hash(HashKey::Cookie("sid".into())),
        limits: Limits {
            concurrency: Some(5),
            queue: Some(7),
            wait: Some(Millis(2000)),
            head: Some(Millis(3000)),
            body: Some(Bytes::mib(1)),
            ..Limits::default()
        },
        proxy_protocol: false,
        access_log: true,
    };
    assert_eq!(shop.handling, expected);
    assert_eq!(find("endpoint.names").protocol, Protocol::Udp);
    assert!(find("endpoint.names-tcp").handling.proxy_protocol);
    // What is not said is not in the policy: an endpoint of before is as it was.
    let plain = serde_json::to_value(find("endpoint.names")).expect("it is JSON");
    assert_eq!(plain, json!({ "to": "server.api", "port": 53, "protocol": "udp" }));
}
