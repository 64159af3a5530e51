//! A tiny Debian archive: packages, indexes and signed releases.

use std::io::Write;

use kiln_model::digest::Digest;
use lzma_rust2::{XzOptions, XzWriter};

use crate::server::Server;
use crate::signer::Signer;

/// The day after the one at which all test archives live.
pub(crate) const VALID_UNTIL: &str = "Fri, 02 Jan 2026 00:00:00 UTC";

/// One package of the archive.
pub(crate) struct TestPackage {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) fields: &'static str,
    pub(crate) deb: Vec<u8>,
}

impl TestPackage {
    /// A package with one file, and further fields of its description.
    pub(crate) fn new(name: &'static str, fields: &'static str) -> Self {
        Self::of_version(name, "1.0-1", fields)
    }

    /// The same in a given version.
    pub(crate) fn of_version(
        name: &'static str,
        version: &'static str,
        fields: &'static str,
    ) -> Self {
        let mut data = tar::Builder::new(Vec::new());
        let content = format!("this is {name}\n").repeat(500);
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_600_000_000);
        header.set_size(content.len() as u64);
        let path = format!("./bin/{name}");
        data.append_data(&mut header, path, content.as_bytes()).expect("a path that fits");
        let data = data.into_inner().expect("memory takes all");
        let control = control(name, version, fields);
        Self { name, version, fields, deb: deb(&control, &data) }
    }

    /// Its path below the root of its mirror.
    fn file(&self) -> String {
        match self.version {
            "1.0-1" => format!("pool/{}.deb", self.name),
            version => format!("pool/{}_{version}.deb", self.name),
        }
    }
}

fn control(name: &str, version: &str, fields: &str) -> String {
    let fields = if fields.is_empty() { String::new() } else { format!("{fields}\n") };
    let architecture = if fields.contains("Architecture:") { "" } else { "Architecture: all\n" };
    format!("Package: {name}\nVersion: {version}\n{architecture}{fields}Description: a test\n")
}

/// A package from its description and an uncompressed archive of its files.
pub(crate) fn deb(control: &str, data: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(control.len() as u64);
    archive.append_data(&mut header, "./control", control.as_bytes()).expect("a path that fits");
    let control = archive.into_inner().expect("memory takes all");
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, content) in [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.xz", xz(&control)),
        ("data.tar.xz", xz(data)),
    ] {
        writeln!(bytes, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, "100644", content.len())
            .expect("memory takes all");
        bytes.extend(&content);
        if content.len() % 2 == 1 {
            bytes.push(b'\n');
        }
    }
    bytes
}

pub(crate) fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut writer = XzWriter::new(Vec::new(), XzOptions::with_preset(1)).expect("valid options");
    writer.write_all(bytes).expect("memory takes all");
    writer.finish().expect("memory takes all")
}

/// Publishes the packages in the suite `test`, with empty updates and security updates.
pub(crate) fn publish(server: &Server, signer: &Signer, packages: &[TestPackage]) {
    publish_valid_until(server, signer, packages, VALID_UNTIL);
}

/// The same, with a date after which the releases must not be used.
pub(crate) fn publish_valid_until(
    server: &Server,
    signer: &Signer,
    packages: &[TestPackage],
    valid_until: &str,
) {
    for (mirror, suite, packages) in [
        ("/debian", "test", packages),
        ("/debian", "test-updates", &[]),
        ("/security", "test-security", &[]),
    ] {
        publish_suite(server, signer, (mirror, suite), packages, valid_until);
    }
}

/// Publishes packages as one suite of one mirror.
pub(crate) fn publish_suite(
    server: &Server,
    signer: &Signer,
    (mirror, suite): (&str, &str),
    packages: &[TestPackage],
    valid_until: &str,
) {
    let mut index = String::new();
    for package in packages {
        index += control(package.name, package.version, package.fields).trim_end();
        let (file, length) = (package.file(), package.deb.len());
        let sum = Digest::of(&package.deb).hex();
        let lines = format!("\nFilename: {file}\nSize: {length}\nSHA256: {sum}\n\n");
        index.push_str(&lines);
        server.put(format!("{mirror}/{file}"), package.deb.clone());
    }
    let index = xz(index.as_bytes());
    let sum = Digest::of(&index).hex();
    let directory = format!("{mirror}/dists/{suite}");
    let mut files = String::new();
    for architecture in [kiln_image::debian::suite::native_architecture(), "m68k"] {
        let place = format!("main/binary-{architecture}");
        let line = format!(" {sum} {} {place}/Packages.xz\n", index.len());
        files.push_str(&line);
        server.put(format!("{directory}/{place}/by-hash/SHA256/{sum}"), index.clone());
    }
    let release = format!(
        "Suite: {suite}\nCodename: {suite}\nDate: Wed, 31 Dec 2025 00:00:00 UTC\n\
         Valid-Until: {valid_until}\nAcquire-By-Hash: yes\nSHA256:\n{files}"
    );
    server.put(format!("{directory}/InRelease"), signer.sign(&release));
}
