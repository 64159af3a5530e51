//! By dm-verity: the filesystem is mounted from a device that verifies what is read of the file.
//! The file can be written to, but what was written can't be read.

use std::io;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use kiln_model::trust::Integrity;

use super::{Candidate, Failure, Sealing};
use crate::launcher::device_mapper::DeviceMapper;
use crate::launcher::protocol::Seal;

/// The type of device-mapper target.
const TARGET: &str = "verity";

/// See the module.
#[derive(Default)]
pub(super) struct DmVerity {
    /// How often in a row a device could not be used although the machine seems to have what it
    /// takes, and why.
    failures: Mutex<(u32, String)>,
}

impl DmVerity {
    /// Notes that a device could not be used.
    pub(super) fn failed(&self, why: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        *failures = (failures.0 + 1, why.to_owned());
    }

    /// Gives up after the second failure. After the first the file is read in full: perhaps it is
    /// the file's fault.
    fn consider(&self, candidate: &Candidate<'_>) -> Result<(), Failure> {
        let (failures, why) = self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match failures {
            0 => Ok(()),
            1 => candidate.read_in_full().map(drop).inspect_err(|_| {
                *self.failures.lock().unwrap_or_else(PoisonError::into_inner) = (0, String::new());
            }),
            _ => Err(Failure::Lacks(why)),
        }
    }
}

impl Sealing for DmVerity {
    fn integrity(&self) -> Integrity {
        Integrity::DmVerity
    }

    fn apply(&self, candidate: &Candidate<'_>) -> Result<Seal, Failure> {
        self.consider(candidate)?;
        let devices = Path::new("/dev");
        match DeviceMapper::open(devices).and_then(|mapper| mapper.has_target(TARGET)) {
            Ok(true) if devices.join("loop-control").exists() => {}
            Ok(true) => return lacks("this machine has no loop devices (the module `loop`)"),
            Ok(false) => return lacks("the kernel has no dm-verity (CONFIG_DM_VERITY)"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return lacks("this machine has no device mapper (the module `dm_mod`)");
            }
            Err(error) => return lacks(&format!("the device mapper can't be used: {error}")),
        }
        // Read at the first start although its root is signed: the file can have been written to, and
        // an instance would meet that only when it needs the block.
        let root = candidate.read_once()?.root;
        let tree = candidate.images.hash_tree(candidate.image, candidate.file);
        Ok(Seal::DmVerity { tree: tree.map_err(Failure::Io)?, root })
    }
}

fn lacks(what: &str) -> Result<Seal, Failure> {
    Err(Failure::Lacks(what.to_owned()))
}
