//! The kernel's device mapper, by its own interface: no library, and no program is started.
//!
//! The interface is that of `include/uapi/linux/dm-ioctl.h` of the Linux sources. Each request is a
//! buffer with a header, in which the answer comes back.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Where the device mapper is spoken to, under /dev.
const CONTROL: &str = "mapper/control";
/// Bytes of `struct dm_ioctl`.
const HEADER_BYTES: usize = 312;
/// Bytes of `struct dm_target_spec`.
const TARGET_BYTES: usize = 40;
/// Room for an answer.
const ANSWER_BYTES: usize = 64 << 10;
/// The longest name, in bytes.
const NAME_BYTES: usize = 127;

const FLAGS: usize = 28;
const DEVICE: usize = 40;
const NAME: usize = 48;

const READ_ONLY: u32 = 1;
const BUFFER_FULL: u32 = 1 << 8;
const DEFERRED_REMOVE: u32 = 1 << 17;

/// `DM_LIST_DEVICES_CMD` and so on.
#[derive(Clone, Copy)]
enum Command {
    ListDevices = 2,
    Create = 3,
    Remove = 4,
    /// Of `DM_DEV_SUSPEND`: without its flag it puts the loaded table to work.
    Resume = 6,
    LoadTable = 9,
    TableStatus = 12,
    TargetVersion = 17,
}

/// A connection to the device mapper.
pub(crate) struct DeviceMapper {
    control: File,
}

/// A table of one target.
pub(crate) struct Target<'a> {
    /// Its type, such as `verity`.
    pub(crate) kind: &'a str,
    /// Length in sectors of 512 bytes.
    pub(crate) sectors: u64,
    /// What the type needs to know.
    pub(crate) parameters: &'a str,
}

impl DeviceMapper {
    /// Opens it; `devices` is the host's /dev. The kernel loads its module for that.
    pub(crate) fn open(devices: &Path) -> io::Result<Self> {
        let control = OpenOptions::new().read(true).write(true).open(devices.join(CONTROL))?;
        Ok(Self { control })
    }

    /// Whether there are targets of that type. The kernel loads its module for that.
    pub(crate) fn has_target(&self, kind: &str) -> io::Result<bool> {
        match self.ask(Command::TargetVersion, kind, 0, &[]) {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes a read-only device of that name; its minor number. Nothing is left on failure.
    pub(crate) fn create(&self, name: &str, target: &Target<'_>) -> io::Result<u32> {
        let answer = self.ask(Command::Create, name, READ_ONLY, &[])?;
        let work = || {
            self.ask(Command::LoadTable, name, READ_ONLY, &table(target))?;
            self.ask(Command::Resume, name, READ_ONLY, &[])
        };
        if let Err(error) = work() {
            // The first error is the one that explains.
            let _ = self.ask(Command::Remove, name, 0, &[]);
            return Err(error);
        }
        let device = answer.get(DEVICE..DEVICE + 8).and_then(|bytes| bytes.try_into().ok());
        Ok(rustix::fs::minor(u64::from_ne_bytes(device.unwrap_or_default())))
    }

    /// Removes a device now, or when its last user closes it.
    pub(crate) fn remove_when_unused(&self, name: &str) -> io::Result<()> {
        self.ask(Command::Remove, name, DEFERRED_REMOVE, &[]).map(drop)
    }

    /// The names of all devices.
    pub(crate) fn names(&self) -> io::Result<Vec<String>> {
        Ok(names(self.ask(Command::ListDevices, "", 0, &[])?.get(HEADER_BYTES..).unwrap_or(&[])))
    }

    /// What the one target of a device says of its state; `device` is the device's number.
    pub(crate) fn status(&self, device: u64) -> io::Result<String> {
        let mut buffer = request(Command::TableStatus, "", 0, &[])?;
        buffer[DEVICE..DEVICE + 8].copy_from_slice(&device.to_ne_bytes());
        Ok(status(&self.send(Command::TableStatus, buffer)?))
    }

    fn ask(&self, command: Command, name: &str, flags: u32, data: &[u8]) -> io::Result<Vec<u8>> {
        self.send(command, request(command, name, flags, data)?)
    }

    fn send(&self, command: Command, mut buffer: Vec<u8>) -> io::Result<Vec<u8>> {
        // `_IOWR(0xfd, command, struct dm_ioctl)`.
        let number = 0xc138_fd00 | command as libc::Ioctl;
        // SAFETY: the kernel reads and writes within the length that the buffer itself says.
        let done = unsafe { libc::ioctl(self.control.as_raw_fd(), number, buffer.as_mut_ptr()) };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
        let flags = buffer.get(FLAGS..FLAGS + 4).and_then(|bytes| bytes.try_into().ok());
        if u32::from_ne_bytes(flags.unwrap_or_default()) & BUFFER_FULL != 0 {
            return Err(io::Error::other("the device mapper has more to say than there is room"));
        }
        Ok(buffer)
    }
}

fn request(command: Command, name: &str, flags: u32, data: &[u8]) -> io::Result<Vec<u8>> {
    if name.len() > NAME_BYTES {
        return Err(io::ErrorKind::InvalidFilename.into());
    }
    let mut buffer = vec![0; HEADER_BYTES + data.len().max(ANSWER_BYTES)];
    // The version of the interface that is asked for, which all kernels since 2.6 understand.
    buffer[0..4].copy_from_slice(&4_u32.to_ne_bytes());
    let length = u32::try_from(buffer.len()).map_err(io::Error::other)?;
    buffer[12..16].copy_from_slice(&length.to_ne_bytes());
    let start = u32::try_from(HEADER_BYTES).map_err(io::Error::other)?;
    buffer[16..20].copy_from_slice(&start.to_ne_bytes());
    let targets = u32::from(matches!(command, Command::LoadTable));
    buffer[20..24].copy_from_slice(&targets.to_ne_bytes());
    buffer[FLAGS..FLAGS + 4].copy_from_slice(&flags.to_ne_bytes());
    buffer[NAME..NAME + name.len()].copy_from_slice(name.as_bytes());
    buffer[HEADER_BYTES..HEADER_BYTES + data.len()].copy_from_slice(data);
    Ok(buffer)
}

/// A `struct dm_target_spec` with its parameters.
fn table(target: &Target<'_>) -> Vec<u8> {
    let mut bytes = vec![0; TARGET_BYTES];
    bytes[8..16].copy_from_slice(&target.sectors.to_ne_bytes());
    let kind = target.kind.as_bytes();
    bytes[24..24 + kind.len()].copy_from_slice(kind);
    bytes.extend_from_slice(target.parameters.as_bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    bytes[20..24].copy_from_slice(&length.to_ne_bytes());
    bytes
}

/// The text behind the first `struct dm_target_spec` of an answer.
fn status(answer: &[u8]) -> String {
    let text = answer.get(HEADER_BYTES + TARGET_BYTES..).unwrap_or_default();
    let text: Vec<u8> = text.iter().copied().take_while(|byte| *byte != 0).collect();
    String::from_utf8_lossy(&text).into_owned()
}

/// The names in a run of `struct dm_name_list`.
fn names(mut list: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let (Some(device), Some(next)) = (list.get(0..8), list.get(8..12)) else { return found };
        if device == [0; 8] {
            return found;
        }
        let name: Vec<u8> = list[12..].iter().copied().take_while(|byte| *byte != 0).collect();
        found.push(String::from_utf8_lossy(&name).into_owned());
        let next = next.try_into().map_or(0, u32::from_ne_bytes);
        match usize::try_from(next).ok().and_then(|next| list.get(next..)) {
            Some(rest) if next > 0 => list = rest,
            _ => return found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_laid_out_as_the_kernel_reads_it() {
        let bytes = table(&Target { kind: "verity", sectors: 8, parameters: "1 7:0" });
        assert_eq!(bytes.len(), 48);
        assert_eq!(bytes[8..16], 8_u64.to_ne_bytes());
        assert_eq!(bytes[20..24], 48_u32.to_ne_bytes());
        assert_eq!(&bytes[24..31], b"verity\0");
        assert_eq!(&bytes[40..48], b"1 7:0\0\0\0");
    }

    #[test]
    fn a_status_stands_behind_its_target() {
        let mut answer = vec![0; HEADER_BYTES];
        answer.extend_from_slice(&table(&Target { kind: "verity", sectors: 8, parameters: "C" }));
        assert_eq!(status(&answer), "C");
        assert_eq!(status(&[0; 16]), "");
    }

    #[test]
    fn a_list_of_names_is_read_to_its_end() {
        let mut list = Vec::new();
        for (name, next) in [("one", 16_u32), ("three", 0)] {
            list.extend_from_slice(&7_u64.to_ne_bytes());
            list.extend_from_slice(&next.to_ne_bytes());
            list.extend_from_slice(name.as_bytes());
            list.resize(list.len().next_multiple_of(8), 0);
        }
        assert_eq!(names(&list), ["one", "three"]);
        assert_eq!(names(&[0; 16]), Vec::<String>::new());
        assert_eq!(names(&[]), Vec::<String>::new());
    }
}
