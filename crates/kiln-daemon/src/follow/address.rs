//! Where a repository is, as it was given: a directory of this machine, HTTP, or SSH. Nothing else:
//! transports that run a program, or that neither encrypt nor authenticate, are refused.

use std::fmt;
use std::path::{Component, Path, PathBuf};

/// How a repository is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// A directory of this machine.
    Local(PathBuf),
    /// `http://`.
    Http,
    /// `https://`.
    Https,
    /// `ssh://`, or `HOST:PATH`.
    Ssh,
}

/// The address of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    text: String,
    transport: Transport,
}

/// An address, branch or path that can't be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no such transport here.
    #[error(
        "{url}: repositories are followed as a path, file://, https://, http://, ssh:// or \
         USER@HOST:PATH"
    )]
    Transport {
        /// What was given.
        url: String,
    },
    /// The address lacks something or holds what does not belong there.
    #[error("{url} is no address of a repository: {problem}")]
    Malformed {
        /// What was given, without a password.
        url: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// A password would be shown wherever the address is.
    #[error("the address holds a password, which would be seen wherever the address is shown")]
    Password,
    /// No branch has this name.
    #[error("{0:?} is no name of a branch")]
    Branch(String),
    /// The path leads elsewhere.
    #[error("{0:?} is no path of a directory in the repository")]
    Path(String),
}

impl AddressError {
    /// The way out.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            Self::Password => Some("put the token into a file and name it with --token-file"),
            Self::Path(_) => Some("name it from the repository's top: --path deploy/shop"),
            Self::Branch(_) => Some("name it as `git branch` does: --branch main"),
            Self::Transport { .. } | Self::Malformed { .. } => None,
        }
    }
}

impl Address {
    /// Reads an address. A path is relative to `directory`.
    pub fn parse(text: &str, directory: &Path) -> Result<Self, AddressError> {
        let malformed = |problem| AddressError::Malformed { url: text.to_owned(), problem };
        if text.is_empty() {
            return Err(malformed("it is empty"));
        }
        if text.starts_with('-') {
            return Err(malformed("it begins like an option"));
        }
        if text.chars().any(char::is_control) {
            return Err(malformed("it holds control characters"));
        }
        let made = |transport| Ok(Self { text: text.to_owned(), transport });
        if let Some((scheme, rest)) = text.split_once("://") {
            return match scheme {
                "file" => {
                    let path =
                        file_path(rest).ok_or_else(|| malformed("its path must be absolute"))?;
                    made(Transport::Local(path))
                }
                "http" | "https" | "ssh" => {
                    check_host(rest).map_err(|problem| problem.unwrap_or_error(text))?;
                    made(match scheme {
                        "http" => Transport::Http,
                        "https" => Transport::Https,
                        _ => Transport::Ssh,
                    })
                }
                _ => Err(AddressError::Transport { url: text.to_owned() }),
            };
        }
        // What git would take for a helper: ext::, fd:: and the like.
        if text.contains("::") {
            return Err(AddressError::Transport { url: text.to_owned() });
        }
        let colon = text.find(':').unwrap_or(usize::MAX);
        if colon < text.find('/').unwrap_or(usize::MAX) {
            let (host, path) = text.split_at(colon);
            check_host(host).map_err(|problem| problem.unwrap_or_error(text))?;
            if path.len() < 2 || path[1..].starts_with('-') {
                return Err(malformed("there is no path behind the host"));
            }
            return made(Transport::Ssh);
        }
        let path = plain(&directory.join(text));
        Ok(Self { text: path.display().to_string(), transport: Transport::Local(path) })
    }

    /// How it is reached.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// The directory, where it is one of this machine.
    pub fn local(&self) -> Option<&Path> {
        match &self.transport {
            Transport::Local(path) => Some(path),
            _ => None,
        }
    }

    /// What git is told.
    pub(super) fn for_git(&self) -> String {
        match &self.transport {
            Transport::Local(path) => path.display().to_string(),
            _ => self.text.clone(),
        }
    }

    /// The name of git's transport, the only one that it may use.
    pub(super) fn protocol(&self) -> &'static str {
        match &self.transport {
            Transport::Local(_) => "file",
            Transport::Http => "http",
            Transport::Https => "https",
            Transport::Ssh => "ssh",
        }
    }

    /// The repository's own name: the last part of its path, without `.git`.
    pub(super) fn base_name(&self) -> &str {
        let path = self.text.trim_end_matches('/');
        let path = path.strip_suffix("/.git").unwrap_or(path);
        let last = path.rsplit(['/', ':']).next().unwrap_or(path);
        last.strip_suffix(".git").unwrap_or(last)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What is wrong with a host.
enum HostProblem {
    Password,
    Other(&'static str),
}

impl HostProblem {
    fn unwrap_or_error(self, url: &str) -> AddressError {
        match self {
            Self::Password => AddressError::Password,
            Self::Other(problem) => AddressError::Malformed { url: url.to_owned(), problem },
        }
    }
}

fn check_host(rest: &str) -> Result<(), HostProblem> {
    let authority = rest.split('/').next().unwrap_or_default();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if user.contains(':') {
        return Err(HostProblem::Password);
    }
    if host.is_empty() || host.starts_with(':') {
        return Err(HostProblem::Other("there is no host in it"));
    }
    // Programs that are handed it would read an option.
    if host.starts_with('-') || user.starts_with('-') {
        return Err(HostProblem::Other("its host begins like an option"));
    }
    Ok(())
}

/// The path of a `file://` address: absolute, `%41` standing for a byte.
fn file_path(rest: &str) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;

    let rest = rest.strip_prefix("localhost").unwrap_or(rest);
    if !rest.starts_with('/') {
        return None;
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(rest.len()), rest.as_bytes());
    while let Some((&first, behind)) = rest.split_first() {
        let digits = behind.get(..2).and_then(|d| std::str::from_utf8(d).ok());
        let escaped = digits.and_then(|d| u8::from_str_radix(d, 16).ok());
        match escaped.filter(|_| first == b'%') {
            Some(0) => return None,
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    Some(PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

/// A path without `.`, and `..` taken back.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    plain
}

/// Checks a branch's name as `git check-ref-format --branch` does.
pub fn check_branch(name: &str) -> Result<(), AddressError> {
    let bad_char = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    let bad_part = |part: &str| {
        part.is_empty()
            || part.starts_with('.')
            || part.ends_with('.')
            || Path::new(part).extension().is_some_and(|e| e == "lock")
    };
    let bad = name.is_empty()
        || name.starts_with('-')
        || name == "@"
        || name.contains("..")
        || name.contains("@{")
        || name.contains(bad_char)
        || name.split('/').any(bad_part);
    if bad { Err(AddressError::Branch(name.to_owned())) } else { Ok(()) }
}

/// A directory of the repository as it is written down: parts with a slash between, empty for the
/// top.
pub fn normal_path(path: &str) -> Result<String, AddressError> {
    let bad = || AddressError::Path(path.to_owned());
    if path.chars().any(char::is_control) || path.starts_with('/') || path.contains('\\') {
        return Err(bad());
    }
    let parts: Vec<&str> =
        path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.iter().any(|part| *part == ".." || part.eq_ignore_ascii_case(".git")) {
        return Err(bad());
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Address, AddressError> {
        Address::parse(text, Path::new("/home/ada"))
    }

    #[test]
    fn addresses_are_told_apart() {
        let local = |path: &str| Transport::Local(path.into());
        for (text, transport, name) in [
            ("/srv/git/shop.git", local("/srv/git/shop.git"), "shop"),
            ("../shop/", local("/home/shop"), "shop"),
            ("./a:b", local("/home/ada/a:b"), "b"),
            ("shop/.git", local("/home/ada/shop/.git"), "shop"),
            ("file:///srv/a%20b", local("/srv/a b"), "a%20b"),
            ("https://example.org/shop.git", Transport::Https, "shop"),
            ("http://127.0.0.1:8000/shop", Transport::Http, "shop"),
            ("ssh://git@example.org:22/shop.git", Transport::Ssh, "shop"),
            ("git@example.org:team/shop.git", Transport::Ssh, "shop"),
        ] {
            let address = parse(text).unwrap();
            assert_eq!(*address.transport(), transport, "{text}");
            assert_eq!(address.base_name(), name, "{text}");
        }
    }

    #[test]
    fn what_could_run_a_program_is_refused() {
        for text in [
            "ext::sh -c 'touch /tmp/x'",
            "fd::7",
            "git://example.org/shop",
            "ftp://example.org/shop",
            "--upload-pack=touch /tmp/x",
            "-oProxyCommand=x:shop",
            "ssh://-oProxyCommand=x/shop",
            "git@-oProxyCommand=x:shop",
            "host:-x",
            "file://shop",
            "file:///srv/a%00b",
            "https:///shop",
            "a\nb",
            "",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(parse("https://me:token@example.org/shop"), Err(AddressError::Password));
    }

    #[test]
    fn branches_and_paths_are_checked() {
        for good in ["main", "release/1.2", "ä"] {
            check_branch(good).unwrap();
        }
        for bad in ["", "-x", "a..b", "a b", "a.lock", "/a", "a/", ".a", "a:b", "@", "a@{1}", "a*"]
        {
            assert!(check_branch(bad).is_err(), "{bad}");
        }
        assert_eq!(normal_path("./deploy//shop/").unwrap(), "deploy/shop");
        assert_eq!(normal_path("").unwrap(), "");
        for bad in ["/etc", "a/../../b", "a/.git", "a\0b"] {
            assert!(normal_path(bad).is_err(), "{bad}");
        }
    }
}
