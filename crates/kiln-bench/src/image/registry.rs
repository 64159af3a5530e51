//! A registry on this machine: Debian's `docker-registry`.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;

/// How long it may take to listen.
const PATIENCE: Duration = Duration::from_secs(10);

/// The registry; it ends when dropped.
pub(super) struct Registry {
    process: Child,
    /// Its address, without a scheme.
    pub(super) address: String,
}

impl Registry {
    /// Starts it with its blobs below `directory`.
    pub(super) fn start(directory: &Path) -> Result<Self> {
        // Bound and let go: nobody else on this machine is expected to take it meanwhile.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        fs::create_dir_all(directory)?;
        let configuration = directory.join("config.yml");
        let blobs = directory.join("blobs");
        let text = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage:\n  filesystem: {{ rootdirectory: {} }}\n\
             http: {{ addr: \"{address}\" }}\n",
            blobs.display()
        );
        fs::write(&configuration, text)?;
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&configuration)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.join("log"))?)
            .spawn()?;
        let registry = Self { process, address };
        let begin = Instant::now();
        while TcpStream::connect(&registry.address).is_err() {
            if begin.elapsed() > PATIENCE {
                return Err("docker-registry does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
