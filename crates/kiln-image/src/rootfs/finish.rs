//! What is made from the files of all packages together.

use std::collections::BTreeMap;
use std::io;

use super::{RootfsError, fields};
use crate::deb::Deb;
use crate::tree::{Content, Inode, Metadata, Tree, TreeError};

/// Links that the scripts of single packages make.
const KNOWN_LINKS: [(&str, &str, &str); 1] =
    [("nginx-common", "etc/nginx/sites-enabled/default", "/etc/nginx/sites-available/default")];

/// Where the dynamic loader looks without a cache: Debian's glibc has these built in.
const LOADER_PATHS: [&str; 4] = ["/lib", "/usr/lib", "/usr/local/lib", "/lib64"];

/// Makes the links of the packages that are there.
pub(super) fn known_links(tree: &mut Tree, packages: &[(String, Deb)]) -> Result<(), TreeError> {
    for (package, link, target) in KNOWN_LINKS {
        let installed = packages.iter().any(|(name, _)| name == package);
        if installed && tree.resolve(target).is_ok() && tree.get(link).is_none() {
            tree.insert(link, Inode::symlink(Metadata::new(0o777), target))?;
        }
    }
    Ok(())
}

/// Joins the certificates of `ca-certificates` to the bundle that programs read, as
/// update-ca-certificates(8) does, and gives OpenSSL a link to it.
pub(super) fn certificates(tree: &mut Tree) -> Result<(), RootfsError> {
    let mut bundle = Vec::new();
    let found = files_below(tree, "usr/share/ca-certificates");
    for (path, content) in &found {
        let mut text =
            content.read().map_err(|source| RootfsError::Content { path: path.clone(), source })?;
        if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        bundle.extend(text);
    }
    if bundle.is_empty() {
        return Ok(());
    }
    tree.make_directories("etc/ssl/certs", &Metadata::new(0o755))?;
    let file = Inode::file(Metadata::new(0o644), bundle);
    tree.replace("etc/ssl/certs/ca-certificates.crt", file)?;
    let link = Inode::symlink(Metadata::new(0o777), "certs/ca-certificates.crt");
    tree.replace("etc/ssl/cert.pem", link)?;
    Ok(())
}

/// Writes dpkg's list of what is installed, by which scanners find vulnerable packages.
pub(super) fn dpkg_status(tree: &mut Tree, packages: &[(String, Deb)]) -> Result<(), RootfsError> {
    let mut status = String::new();
    for (name, deb) in packages {
        // Refuses a description that would break the list.
        fields(name, deb)?;
        let mut lines = deb.control.trim_end().lines();
        if let Some(first) = lines.next() {
            status += first;
            status += "\nStatus: install ok installed\n";
        }
        for line in lines.filter(|line| !line.trim().is_empty()) {
            status += line;
            status.push('\n');
        }
        status.push('\n');
    }
    tree.make_directories("var/lib/dpkg", &Metadata::new(0o755))?;
    let file = Inode::file(Metadata::new(0o644), status.into_bytes());
    tree.replace("var/lib/dpkg/status", file)?;
    Ok(())
}

/// Warns of directories of libraries that the dynamic loader finds only through a cache, which
/// images do not have.
pub(super) fn library_paths(tree: &Tree) -> Result<Vec<String>, (String, io::Error)> {
    let mut warnings = Vec::new();
    for (name, text) in text_files(tree, "etc/ld.so.conf.d")? {
        for line in text.lines().map(str::trim).filter(|line| line.starts_with('/')) {
            let known = LOADER_PATHS.iter().any(|known| {
                // The multiarch directories stand one below: /usr/lib/x86_64-linux-gnu.
                line.strip_prefix(known)
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with("-linux-gnu"))
            });
            if !known && tree.resolve(line).is_ok_and(Inode::is_directory) {
                warnings.push(format!(
                    "/etc/ld.so.conf.d/{name} names {line}, which is searched only with \
                     LD_LIBRARY_PATH={line} in `env`"
                ));
            }
        }
    }
    Ok(warnings)
}

/// The text files right in a directory, by name. Bytes that are no text are replaced.
pub(super) fn text_files(
    tree: &Tree,
    directory: &str,
) -> Result<BTreeMap<String, String>, (String, io::Error)> {
    let mut texts = BTreeMap::new();
    for (path, content) in files_below(tree, directory) {
        let name = path[directory.len() + 1..].to_owned();
        if !name.contains('/') {
            let bytes = content.read().map_err(|source| (path, source))?;
            texts.insert(name, String::from_utf8_lossy(&bytes).into_owned());
        }
    }
    Ok(texts)
}

/// The regular files below a directory, by path from the root, in order.
fn files_below(tree: &Tree, directory: &str) -> Vec<(String, Content)> {
    let prefix = format!("{directory}/");
    let text = |path: &[u8]| {
        let path = String::from_utf8_lossy(path);
        path.trim_start_matches('/').to_owned()
    };
    let files = tree.walk().filter_map(|visit| {
        let content = visit.inode.content()?;
        Some((text(&visit.path), content.clone())).filter(|(path, _)| path.starts_with(&prefix))
    });
    files.collect()
}
