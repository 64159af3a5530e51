//! Debian's registry, started for a test, and an image that comes back from it.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::replace::SHOP;
use crate::site::{eventually, free_port, site_or_skip};

/// A running `docker-registry`, ended when dropped.
pub struct Registry {
    child: Child,
    /// Its address and port.
    pub host: String,
}

impl Registry {
    /// Starts one that keeps its blobs below `directory`; the reason, where there is none.
    pub fn start(directory: &Path) -> Result<Self, String> {
        let host = format!("127.0.0.1:{}", free_port());
        let (config, blobs) = (directory.join("registry.yml"), directory.join("registry"));
        let text = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage:\n  filesystem: {{ rootdirectory: {} }}\n\
             http: {{ addr: \"{host}\" }}\n",
            blobs.display()
        );
        std::fs::write(&config, text).map_err(|e| e.to_string())?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|e| format!("docker-registry can't be run: {e}"))?;
        let started = Self { child, host };
        eventually("docker-registry listens", || TcpStream::connect(&started.host).is_ok());
        Ok(started)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_image_that_was_pushed_deleted_and_pulled_runs() {
    let name = "an_image_that_was_pushed_deleted_and_pulled_runs";
    let site = site_or_skip!("an_image_that_was_pushed_deleted_and_pulled_runs");
    let place = site.root().with_file_name("elsewhere");
    std::fs::create_dir(&place).unwrap();
    let registry = match Registry::start(&place) {
        Ok(registry) => registry,
        Err(reason) => {
            println!("skipped: {name}: {reason}");
            return;
        }
    };
    site.write(SHOP);
    site.must(&["image", "build"]);
    let there = format!("{}/team/probe:v1", registry.host);
    site.must(&["image", "push", "probe", &there]);
    std::fs::remove_dir_all(site.root().join("images")).unwrap();
    std::fs::remove_dir_all(site.root().join("store/images")).unwrap();
    site.must(&["image", "pull", &there]);
    let listed = site.must(&["image", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed["images"][0]["admitted"], true, "its signature has come along: {listed}");
    // Built anew it is the very image, and what was signed of it still counts.
    site.must(&["apply", "--yes"]);
    assert_eq!(site.get("/"), (200, "v1".to_owned()));
    site.must(&["image", "verify"]);
}
