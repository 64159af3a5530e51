//! What images weigh: those of `examples/images` beside what mmdebstrap makes of the same package.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::mirror::Mirror;
use super::{Stack, is_there, mmdebstrap};
use crate::Result;
use crate::child::expect;
use crate::figures::{Table, digits};

/// The images, and the packages that bring their programs; the one in Rust is in none.
const PROGRAMS: [(&str, Option<&str>); 5] = [
    ("nginx", Some("nginx-light")),
    ("postgres", Some("postgresql-15")),
    ("redis", Some("redis-server")),
    ("python", Some("python3")),
    ("rust", None),
];

/// What is said of an image: how many packages are in it, how many bytes it has where it is used,
/// and how many travel.
struct Weight {
    packages: usize,
    unpacked: u64,
    packed: u64,
}

impl Weight {
    fn cells(&self) -> [String; 3] {
        [self.packages.to_string(), mib(self.unpacked), mib(self.packed)]
    }
}

/// Prints the table.
pub(crate) fn bench(kiln: &Path) -> Result {
    let directory = tempfile::tempdir()?;
    let mirror = Mirror::start(&directory.path().join("mirror"))?;
    let stack = Stack::new(kiln, directory.path(), &mirror)?;
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/images/.");
    let mut copy = Command::new("cp");
    copy.arg("--recursive").arg(examples).arg(directory.path().join("stack"));
    expect(&mut copy, &directory.path().join("cp.out"), 0)?;
    eprintln!("sizes: the images");
    stack.run(&["image", "build"])?;
    let peer_is_there = is_there("mmdebstrap");
    if !peer_is_there {
        println!("\nmmdebstrap is not on this machine: there are no weights to compare with");
    }
    let title = "What an image weighs, beside mmdebstrap's variants `essential` and `apt`";
    let mut heads = vec!["program".to_owned()];
    for of in ["Kiln", "essential", "apt"] {
        heads.extend([format!("{of}: packages"), "MiB".to_owned(), "packed MiB".to_owned()]);
    }
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    let mut table = Table::new(title, &heads);
    for (name, package) in PROGRAMS {
        let mut row = vec![name.to_owned()];
        row.extend(own(&stack, name)?.cells());
        for variant in ["essential", "apt"] {
            if peer_is_there {
                eprintln!("sizes: {name}, {variant}");
                row.extend(theirs(directory.path(), &mirror, variant, package)?.cells());
            } else {
                row.extend(["–", "–", "–"].map(str::to_owned));
            }
        }
        table.row(&row);
    }
    table.print();
    Ok(())
}

/// An image that has been built: its filesystem, and the layers that a registry would get.
fn own(stack: &Stack<'_>, name: &str) -> Result<Weight> {
    let answer = stack.directory.join("kiln.out");
    stack.run(&["--json", "image", "show", name])?;
    let image: Value = serde_json::from_slice(&fs::read(answer)?)?;
    let digest = image["digest"].as_str().and_then(|text| text.strip_prefix("sha256:"));
    let digest = digest.ok_or("an image without a digest")?;
    let manifest = stack.directory.join("root/images/blobs/sha256").join(digest);
    let manifest: Value = serde_json::from_slice(&fs::read(manifest)?)?;
    let layers = manifest["layers"].as_array().ok_or("a manifest without layers")?;
    Ok(Weight {
        packages: image["packages"].as_u64().map_or(Ok(0), usize::try_from)?,
        unpacked: image["size"].as_u64().ok_or("an image without a size")?,
        packed: layers.iter().filter_map(|layer| layer["size"].as_u64()).sum(),
    })
}

/// What mmdebstrap makes: its archive, and the same packed with gzip as layers of images are.
fn theirs(
    directory: &Path,
    mirror: &Mirror,
    variant: &str,
    package: Option<&str>,
) -> Result<Weight> {
    let (_, unpacked) = mmdebstrap(directory, mirror.url(), variant, package)?;
    let archive = directory.join("mmdebstrap.tar");
    let packed: PathBuf = directory.join("mmdebstrap.tar.gz");
    let mut gzip = Command::new("gzip");
    gzip.args(["--no-name", "--stdout"]).arg(&archive);
    expect(&mut gzip, &packed, 0)?;
    Ok(Weight { packages: packages(&archive)?, unpacked, packed: fs::metadata(packed)?.len() })
}

fn mib(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let bytes = bytes as f64;
    digits(bytes / f64::from(1 << 20))
}

/// How many packages mmdebstrap has put into its archive.
fn packages(archive: &Path) -> Result<usize> {
    let output = Command::new("tar")
        .args(["--extract", "--to-stdout", "--file"])
        .arg(archive)
        .arg("./var/lib/dpkg/status")
        .output()?;
    let status = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(status.lines().filter(|line| line.starts_with("Status: install ok")).count())
}
