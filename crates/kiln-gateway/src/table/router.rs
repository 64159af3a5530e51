//! Which route of an endpoint a request takes: by its host, then by its path.
//!
//! Both are looked up by hashing, so that a thousand routes cost what one does: a host once for
//! itself and once for each of its ends, a path once for each of its segments.

use std::collections::HashMap;
use std::sync::Arc;

use crate::table::Branch;

/// The routes of an endpoint beside its own.
#[derive(Debug, Default)]
pub(crate) struct Router {
    /// By host without port, in lower case.
    exact: HashMap<Box<str>, Paths>,
    /// By what follows `*.`.
    wild: HashMap<Box<str>, Paths>,
    any: Paths,
    list: Vec<Arc<Branch>>,
}

/// By what a path begins with; empty for any path.
type Paths = HashMap<Box<str>, Arc<Branch>>;

/// A host and the beginning of a path, as a table names them.
pub(crate) type RouteKey = (Option<String>, String);

impl Router {
    pub(crate) fn add(&mut self, key: &RouteKey, branch: Arc<Branch>) {
        let paths = match key.0.as_deref() {
            None => &mut self.any,
            Some(host) => match host.strip_prefix("*.") {
                Some(end) => self.wild.entry(end.into()).or_default(),
                None => self.exact.entry(host.into()).or_default(),
            },
        };
        paths.insert(key.1.as_str().into(), Arc::clone(&branch));
        self.list.push(branch);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All routes, in the order of the table.
    pub(crate) fn branches(&self) -> impl Iterator<Item = &Arc<Branch>> {
        self.list.iter()
    }

    /// The route for a host, which may have a port, and a path.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<&Arc<Branch>> {
        let host = plain_host(host);
        let lower;
        let host = if host.bytes().any(|b| b.is_ascii_uppercase()) {
            lower = host.to_ascii_lowercase();
            lower.as_str()
        } else {
            host
        };
        if let Some(found) = self.exact.get(host).and_then(|paths| longest(paths, path)) {
            return Some(found);
        }
        let mut rest = host;
        while let Some((_, end)) = rest.split_once('.') {
            if self.wild.is_empty() {
                break;
            }
            if let Some(found) = self.wild.get(end).and_then(|paths| longest(paths, path)) {
                return Some(found);
            }
            rest = end;
        }
        longest(&self.any, path)
    }
}

/// A host without its port and without the dot at its end.
fn plain_host(host: &str) -> &str {
    let end = if host.starts_with('[') {
        host.find(']').map_or(host.len(), |bracket| bracket + 1)
    } else {
        host.find(':').unwrap_or(host.len())
    };
    host[..end].strip_suffix('.').unwrap_or(&host[..end])
}

/// The route with the longest beginning of the path, in whole segments.
fn longest<'a>(paths: &'a Paths, path: &str) -> Option<&'a Arc<Branch>> {
    let mut rest = path.strip_suffix('/').unwrap_or(path);
    loop {
        if let Some(found) = paths.get(rest) {
            return Some(found);
        }
        if rest.is_empty() {
            return None;
        }
        rest = &rest[..rest.rfind('/').unwrap_or(0)];
    }
}

/// Whether servers may understand the path as another one: a request with it takes no route.
/// Segments of dots, empty ones, and such as are hidden behind percent signs or backslashes.
pub(crate) fn is_ambiguous(path: &str) -> bool {
    let bytes = path.as_bytes();
    let plain = |b: &u8| !matches!(b, b'%' | b'\\') && *b >= b'!';
    if bytes.iter().all(plain) && !path.contains("/.") && !path.contains("//") {
        return false;
    }
    let lower = path.to_ascii_lowercase();
    let decoded = lower.replace("%2e", ".").replace("%2f", "/").replace("%5c", "\\");
    let hidden = lower.contains("%2f") || decoded.contains('\\');
    // What stands behind a semicolon is a parameter to some (RFC 3986, section 3.3).
    let dots = |segment: &str| matches!(segment.split(';').next(), Some("." | ".."));
    hidden || decoded.contains("//") || decoded.split('/').any(dots)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(keys: &[(Option<&str>, &str)]) -> Router {
        let mut router = Router::default();
        for (host, path) in keys {
            let key = (host.map(str::to_owned), (*path).to_owned());
            router.add(&key, Arc::new(Branch::for_test(&key)));
        }
        router
    }

    #[test]
    fn the_most_exact_host_decides_and_then_the_longest_path() {
        let router = router(&[
            (Some("a.example"), ""),
            (Some("a.example"), "/api"),
            (Some("a.example"), "/api/v2"),
            (Some("*.example"), "/only"),
            (Some("*.b.example"), ""),
            (None, "/api"),
        ]);
        for (host, path, expected) in [
            ("a.example", "/", Some((Some("a.example"), ""))),
            ("A.Example.:8080", "/api/", Some((Some("a.example"), "/api"))),
            ("a.example", "/apis", Some((Some("a.example"), ""))),
            ("a.example", "/api/v2/x/", Some((Some("a.example"), "/api/v2"))),
            ("a.example", "/api/v20", Some((Some("a.example"), "/api"))),
            ("c.example", "/only/x", Some((Some("*.example"), "/only"))),
            ("x.y.b.example", "/", Some((Some("*.b.example"), ""))),
            ("b.example", "/", None),
            ("c.example", "/api/x", Some((None, "/api"))),
            ("c.example", "/", None),
            ("[::1]:80", "/api", Some((None, "/api"))),
            ("", "*", None),
        ] {
            let found = router.find(host, path).and_then(|branch| branch.key.as_deref().cloned());
            let expected = expected.map(|(h, p)| (h.map(str::to_owned), p.to_owned()));
            assert_eq!(found, expected, "{host} {path}");
        }
    }

    #[test]
    fn paths_that_servers_understand_differently_are_told() {
        for path in ["/a/../b", "/./b", "/a//b", "/a/%2e%2E/b", "/a%2fb", "/a\\b", "/..;x/b", "/.."]
        {
            assert!(is_ambiguous(path), "{path}");
        }
        for path in ["/", "/.well-known/x", "/a.b/..c", "/caf%C3%A9", "/a/", "/a;v=1/b"] {
            assert!(!is_ambiguous(path), "{path}");
        }
    }
}
