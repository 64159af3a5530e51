//! PGP packets: their framing, and signatures of version 4.

use ring::digest;

/// A packet: its type and its body.
pub(super) struct Packet<'a> {
    pub(super) tag: u8,
    pub(super) body: &'a [u8],
}

/// Splits a sequence of packets. Stops at the first that is cut short, or of partial or
/// indeterminate length, which no key and no signature has (RFC 4880, section 4.2).
pub(super) fn packets(mut bytes: &[u8]) -> impl Iterator<Item = Packet<'_>> {
    std::iter::from_fn(move || {
        let mut reader = Reader(bytes);
        let first = reader.byte()?;
        let (tag, length) = if first & 0xc0 == 0xc0 {
            (first & 0x3f, reader.length()?)
        } else if first & 0x80 != 0 {
            let length = match first & 3 {
                0 => usize::from(reader.byte()?),
                1 => usize::from(reader.u16()?),
                2 => usize::try_from(reader.u32()?).ok()?,
                _ => return None,
            };
            ((first >> 2) & 0x0f, length)
        } else {
            return None;
        };
        let body = reader.take(length)?;
        bytes = reader.0;
        Some(Packet { tag, body })
    })
}

/// Reads big-endian values off the front of some bytes.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// A multi-precision integer, without its leading zero bytes.
    pub(super) fn integer(&mut self) -> Option<&'a [u8]> {
        let bits = usize::from(self.u16()?);
        let bytes = self.take(bits.div_ceil(8))?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Some(&bytes[zeros..])
    }

    /// A length as new packets and subpackets write it.
    fn length(&mut self) -> Option<usize> {
        match self.byte()? {
            short @ 0..=191 => Some(usize::from(short)),
            high @ 192..=223 => {
                Some((usize::from(high - 192) << 8) + usize::from(self.byte()?) + 192)
            }
            255 => usize::try_from(self.u32()?).ok(),
            _ => None,
        }
    }
}

/// The hash that a signature is made over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HashAlgorithm {
    Sha256,
    Sha384,
    Sha512,
}

/// The numbers that make up a signature.
#[derive(Clone, Debug)]
pub(super) enum SignatureValue {
    /// One integer.
    Rsa(Vec<u8>),
    /// R and S, 32 bytes each.
    Ed25519([u8; 64]),
}

/// A signature of version 4 whose algorithms are supported.
#[derive(Clone, Debug)]
pub(super) struct Signature {
    /// What is signed: 0x00 binary, 0x01 text, 0x10 to 0x13 a user id, 0x18 a subkey, ...
    pub(super) kind: u8,
    pub(super) hash: HashAlgorithm,
    pub(super) value: SignatureValue,
    /// What is hashed after the signed data: the packet's start and the trailer.
    trailer: Vec<u8>,
    pub(super) created: Option<u32>,
    expires_after: Option<u32>,
    pub(super) key_expires_after: Option<u32>,
    pub(super) key_flags: Option<u8>,
    issuer_fingerprint: Option<[u8; 20]>,
    issuer_id: Option<[u8; 8]>,
    /// Whether it says something that must be understood and is not.
    unknown_critical: bool,
}

impl Signature {
    /// Reads the body of a signature packet (RFC 4880, section 5.2.3).
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut reader = Reader(body);
        let (version, kind, public, hash) =
            (reader.byte()?, reader.byte()?, reader.byte()?, reader.byte()?);
        let hash = match (version, hash) {
            (4, 8) => HashAlgorithm::Sha256,
            (4, 9) => HashAlgorithm::Sha384,
            (4, 10) => HashAlgorithm::Sha512,
            _ => return None,
        };
        let hashed_length = usize::from(reader.u16()?);
        let hashed = reader.take(hashed_length)?;
        let mut trailer = body[..6 + hashed_length].to_vec();
        let trailer_length = u32::try_from(trailer.len()).ok()?;
        trailer.extend([4, 0xff]);
        trailer.extend(trailer_length.to_be_bytes());
        let unhashed_length = usize::from(reader.u16()?);
        let unhashed = reader.take(unhashed_length)?;
        reader.u16()?;
        let value = match public {
            1 | 3 => SignatureValue::Rsa(reader.integer()?.to_vec()),
            22 => SignatureValue::Ed25519(ed25519_value(reader.integer()?, reader.integer()?)?),
            27 => SignatureValue::Ed25519(reader.take(64)?.try_into().ok()?),
            _ => return None,
        };
        let mut signature = Self {
            kind,
            hash,
            value,
            trailer,
            created: None,
            expires_after: None,
            key_expires_after: None,
            key_flags: None,
            issuer_fingerprint: None,
            issuer_id: None,
            unknown_critical: false,
        };
        signature.read_subpackets(hashed, true)?;
        signature.read_subpackets(unhashed, false)?;
        Some(signature)
    }

    /// Takes in subpackets. Only the hashed ones are covered by the signature; of the others just
    /// the issuer is used, to find the key.
    fn read_subpackets(&mut self, bytes: &[u8], hashed: bool) -> Option<()> {
        let mut reader = Reader(bytes);
        while !reader.0.is_empty() {
            let length = reader.length()?;
            let (kind, value) = reader.take(length)?.split_first()?;
            let mut number = Reader(value);
            match (kind & 0x7f, hashed) {
                (2, true) => self.created = Some(number.u32()?),
                (3, true) => self.expires_after = Some(number.u32()?),
                (9, true) => self.key_expires_after = Some(number.u32()?),
                (27, true) => self.key_flags = Some(*value.first()?),
                (16, _) => self.issuer_id = value.try_into().ok(),
                (33, _) if value.first() == Some(&4) => {
                    self.issuer_fingerprint = value[1..].try_into().ok();
                }
                // Preferences and features, which bear on nothing here; see section 5.2.3.1.
                (11 | 20..=25 | 28 | 30..=34, _) => {}
                _ => self.unknown_critical |= hashed && kind & 0x80 != 0,
            }
        }
        Some(())
    }

    /// Whether the key with this fingerprint is named as the maker.
    pub(super) fn names(&self, fingerprint: &[u8; 20]) -> bool {
        match (&self.issuer_fingerprint, &self.issuer_id) {
            (Some(issuer), _) => issuer == fingerprint,
            (None, Some(id)) => id[..] == fingerprint[12..],
            (None, None) => false,
        }
    }

    /// The maker's fingerprint or key id, as far as it is named, for messages.
    pub(super) fn issuer(&self) -> String {
        match (&self.issuer_fingerprint, &self.issuer_id) {
            (Some(fingerprint), _) => super::key::hex(fingerprint),
            (None, Some(id)) => super::key::hex(id),
            (None, None) => "a key that is not named".to_owned(),
        }
    }

    /// Whether the signature is made, not expired, and understood in all that it insists on.
    pub(super) fn is_valid_at(&self, now_seconds: i64) -> bool {
        let Some(created) = self.created.map(i64::from) else { return false };
        let expired = self
            .expires_after
            .is_some_and(|after| after != 0 && created + i64::from(after) <= now_seconds);
        created <= now_seconds + super::key::CLOCK_SKEW_SECONDS
            && !expired
            && !self.unknown_critical
    }

    /// When the signature has ended, in seconds since 1970.
    pub(super) fn end(&self, now_seconds: i64) -> Option<i64> {
        let created = self.created.map(i64::from)?;
        let after = self.expires_after.filter(|after| *after != 0)?;
        Some(created + i64::from(after)).filter(|end| *end <= now_seconds)
    }

    /// What is signed, as it is hashed: the data and the signature's own fields.
    pub(super) fn message(&self, data: &[u8]) -> Vec<u8> {
        [data, &self.trailer].concat()
    }

    /// The hash of that.
    pub(super) fn digest(&self, data: &[u8]) -> digest::Digest {
        let algorithm = match self.hash {
            HashAlgorithm::Sha256 => &digest::SHA256,
            HashAlgorithm::Sha384 => &digest::SHA384,
            HashAlgorithm::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, &self.message(data))
    }
}

/// R and S are integers in the old form, whose leading zeros have to be put back.
fn ed25519_value(r: &[u8], s: &[u8]) -> Option<[u8; 64]> {
    let mut value = [0; 64];
    value[32_usize.checked_sub(r.len())?..32].copy_from_slice(r);
    value[32 + 32_usize.checked_sub(s.len())?..].copy_from_slice(s);
    Some(value)
}
