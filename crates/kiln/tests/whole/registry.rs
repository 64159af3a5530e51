//! Debian's registry, started for a test.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::site::{eventually, free_port};

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
