//! Building images beside mmdebstrap, and exchanging them with a registry beside skopeo.

mod exchange;
mod mirror;
mod registry;
mod sizes;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use crate::Result;
use crate::child::{Run, expect};
use crate::figures::{Figures, Table, digits, ratio};
use mirror::Mirror;

pub(crate) use sizes::bench as sizes;

/// Runs of each, by turns.
const RUNS: usize = 5;
/// Runs without a change, which are short.
const SHORT_RUNS: usize = 20;

/// The stack whose image is built; `PAGE` changes what it copies in.
const NGINX: &str = r#"
image "web" {
  base     = debian("bookworm")
  packages = ["nginx-light"]
  file "/srv/www/index.html" { content = "PAGE" }
  entrypoint = ["/usr/sbin/nginx", "-g", "daemon off;"]
}
"#;

/// Prints the tables.
pub(crate) fn bench(kiln: &Path) -> Result {
    let directory = tempfile::tempdir()?;
    let mirror = Mirror::start(&directory.path().join("mirror"))?;
    let stack = Stack::new(kiln, directory.path(), &mirror)?;
    nginx(&stack, &mirror)?;
    large(kiln, directory.path())?;
    exchange::bench(&stack)
}

/// A stack, the root that it is built in, and the mirror that its packages come from.
struct Stack<'a> {
    kiln: &'a Path,
    directory: &'a Path,
    mirror: String,
}

impl<'a> Stack<'a> {
    fn new(kiln: &'a Path, directory: &'a Path, mirror: &Mirror) -> Result<Self> {
        fs::create_dir_all(directory.join("stack"))?;
        let stack = Self { kiln, directory, mirror: mirror.url().to_owned() };
        stack.write("first")?;
        Ok(stack)
    }

    /// The stack with another page.
    fn write(&self, page: &str) -> Result {
        let text = NGINX.replace("PAGE", page);
        Ok(fs::write(self.directory.join("stack/main.kiln.hcl"), text)?)
    }

    /// `kiln` with these words, on the stack and its root.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.kiln);
        command
            .arg("--root")
            .arg(self.directory.join("root"))
            .arg("--stack")
            .arg(self.directory.join("stack"))
            .args(words)
            .env("KILN_DEBIAN_MIRROR", format!("{}/debian", self.mirror))
            .env("KILN_DEBIAN_SECURITY_MIRROR", format!("{}/debian-security", self.mirror));
        command
    }

    fn run(&self, words: &[&str]) -> Result<Run> {
        expect(&mut self.command(words), &self.directory.join("kiln.out"), 0)
    }
}

/// Whether a program is on the `PATH`.
fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Builds of one image: with nothing but the mirror, with the packages at hand, without a change.
fn nginx(stack: &Stack<'_>, mirror: &Mirror) -> Result {
    let peer_is_there = is_there("mmdebstrap");
    if !peer_is_there {
        println!("\nmmdebstrap is not on this machine: there are no figures to compare with");
    }
    // The first run of each fills the mirror's cache and is not counted.
    let (mut cold, mut warm, mut peer) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..=RUNS {
        eprintln!("image: nginx, run {number} of {RUNS}");
        let _ = fs::remove_dir_all(stack.directory.join("root"));
        let _ = fs::remove_file(stack.directory.join("stack/kiln.lock"));
        cold.push(stack.run(&["image", "build"])?);
        stack.write(&format!("page {number}"))?;
        warm.push(stack.run(&["image", "build"])?);
        if peer_is_there {
            peer.push(
                mmdebstrap(stack.directory, mirror.url(), "essential", Some("nginx-light"))?.0,
            );
        }
    }
    let mut again = Vec::new();
    for _ in 0..SHORT_RUNS {
        again.push(stack.run(&["image", "build"])?);
    }
    let title = "Building an image with nginx-light, beside mmdebstrap with the same mirror";
    let mut table = Table::new(title, &["what", "Kiln", "mmdebstrap", "ratio", "Kiln MiB"]);
    let peer = times(peer.iter().skip(1));
    for (name, runs, compared) in [
        ("from nothing but a mirror on this machine", &cold[1..], true),
        ("with the packages in the cache", &warm[1..], true),
        ("without a change", &again[..], false),
    ] {
        let own = times(runs);
        let compared = compared && peer.median() > 0.0;
        let ratio = if compared { ratio(&own, &peer) } else { "–".to_owned() };
        let theirs = if compared { peer.seconds() } else { "–".to_owned() };
        table.row(&[name.to_owned(), own.seconds(), theirs, ratio, memory(runs)]);
    }
    table.print();
    Ok(())
}

fn times<'r>(runs: impl IntoIterator<Item = &'r Run>) -> Figures {
    Figures::of_times(runs.into_iter().map(|run| run.wall))
}

fn memory(runs: &[Run]) -> String {
    digits(runs.iter().map(|run| run.peak_mib).fold(0.0, f64::max))
}

/// A root filesystem by mmdebstrap, as a tar archive: the run, and the archive's length.
fn mmdebstrap(
    directory: &Path,
    mirror: &str,
    variant: &str,
    package: Option<&str>,
) -> Result<(Run, u64)> {
    let archive = directory.join("mmdebstrap.tar");
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--quiet", "--format=tar"])
        .arg(format!("--variant={variant}"))
        .args(package.map(|package| format!("--include={package}")))
        .arg("bookworm")
        .arg(&archive)
        .arg(format!("deb {mirror}/debian bookworm main"))
        .arg(format!("deb {mirror}/debian bookworm-updates main"))
        .arg(format!("deb {mirror}/debian-security bookworm-security main"));
    let run = expect(&mut command, &directory.join("mmdebstrap.out"), 0)?;
    Ok((run, fs::metadata(&archive)?.len()))
}

/// An image of 1 GiB that can't be compressed.
fn large(kiln: &Path, directory: &Path) -> Result {
    const MIB: usize = 1 << 20;
    let stack = directory.join("large");
    fs::create_dir_all(&stack)?;
    let mut file = std::io::BufWriter::new(fs::File::create(stack.join("data"))?);
    // A xorshift generator (Marsaglia, 2003): bytes without a pattern, the same in every run.
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut block = vec![0; MIB];
    for _ in 0..1024 {
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block)?;
    }
    file.into_inner()?.sync_all()?;
    let text = "image \"large\" {\n  base = scratch()\n  copy \"data\" { to = \"/data\" }\n}\n";
    fs::write(stack.join("main.kiln.hcl"), text)?;
    eprintln!("image: 1 GiB");
    let mut command = Command::new(kiln);
    command.arg("--root").arg(directory.join("large-root")).arg("--stack").arg(&stack);
    command.args(["image", "build"]);
    let run = expect(&mut command, &directory.join("large.out"), 0)?;
    let mut table =
        Table::new("Building an image of 1 GiB of noise", &["wall", "processor", "MiB"]);
    let seconds = |time: std::time::Duration| format!("{} s", digits(time.as_secs_f64()));
    table.row(&[seconds(run.wall), seconds(run.processor), digits(run.peak_mib)]);
    table.print();
    // It is large, and nothing needs it any more.
    fs::remove_dir_all(directory.join("large-root"))?;
    Ok(fs::remove_dir_all(&stack)?)
}
