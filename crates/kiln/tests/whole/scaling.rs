//! Counts that follow what is asked: up, down, to nothing and back, and nobody notices.

use std::time::{Duration, Instant};

use crate::load::Load;
use crate::site::{Site, eventually, get, site_or_skip};

/// A web server whose count follows demand, and one that reaches it from inside.
const SHOP: &str = r#"
image "probe" {
  base = scratch()
  copy "kiln-probe" { to = "/kiln-probe" }
  entrypoint = ["/kiln-probe", "serve", "--port", "8080"]
}

network "front" { cidr = "10.62.0.0/24" }

server "web" {
  image   = image.probe
  network = network.front
  args    = ["--body", "web", "--delay-start", "50"]
  memory  = "16MiB"
  scale   = SCALE
  health  = { http = { port = 8080, path = "/healthz" }, every = "1s", timeout = "10s" }
}

server "inside" {
  image    = image.probe
  network  = network.front
  memory   = "16MiB"
  connects = [server.web]
  health   = { http = { port = 8080, path = "/healthz" }, every = "1s", timeout = "10s" }
}

endpoint "shop" {
  listen = "127.0.0.1:PORT"
  to     = server.web
  port   = 8080
  route {
    path = "/get"
    to   = server.inside
    port = 8080
  }
}
"#;

fn write(site: &Site, scale: &str) {
    site.write(&SHOP.replace("SCALE", scale));
}

/// Wanted and ready.
fn counts(site: &Site) -> (u64, u64) {
    let replicas = site.component("server", "web")["replicas"].clone();
    (replicas["wanted"].as_u64().unwrap(), replicas["ready"].as_u64().unwrap())
}

#[test]
fn the_count_follows_a_load_up_and_down_and_a_pin_holds_it() {
    let site = site_or_skip!("the_count_follows_a_load");
    let scale = "{ min = 1, max = 4, target = { requests_per_second = 20 }, down_after = \"2s\" }";
    write(&site, scale);
    site.must(&["apply", "--yes"]);
    assert_eq!(counts(&site), (1, 1));
    let load = Load::start(site.address(), 4);
    eventually("four instances", || counts(&site) == (4, 4));
    let web = site.component("server", "web");
    assert_eq!((&web["scale"]["min"], &web["scale"]["max"]), (&1.into(), &4.into()));
    let because = web["scale"]["decided"]["because"].as_str().unwrap();
    assert!(because.ends_with(" requests/s over 20 each"), "{because}");
    assert!(site.must(&["status"]).contains("of 1 to 4 ("));
    assert!(site.must(&["events"]).contains("sized"));
    // Another policy is another generation, and replaces nobody.
    let (ids, generation) = (site.instances("web", "id"), site.status()["generation"].clone());
    write(&site, &scale.replace("max = 4", "max = 5"));
    site.must(&["apply", "--yes"]);
    assert_ne!(site.status()["generation"], generation);
    let now = site.instances("web", "id");
    assert!(ids.iter().all(|id| now.contains(id)), "{ids:?} and {now:?}");
    // Down under a load that is too small for more than one.
    site.must(&["scale", "--yes", "web=2"]);
    eventually("the pinned count", || site.instances("web", "id").len() == 2);
    assert_eq!(site.component("server", "web")["replicas"]["pinned"], true);
    load.stop();
    site.must(&["scale", "--yes", "web=auto"]);
    eventually("one instance", || counts(&site) == (1, 1));
    eventually("the others gone", || site.instances("web", "id").len() == 1);
    assert_eq!(site.get("/").0, 200);
}

#[test]
fn a_step_brings_all_that_it_needs_and_its_end_drops_nothing() {
    let site = site_or_skip!("a_step_brings_all_that_it_needs");
    let scale = "{ min = 1, max = 12, target = { requests_per_second = 20 }, down_after = \"2s\" }";
    write(&site, scale);
    site.must(&["apply", "--yes"]);
    let quiet = Load::paced(site.address(), 1, 8);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(counts(&site), (1, 1));
    let (begun, step) = (Instant::now(), Load::paced(site.address(), 10, 200));
    eventually("new capacity", || counts(&site).1 > 1);
    let first = begun.elapsed();
    eventually("ten or more", || counts(&site).1 >= 10);
    println!("new capacity after {first:?}, all of it after {:?}", begun.elapsed());
    step.stop();
    eventually("one again", || counts(&site) == (1, 1));
    eventually("the others gone", || site.instances("web", "id").len() == 1);
    quiet.stop();
}

#[test]
fn what_sleeps_is_woken_by_what_is_held_for_it() {
    let site = site_or_skip!("what_sleeps_is_woken");
    let scale = "{ min = 0, max = 3, target = { concurrency = 10 }, down_after = \"1s\" }";
    write(&site, scale);
    site.must(&["apply", "--yes"]);
    let asleep = || site.instances("web", "id").is_empty();
    eventually("nobody", asleep);
    assert!(site.status()["healthy"].as_bool().unwrap(), "sleep is health");
    let begun = Instant::now();
    let (address, clients) = (site.address(), 16);
    let asked: Vec<_> = (0..clients)
        .map(|_| std::thread::spawn(move || (get(address, "/").unwrap(), begun.elapsed())))
        .collect();
    let answers: Vec<_> = asked.into_iter().map(|asked| asked.join().unwrap()).collect();
    assert!(answers.iter().all(|(answer, _)| *answer == (200, "web".to_owned())), "{answers:?}");
    let first = answers.iter().map(|(_, after)| *after).min().unwrap();
    println!("the first of {clients} held requests is answered after {first:?}");
    assert!(first < Duration::from_secs(5), "{first:?}");
    eventually("nobody again", asleep);
    // From inside the network, by the stable name.
    assert_eq!(site.get("/get?url=http://web:8080/"), (200, "web".to_owned()));
    // An apply of what sleeps proves it, and it sleeps on.
    eventually("nobody once more", asleep);
    site.write(&SHOP.replace("SCALE", scale).replace("\"--body\", \"web\"", "\"--body\", \"new\""));
    site.must(&["apply", "--yes"]);
    assert_eq!(site.get("/"), (200, "new".to_owned()));
}

#[test]
fn a_program_says_how_many_and_its_failure_holds_the_count() {
    let site = site_or_skip!("a_program_says_how_many");
    let queue = site.stack().join("queue");
    std::fs::write(&queue, "25\n").unwrap();
    let scale = format!(
        "{{ min = 1, max = 5, down_after = \"1s\", \
         target = {{ command = [\"/bin/cat\", {queue:?}], value = 10, user = \"root\" }} }}"
    );
    write(&site, &scale);
    site.must(&["apply", "--yes"]);
    eventually("three instances", || counts(&site) == (3, 3));
    std::fs::remove_file(&queue).unwrap();
    let trouble = || site.component("server", "web")["scale"]["trouble"].clone();
    eventually("the failure is shown", || {
        trouble().as_str().is_some_and(|text| text.contains("/bin/cat ended with exit status: 1"))
    });
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(counts(&site), (3, 3), "held");
    std::fs::write(&queue, "5\n").unwrap();
    eventually("one instance", || counts(&site) == (1, 1));
}
