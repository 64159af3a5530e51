//! What images weigh: those of `examples/images` beside what mmdebstrap makes of the same package.

use std::fs;
use std::path::Path;

use super::mirror::Mirror;
use super::{Stack, is_there, mmdebstrap};
use crate::Result;
use crate::figures::{Table, digits};

/// The programs, and the packages that bring them.
const PROGRAMS: [(&str, &str); 4] = [
    ("nginx", "nginx-light"),
    ("postgres", "postgresql-15"),
    ("redis", "redis-server"),
    ("python", "python3-minimal"),
];

/// Prints the table.
pub(crate) fn bench(kiln: &Path) -> Result {
    let directory = tempfile::tempdir()?;
    let mirror = Mirror::start(&directory.path().join("mirror"))?;
    let stack = Stack::new(kiln, directory.path(), &mirror)?;
    let heads =
        ["program", "Kiln MiB", "packages", "essential MiB", "packages", "apt MiB", "packages"];
    let title = "What an image weighs, beside mmdebstrap's variants `essential` and `apt`";
    let mut table = Table::new(title, &heads);
    for (name, package) in PROGRAMS {
        eprintln!("sizes: {name}");
        let text = format!(
            "image \"{name}\" {{\n  base = debian(\"bookworm\")\n  packages = [\"{package}\"]\n  \
             entrypoint = [\"/none\"]\n}}\n"
        );
        fs::write(directory.path().join("stack/main.kiln.hcl"), text)?;
        stack.run(&["--json", "image", "build", name])?;
        let built = fs::read_to_string(directory.path().join("kiln.out"))?;
        let built: serde_json::Value = serde_json::from_str(&built)?;
        let image = &built["images"][0];
        let lock = fs::read_to_string(directory.path().join("stack/kiln.lock"))?;
        let mut row = vec![name.to_owned(), mib(image["size"].as_u64().unwrap_or(0))];
        row.push(lock.matches("\"sha256\"").count().to_string());
        for variant in ["essential", "apt"] {
            if !is_there("mmdebstrap") {
                row.extend(["–".to_owned(), "–".to_owned()]);
                continue;
            }
            let (_, length) = mmdebstrap(directory.path(), mirror.url(), variant, package)?;
            row.push(mib(length));
            row.push(packages(directory.path())?.to_string());
        }
        table.row(&row);
    }
    table.print();
    Ok(())
}

fn mib(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let bytes = bytes as f64;
    digits(bytes / f64::from(1 << 20))
}

/// How many packages mmdebstrap has put into its archive.
fn packages(directory: &Path) -> Result<usize> {
    let output = std::process::Command::new("tar")
        .args(["--extract", "--to-stdout", "--file"])
        .arg(directory.join("mmdebstrap.tar"))
        .arg("./var/lib/dpkg/status")
        .output()?;
    let status = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(status.lines().filter(|line| line.starts_with("Status: install ok")).count())
}
