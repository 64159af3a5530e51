//! The smallest programs that can be measured: what is timed is who starts them, not they.

/// `write(1, "x\n", 2)`, then `exit(0)`, in x86-64 machine code.
pub(crate) const SAY_AND_EXIT: &[u8] = b"\xb8\x01\x00\x00\x00\xbf\x01\x00\x00\x00\
    \x48\x8d\x35\x10\x00\x00\x00\xba\x02\x00\x00\x00\x0f\x05\
    \x31\xff\xb8\x3c\x00\x00\x00\x0f\x05x\n";

/// `write(1, "x\n", 2)`, then `for (;;) pause()`, in x86-64 machine code.
pub(crate) const SAY_AND_STAY: &[u8] = b"\xb8\x01\x00\x00\x00\xbf\x01\x00\x00\x00\
    \x48\x8d\x35\x10\x00\x00\x00\xba\x02\x00\x00\x00\x0f\x05\
    \xb8\x22\x00\x00\x00\x0f\x05\xeb\xf7x\n";

/// The smallest ELF file that runs `code`: a header, one segment, the code (see elf(5)).
pub(crate) fn executable(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let size = HEADERS + code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [2_u16, 62] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1_u32.to_le_bytes());
    for word in [BASE + HEADERS, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1_u32.to_le_bytes());
    file.extend(5_u32.to_le_bytes());
    for word in [0, BASE, BASE, size, size, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}
