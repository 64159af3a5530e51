//! A tiny Debian archive: packages, indexes and signed releases.

use std::io::Write;

use kiln_model::digest::Digest;
use lzma_rust2::{XzOptions, XzWriter};

use crate::server::Server;
use crate::signer::Signer;

/// One package of the archive.
pub(crate) struct TestPackage {
    pub(crate) name: &'static str,
    pub(crate) fields: &'static str,
    pub(crate) deb: Vec<u8>,
}

impl TestPackage {
    /// A package with one file, and further fields of its description.
    pub(crate) fn new(name: &'static str, fields: &'static str) -> Self {
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
        Self { name, fields, deb: deb(&control(name, fields), &data) }
    }

    pub(crate) fn path(&self) -> String {
        format!("/debian/pool/{}.deb", self.name)
    }
}

fn control(name: &str, fields: &str) -> String {
    let fields = if fields.is_empty() { String::new() } else { format!("{fields}\n") };
    format!("Package: {name}\nVersion: 1.0-1\nArchitecture: all\n{fields}Description: a test\n")
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
    publish_valid_until(server, signer, packages, "Fri, 02 Jan 2026 00:00:00 UTC");
}

/// The same, with a date after which the releases must not be used.
pub(crate) fn publish_valid_until(
    server: &Server,
    signer: &Signer,
    packages: &[TestPackage],
    valid_until: &str,
) {
    let mut index = String::new();
    for package in packages {
        index += control(package.name, package.fields).trim_end();
        index += "\nFilename: pool/";
        index += package.name;
        index += ".deb\nSize: ";
        index += &package.deb.len().to_string();
        index += "\nSHA256: ";
        index += &Digest::of(&package.deb).hex();
        index += "\n\n";
        server.put(package.path(), package.deb.clone());
    }
    for (mirror, suite, index) in [
        ("/debian", "test", index.as_str()),
        ("/debian", "test-updates", ""),
        ("/security", "test-security", ""),
    ] {
        let index = xz(index.as_bytes());
        let sum = Digest::of(&index).hex();
        let architecture = kiln_image::debian::suite::native_architecture();
        let path = format!("main/binary-{architecture}/Packages.xz");
        let release = format!(
            "Suite: {suite}\nCodename: {suite}\nDate: Wed, 31 Dec 2025 00:00:00 UTC\n\
             Valid-Until: {valid_until}\nAcquire-By-Hash: yes\nSHA256:\n {sum} {} {path}\n",
            index.len()
        );
        let directory = format!("{mirror}/dists/{suite}");
        let by_hash = format!("main/binary-{architecture}/by-hash/SHA256/{sum}");
        server.put(format!("{directory}/{by_hash}"), index);
        server.put(format!("{directory}/InRelease"), signer.sign(&release));
    }
}
