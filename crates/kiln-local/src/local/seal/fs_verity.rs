//! By fs-verity: from the first start on nobody can write to the file, and the kernel verifies what
//! is read of it. A start only compares what the kernel measures with what was signed, and reads
//! nothing.

use std::io;

use kiln_model::trust::Integrity;

use super::{Candidate, Failure, Sealing};
use crate::fs_verity;
use crate::launcher::protocol::Seal;

/// See the module.
pub(super) struct FsVerity;

impl Sealing for FsVerity {
    fn integrity(&self) -> Integrity {
        Integrity::FsVerity
    }

    fn apply(&self, candidate: &Candidate<'_>) -> Result<Seal, Failure> {
        let lacks = |error: io::Error| Failure::Lacks(lack(&error));
        let mut measured = fs_verity::measure(candidate.file).map_err(lacks)?;
        if measured.is_none() {
            fs_verity::enable(candidate.file).map_err(lacks)?;
            measured = fs_verity::measure(candidate.file).map_err(lacks)?;
        }
        let expected = candidate.expected()?.fs_verity;
        if measured == Some(expected) {
            return Ok(Seal::FsVerity { digest: expected });
        }
        let found = measured.map_or_else(|| "nothing".to_owned(), |found| found.to_string());
        let path = candidate.image.rootfs.display();
        Err(Failure::Altered(format!("the kernel measures {found} of {path}, not {expected}")))
    }
}

/// What the machine has not, by the kernel's answer.
fn lack(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::ENOTTY) => {
            "the filesystem of the image store has not the feature `verity`, or the kernel not \
             CONFIG_FS_VERITY (for ext4: `tune2fs -O verity DEVICE`)"
                .to_owned()
        }
        Some(libc::EINVAL) => "the filesystem's blocks must have 4096 bytes for it".to_owned(),
        Some(libc::ETXTBSY) => "a program has the file open for writing".to_owned(),
        _ => error.to_string(),
    }
}
