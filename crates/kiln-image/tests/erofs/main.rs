//! EROFS images as the kernel and `fsck.erofs` see them.

mod cases;
mod golden;
mod mounted;
mod random;
