//! Rules as people read them: close to what `nft list ruleset` prints.

use std::fmt;

use super::{Expression, Rule, Verdict};

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, expression) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            write!(f, "{expression}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Meta { key, .. } => write!(f, "meta({key})"),
            Self::Payload { base, offset, length, .. } => {
                write!(f, "payload({base}+{offset}, {length} bytes)")
            }
            Self::Connection { key, .. } => write!(f, "ct({key})"),
            Self::Mask { mask, .. } => write!(f, "& {}", Bytes(mask)),
            Self::Compare { equal, value, .. } => {
                write!(f, "{} {}", if *equal { "==" } else { "!=" }, Bytes(value))
            }
            Self::Load { value, .. } => write!(f, "load {}", Bytes(value)),
            Self::Lookup { set, inverted, .. } => {
                write!(f, "{}in @{set}", if *inverted { "not " } else { "" })
            }
            Self::DestinationNat { .. } => f.write_str("dnat"),
            Self::Masquerade => f.write_str("masquerade"),
            Self::Reject { reset: true } => f.write_str("reject with tcp reset"),
            Self::Reject { reset: false } => f.write_str("reject with admin-prohibited"),
            Self::Verdict(Verdict::Accept) => f.write_str("accept"),
            Self::Verdict(Verdict::Drop) => f.write_str("drop"),
            Self::Foreign(kind) => write!(f, "[{kind}]"),
        }
    }
}

/// Bytes as text where they are a name, else in hex.
struct Bytes<'a>(&'a [u8]);

impl fmt::Display for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.split(|byte| *byte == 0).next().unwrap_or_default();
        if self.0.len() > 4 && name.iter().all(u8::is_ascii_graphic) {
            return write!(f, "\"{}\"", String::from_utf8_lossy(name));
        }
        f.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
