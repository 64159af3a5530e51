//! The same backend for the same client: weighted rendezvous hashing.
//!
//! Each backend scores each client (Thaler and Ravishankar, "Using Name-Based Mappings to
//! Increase Hit Rates", 1998; weights after Schindelhauer and Schomaker, 2005) and the highest
//! score wins. When a backend goes, only its own clients move, and each to the backend that was
//! second for it. No state is kept, so another gateway comes to the same result.

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::COOKIE;
use kiln_model::handling::HashKey;

/// FNV-1a (Fowler, Noll, Vo), 64 bits: the same in every process.
pub(crate) fn of_bytes(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// What tells a client from others.
pub(crate) fn of_client(key: &HashKey, client: IpAddr, headers: Option<&HeaderMap>) -> u64 {
    let found = headers.and_then(|headers| match key {
        HashKey::Address => None,
        HashKey::Header(name) => headers.get(name).map(|value| of_bytes(value.as_bytes())),
        HashKey::Cookie(name) => cookie(headers, name).map(of_bytes),
    });
    found.unwrap_or_else(|| match client.to_canonical() {
        IpAddr::V4(ip) => of_bytes(&ip.octets()),
        IpAddr::V6(ip) => of_bytes(&ip.octets()),
    })
}

/// The value of a cookie (RFC 6265, section 4.2).
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    headers.get_all(COOKIE).iter().flat_map(|list| list.as_bytes().split(|b| *b == b';')).find_map(
        |pair| {
            let pair = pair.trim_ascii();
            let equals = pair.iter().position(|b| *b == b'=')?;
            (pair[..equals] == *name.as_bytes()).then(|| &pair[equals + 1..])
        },
    )
}

/// How much a backend wants a client.
#[allow(clippy::cast_precision_loss, reason = "53 bits are enough to compare")]
pub(super) fn score(backend: u64, client: u64, weight: u16) -> f64 {
    // The finalizer of MurmurHash3 (Appleby) spreads each bit over all.
    let mut mixed = backend ^ client.rotate_left(32);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^= mixed >> 33;
    let unit = ((mixed >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -f64::from(weight.max(1)) / unit.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_apart_by_what_is_asked_for() {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, "a=1; session=x; b=2".parse().unwrap());
        headers.insert("x-user", "ada".parse().unwrap());
        let (one, two) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let of = |key: &HashKey, client| of_client(key, client, Some(&headers));
        assert_ne!(of(&HashKey::Address, one), of(&HashKey::Address, two));
        for key in [HashKey::Cookie("session".into()), HashKey::Header("x-user".into())] {
            assert_eq!(of(&key, one), of(&key, two), "{key:?}");
        }
        let absent = HashKey::Cookie("ession".into());
        assert_eq!(of(&absent, one), of(&HashKey::Address, one));
    }
}
