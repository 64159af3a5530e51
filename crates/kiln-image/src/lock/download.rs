//! Where the packages of a lock's entry can be had.

use super::{LockEntry, LockedPackage, Request};
use crate::debian::suite::Mirrors;
use crate::fetch::Download;

impl LockEntry {
    /// All packages of the entry, in its order, as files to fetch. No index is needed.
    pub fn downloads(&self, request: &Request, mirrors: &Mirrors) -> Vec<Download> {
        let download = |package: &LockedPackage| Download {
            urls: self.addresses(package, request, mirrors),
            sha256: package.sha256,
            size_bytes: package.size,
        };
        self.packages.iter().map(download).collect()
    }

    /// The mirror of today first, then the one that the lock was made with.
    fn addresses(
        &self,
        package: &LockedPackage,
        request: &Request,
        mirrors: &Mirrors,
    ) -> Vec<String> {
        let mut roots: Vec<String> = Vec::new();
        if let Some(name) = &package.repository {
            let named = request.repositories.iter().filter(|r| r.name == *name);
            roots.extend(named.map(|repository| repository.url.clone()));
        } else {
            let archives = mirrors.archives(&request.suite, &request.pockets).into_iter();
            roots.extend(archives.filter(|a| a.suite == package.suite).map(|a| a.mirror));
        }
        let recorded = self.archives.iter().filter(|archive| {
            archive.suite == package.suite && archive.repository == package.repository
        });
        roots.extend(recorded.map(|archive| archive.mirror.clone()));
        roots.dedup();
        roots.iter().map(|root| format!("{root}/{}", package.filename)).collect()
    }
}
