//! A home, a stack's directory and a root of its own for each test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// A temporary world for one test.
pub(crate) struct World {
    directory: tempfile::TempDir,
}

/// What a command left.
#[derive(Debug)]
pub(crate) struct Ran {
    /// Its exit status.
    pub(crate) status: i32,
    /// Standard output, paths of the world replaced by `WORLD`.
    pub(crate) stdout: String,
    /// Standard error, in the same way.
    pub(crate) stderr: String,
}

impl Ran {
    /// Standard output as one JSON document.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

impl World {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// One with a stack in it.
    pub(crate) fn with(text: &str) -> Self {
        let world = Self::new();
        world.write("main.kiln.hcl", text);
        world
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file of the stack.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path("stack").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Whether the root was made.
    pub(crate) fn has_root(&self) -> bool {
        self.path("root").exists()
    }

    /// Runs `kiln` in the stack's directory with these arguments.
    pub(crate) fn kiln(&self, args: &[&str]) -> Ran {
        self.kiln_with(args, &[])
    }

    /// The same with more environment.
    pub(crate) fn kiln_with(&self, args: &[&str], env: &[(&str, &str)]) -> Ran {
        let stack = self.path("stack");
        fs::create_dir_all(&stack).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_kiln"))
            .arg("--root")
            .arg(self.path("root"))
            .args(args)
            .current_dir(&stack)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.path("home"))
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| self.plain(&String::from_utf8(bytes).unwrap());
        Ran {
            status: output.status.code().unwrap(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    fn plain(&self, text: &str) -> String {
        let real = fs::canonicalize(self.directory.path()).unwrap();
        let given: &Path = self.directory.path();
        text.replace(real.to_str().unwrap(), "WORLD").replace(given.to_str().unwrap(), "WORLD")
    }
}

/// A stack that needs no lock: one server of a file of its own.
pub(crate) const STACK: &str = r#"stack { name = "shop" }

variable "release" { default = "v1" }

image "web" {
  base = scratch()
  file "/etc/release" { content = var.release }
  entrypoint = ["/serve"]
}

network "front" { cidr = "10.60.0.0/24" }

server "web" {
  image    = image.web
  network  = network.front
  memory   = "64MiB"
  replicas = 2
  health   = { tcp = { port = 8080 } }
}

endpoint "shop" {
  listen = "127.0.0.1:8080"
  to     = server.web
  port   = 8080
}

output "address" { value = endpoint.shop.address }
"#;
