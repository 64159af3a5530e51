//! Certificates: by ACME from Debian's `pebble`, and with keys that are secrets.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use kiln_gateway::Gateway;
use rustix::process::Signal;

use crate::openssl;
use crate::site::{Site, eventually, free_port, site_or_skip, told};

/// How long certificates of the authority are valid, seconds: they are renewed when a third is
/// left.
const VALID: u32 = 30;

/// A stack with an endpoint that speaks TLS.
fn stack(tls: &str) -> String {
    format!(
        r#"
image "probe" {{
  base = scratch()
  copy "kiln-probe" {{ to = "/kiln-probe" }}
  entrypoint = ["/kiln-probe", "serve", "--port", "8080", "--body", "one"]
}}

network "front" {{ cidr = "10.60.0.0/24" }}

server "web" {{
  image   = image.probe
  network = network.front
  memory  = "32MiB"
  health  = {{ http = {{ port = 8080, path = "/healthz" }} }}
}}

endpoint "shop" {{
  listen = "127.0.0.1:PORT"
  to     = server.web
  port   = 8080
  tls    = {tls}
}}
"#
    )
}

/// A certificate authority on this machine, with names that all lead here.
struct Authority {
    names: Child,
    process: Child,
    configuration: PathBuf,
    dns: u16,
    roots: PathBuf,
    directory: SocketAddr,
    management: SocketAddr,
}

impl Authority {
    /// Starts one that looks at port `proved`; or what is lacking.
    fn start(place: &Path, proved: u16) -> Result<Self, String> {
        let [roots, key] = openssl::certificate(place, "authority", "IP:127.0.0.1,DNS:localhost")?;
        let local = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let (directory, management) = (local(free_port()), local(free_port()));
        let configuration = place.join("pebble.json");
        let text = serde_json::json!({ "pebble": {
            "listenAddress": directory.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": roots, "privateKey": key,
            "httpPort": free_port(), "tlsPort": proved,
            "ocspResponderURL": "", "externalAccountBindingRequired": false,
            "certificateValidityPeriod": VALID,
        }});
        fs::write(&configuration, text.to_string()).unwrap();
        let dns = free_port();
        let names = Command::new("pebble-challtestsrv")
            .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", ""])
            .args(["-tlsalpn01", "", "-dns01", &local(dns).to_string()])
            .args(["-management", &local(free_port()).to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("pebble-challtestsrv of Debian's pebble: {error}"))?;
        let process = pebble(&configuration, dns);
        Ok(Self { names, process, configuration, dns, roots, directory, management })
    }

    /// Another one takes its place, which knows nothing of accounts and has another root.
    fn renew(&mut self) {
        self.process = pebble(&self.configuration, self.dns);
    }

    /// The root by which what it issues is trusted, as a file.
    fn root(&self) -> PathBuf {
        let path = self.roots.with_file_name("root.pem");
        let mut answer = String::new();
        eventually("the authority answers", || {
            let asked = openssl::get(self.management, "localhost", &self.roots, "/roots/0");
            answer = asked.unwrap_or_default();
            answer.contains("BEGIN CERTIFICATE")
        });
        fs::write(&path, answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        path
    }
}

fn pebble(configuration: &Path, dns: u16) -> Child {
    Command::new("pebble")
        .arg("-config")
        .arg(configuration)
        .args(["-dnsserver", &format!("127.0.0.1:{dns}")])
        .envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_AUTHZREUSE", "0")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

impl Drop for Authority {
    fn drop(&mut self) {
        for child in [&mut self.names, &mut self.process] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn problem(site: &Site) -> String {
    site.component("endpoint", "shop")["problem"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn certificates_by_acme_are_obtained_renewed_and_kept() {
    let site = site_or_skip!("certificates_by_acme_are_obtained_renewed_and_kept");
    let mut authority = match Authority::start(&site.stack(), site.port) {
        Ok(authority) => authority,
        Err(reason) => return println!("skipped: certificates_by_acme: {reason}"),
    };
    let root = authority.root();
    let acme = format!(
        "{{ acme = {{ names = [\"shop.example\", \"www.shop.example\"], agree = true, \
         email = \"admin@shop.example\", directory = \"https://{}/dir\", roots = {:?} }} }}",
        authority.directory, authority.roots
    );
    site.write(&stack(&acme));
    site.must(&["apply", "--yes"]);
    let serves = |host: &str, root: &Path| {
        let answer = openssl::get(site.address(), host, root, "/");
        answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200") && answer.ends_with("one"))
    };
    for host in ["shop.example", "www.shop.example"] {
        eventually("the certificate is issued and used", || serves(host, &root));
    }
    eventually("nothing is wrong", || problem(&site).is_empty());
    assert!(site.must(&["metrics"]).contains("certificate=\"www.shop.example\""));
    kept_for_root_alone(&site.root().join("acme"));
    // Renewed in time, without a moment in which it is not served.
    let first = openssl::serial(site.address(), "shop.example").unwrap();
    let shown = || openssl::serial(site.address(), "shop.example").unwrap();
    eventually("the certificate is renewed", || shown() != first && serves("shop.example", &root));
    // The authority is away: what is there stays in use, and the status says why.
    authority.process.kill().unwrap();
    authority.process.wait().unwrap();
    let held = shown();
    eventually("the trouble is told", || problem(&site).contains("shop.example is not renewed"));
    assert_eq!(shown(), held);
    let log = fs::read_to_string(site.root().join("logs/daemon.log")).unwrap();
    let told = log.lines().any(|line| {
        line.contains("no certificate for ") && line.contains("the authority cannot be asked")
    });
    assert!(told, "{log}");
    // A daemon that is started anew goes on where it was; the authority has forgotten everybody.
    site.signal("serve", Signal::TERM);
    authority.renew();
    let root = authority.root();
    site.status();
    eventually("it is renewed again", || serves("shop.example", &root));
    eventually("nothing is wrong any more", || problem(&site).is_empty());
}

/// All files below a directory, of which there must be some, can be read by their owner alone.
fn kept_for_root_alone(directory: &Path) {
    let mut seen = 0;
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{} is for others too", entry.path().display());
            seen += 1;
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
        }
    }
    // Two directories, an account, and two files for each of two names.
    assert!(seen >= 7, "{seen}");
}

#[test]
fn a_key_that_is_a_secret_stands_nowhere() {
    let site = site_or_skip!("a_key_that_is_a_secret_stands_nowhere");
    let made = openssl::certificate(&site.stack(), "one", "DNS:shop.example");
    let Ok([certificate, key]) = made else {
        return println!("skipped: a_key_that_is_a_secret_stands_nowhere: {made:?}");
    };
    let outside = tempfile::tempdir().unwrap();
    let hidden = outside.path().join("shop.key");
    fs::rename(&key, &hidden).unwrap();
    let secret = format!("secret \"shop_key\" {{ file = {hidden:?} }}\n");
    let tls = format!("{{ certificate = {certificate:?}, key = secret.shop_key }}");
    site.write(&(secret.clone() + &stack(&tls)));
    let output = site.run(&["apply", "--yes"]);
    assert!(output.status.success(), "{}", told(&output));
    let serves = |roots: &Path| openssl::get(site.address(), "shop.example", roots, "/").is_ok();
    assert!(serves(&certificate));
    let value = fs::read_to_string(&hidden).unwrap();
    let value = value.lines().nth(1).unwrap().to_owned();
    let stands_nowhere = |value: &str| {
        assert!(!told(&output).contains(value));
        assert_eq!(crate::secrets::files_with(&site.root(), value), Vec::<String>::new());
        let status = Gateway::of(&site.root()).status().unwrap();
        assert!(!serde_json::to_string(&status).unwrap().contains(value));
        for verb in [&["status", "--json"][..], &["events"], &["show", "1"], &["metrics"]] {
            assert!(!site.must(verb).contains(value), "{verb:?} shows it");
        }
    };
    stands_nowhere(&value);
    // A gateway that was killed is told it again, also by another daemon.
    site.signal("serve", Signal::KILL);
    site.signal("gateway", Signal::KILL);
    site.status();
    eventually("it serves again", || serves(&certificate));
    // Another certificate, in the configuration itself, and its key: one exchange.
    let [second, key] = openssl::certificate(&site.stack(), "two", "DNS:shop.example").unwrap();
    fs::rename(&key, &hidden).unwrap();
    site.write(&(secret + &stack("{ certificate = file(\"two.pem\"), key = secret.shop_key }")));
    site.must(&["apply", "--yes"]);
    eventually("the new one is used", || serves(&second));
    assert!(!serves(&certificate));
    stands_nowhere(&value);
    // What is no key of it is refused, and the one before serves on.
    openssl::certificate(outside.path(), "shop", "DNS:shop.example").unwrap();
    let refused = site.run(&["apply", "--yes"]);
    assert_eq!(refused.status.code(), Some(1), "{}", told(&refused));
    assert!(
        told(&refused).contains("the key is not that of the certificate"),
        "{}",
        told(&refused)
    );
    assert!(serves(&second));
}
