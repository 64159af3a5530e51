//! Overload at the gateway does not reach health checks: they ask instances directly.

use std::time::{Duration, Instant};

use crate::replace::SHOP;
use crate::site::{get, site_or_skip};

#[test]
fn overload_replaces_nobody() {
    let site = site_or_skip!("overload_replaces_nobody");
    let limited = "port   = 8080\n  limits = { concurrency = 1, queue = 1, wait = \"100ms\" }\n}";
    site.write(&SHOP.replace("port   = 8080\n}", limited).replace("replicas = 3", "replicas = 1"));
    site.must(&["apply", "--yes"]);
    let before = site.instances("web", "id");
    let begun = Instant::now();
    let (mut served, mut refused) = (0, 0);
    while begun.elapsed() < Duration::from_secs(6) {
        let clients: Vec<_> = (0..12)
            .map(|_| {
                let address = site.address();
                std::thread::spawn(move || get(address, "/slow?ms=100").unwrap().0)
            })
            .collect();
        for client in clients {
            match client.join().unwrap() {
                200 => served += 1,
                503 => refused += 1,
                status => panic!("answered {status}"),
            }
        }
        assert_eq!(site.component("server", "web")["replicas"]["ready"], 1);
    }
    assert!(served > 5 && refused > served, "{served} served, {refused} refused");
    assert_eq!(site.instances("web", "id"), before, "the instance was replaced");
    assert_eq!(site.get("/"), (200, "v1".to_owned()));
}
