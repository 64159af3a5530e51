//! The checksum that ends a lock.
//!
//! A package's digest vouches for the package; the sum vouches for the lock itself, so that no byte
//! of it changes unnoticed. A lock without one, as it is after a merge by hand, is taken as it
//! stands, and gets one when it is next written.

use kiln_model::digest::Digest;

/// The text of a whole lock from that of one without a sum, which ends with `\n}\n`.
pub(super) fn seal(text: &str) -> String {
    let head = text.strip_suffix("\n}\n").unwrap_or(text);
    format!("{head}{}", tail(&Digest::of(head.as_bytes())))
}

/// Whether a lock is as it was written, given the sum that it holds, if any.
pub(super) fn holds(text: &[u8], sum: Option<&Digest>) -> bool {
    let Some(sum) = sum else { return true };
    let head = text.strip_suffix(tail(sum).as_bytes());
    head.is_some_and(|head| Digest::of(head) == *sum)
}

fn tail(sum: &Digest) -> String {
    format!(",\n  \"sum\": \"{sum}\"\n}}\n")
}
