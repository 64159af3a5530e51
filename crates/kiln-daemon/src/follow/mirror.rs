//! A bare repository of Kiln's own that has the history of one branch, and what it says of commits.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::address::{Address, Transport};
use super::git::{Git, GitError};

/// How long a repository may take to say where its branch is.
const ASK_BOUND: Duration = Duration::from_secs(60);
/// How long a fetch may take.
const FETCH_BOUND: Duration = Duration::from_secs(1_800);
/// How long a question to the mirror may take.
const LOCAL_BOUND: Duration = Duration::from_secs(60);
/// The most bytes of a short answer.
const SHORT: u64 = 1 << 20;
/// The longest subject of a commit that is kept, in characters.
const MAX_SUBJECT: usize = 120;
/// Where the mirror keeps what was fetched last.
const TIP: &str = "refs/kiln/tip";

/// How a repository lets itself be read.
#[derive(Debug, Clone, Default)]
pub(super) struct Access {
    /// The key that SSH offers.
    pub(super) identity: Option<PathBuf>,
    /// The file that holds a token for HTTP.
    pub(super) token_file: Option<PathBuf>,
}

/// Why a branch could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum MirrorError {
    /// The other side can't be reached, or refuses.
    #[error("{url} cannot be read")]
    Unreachable {
        url: String,
        #[source]
        source: GitError,
    },
    /// What the other side sent is damaged or made to do harm.
    #[error("{url} sends objects that do not pass git's checks: {said}")]
    Lies { url: String, said: String },
    /// The mirror itself.
    #[error("the mirror {path} cannot be used")]
    Mirror {
        path: PathBuf,
        #[source]
        source: GitError,
    },
    /// A file or directory of Kiln's, or the token's.
    #[error("{path} cannot be used")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A commit as it is spoken of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Commit {
    /// Its name in full.
    pub(super) id: String,
    /// The first line of its message.
    pub(super) subject: String,
}

/// The mirror of one branch.
#[derive(Debug)]
pub(super) struct Mirror {
    address: Address,
    branch: String,
    access: Access,
    /// The directory above the mirror.
    place: PathBuf,
}

impl Mirror {
    /// The mirror below `place`, which exists and is this process's alone.
    pub(super) fn new(address: Address, branch: &str, access: Access, place: &Path) -> Self {
        Self { address, branch: branch.to_owned(), access, place: place.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.place.join("repository")
    }

    /// Removes the locks of a fetch that was cut off.
    pub(super) fn unlock(&self) {
        for name in ["config.lock", "packed-refs.lock", "shallow.lock", "refs/kiln/tip.lock"] {
            // What is not there need not be removed.
            let _ = fs::remove_file(self.path().join(name));
        }
    }

    /// Where the branch is now; `None` where there is no such branch.
    pub(super) fn tip(&self) -> Result<Option<String>, MirrorError> {
        let name = format!("refs/heads/{}", self.branch);
        let url = self.address.for_git();
        let mut arguments = vec!["ls-remote", "--quiet"];
        let reader = self.reader();
        arguments.extend(reader.as_deref());
        arguments.extend(["--", &url, &name]);
        let answer = self.online()?.run(arguments, ASK_BOUND, SHORT);
        let answer = answer.map_err(|source| self.unreachable(source))?;
        let text = String::from_utf8_lossy(&answer);
        let found = text.lines().find_map(|line| {
            let (id, found) = line.split_once('\t')?;
            (found == name && is_id(id)).then(|| id.to_owned())
        });
        Ok(found)
    }

    /// Fetches the branch; the commit that it is at.
    pub(super) fn fetch(&self, expected: &str) -> Result<String, MirrorError> {
        self.prepare(expected)?;
        let (path, url) = (self.path().display().to_string(), self.address.for_git());
        let directory = format!("--git-dir={path}");
        let what = format!("+refs/heads/{}:{TIP}", self.branch);
        let mut arguments = vec![directory.as_str(), "fetch", "--quiet", "--no-tags"];
        arguments.extend(["--no-recurse-submodules", "--no-write-fetch-head"]);
        arguments.extend(["--no-auto-maintenance", "--refmap="]);
        let reader = self.reader();
        arguments.extend(reader.as_deref());
        arguments.extend(["--", &url, &what]);
        self.online()?.run(arguments, FETCH_BOUND, SHORT).map_err(|source| {
            let url = self.address.to_string();
            match source {
                GitError::Failed { said, .. } if is_a_lie(&said) => MirrorError::Lies { url, said },
                source => MirrorError::Unreachable { url, source },
            }
        })?;
        self.ask(["rev-parse", "--verify", TIP])
    }

    /// Whether `older` is in the history of `newer`.
    pub(super) fn is_ancestor(&self, older: &str, newer: &str) -> bool {
        self.ask(["merge-base", "--is-ancestor", older, newer]).is_ok()
    }

    /// A commit that was fetched.
    pub(super) fn commit(&self, id: &str) -> Result<Commit, MirrorError> {
        let text = self.ask(["cat-file", "commit", id])?;
        let message = text.split_once("\n\n").map_or("", |(_, message)| message);
        let subject = message.lines().next().unwrap_or_default().trim();
        let subject = subject.chars().filter(|c| !c.is_control()).take(MAX_SUBJECT).collect();
        Ok(Commit { id: id.to_owned(), subject })
    }

    /// Puts together what many fetches have left, where there is much of it.
    pub(super) fn tidy(&self) {
        // The mirror serves as well untidy.
        let _ = self.ask(["gc", "--auto", "--quiet"]);
    }

    /// Git for this mirror, without a transport, its directory as the first argument.
    pub(super) fn offline(&self) -> (Git, String) {
        (Git::offline(&self.place), format!("--git-dir={}", self.path().display()))
    }

    fn ask<const N: usize>(&self, arguments: [&str; N]) -> Result<String, MirrorError> {
        let (git, directory) = self.offline();
        let arguments = std::iter::once(directory.as_str()).chain(arguments);
        let answer = git.run(arguments.collect::<Vec<_>>(), LOCAL_BOUND, SHORT);
        let answer = answer.map_err(|source| MirrorError::Mirror { path: self.path(), source })?;
        Ok(String::from_utf8_lossy(&answer).trim_end().to_owned())
    }

    /// Makes the mirror, of the object format that `id` is of.
    fn prepare(&self, id: &str) -> Result<(), MirrorError> {
        let path = self.path();
        let format = if id.len() == 64 { "sha256" } else { "sha1" };
        if path.join("HEAD").exists() {
            let found = self.ask(["rev-parse", "--show-object-format"]);
            if found.is_ok_and(|found| found == format) {
                return Ok(());
            }
            // Cut off while it was made, or the repository is another one now.
            let failed = |source| MirrorError::File { path: path.clone(), source };
            fs::remove_dir_all(&path).map_err(failed)?;
        }
        let (git, place) = (Git::offline(&self.place), path.display().to_string());
        let format = format!("--object-format={format}");
        let arguments = ["init", "--quiet", "--bare", "--template=", &format, &place];
        git.run(arguments, LOCAL_BOUND, SHORT)
            .map(drop)
            .map_err(|source| MirrorError::Mirror { path, source })
    }

    /// Git with the transport of the address, and what lets it in.
    fn online(&self) -> Result<Git, MirrorError> {
        let mut git = Git::offline(&self.place);
        git.protocol = Some(self.address.protocol());
        if let (Transport::Ssh, Some(key)) = (self.address.transport(), &self.access.identity) {
            let key = key.display().to_string().replace('\'', r"'\''");
            git.settings.push(format!(
                "core.sshCommand=ssh -o BatchMode=yes -o StrictHostKeyChecking=yes \
                 -o ConnectTimeout=20 -o IdentitiesOnly=yes -i '{key}'"
            ));
        }
        if let Some(path) = &self.access.token_file {
            let failed = |source| MirrorError::File { path: path.clone(), source };
            let token = fs::read_to_string(path).map_err(failed)?;
            git.secret_settings.push(("http.extraHeader".to_owned(), basic(token.trim())));
            // A token is for the host that was named, not for one that it leads to.
            git.settings.push("http.followRedirects=false".to_owned());
        }
        Ok(git)
    }

    /// How the other side is started, where it is a directory of this machine that belongs to
    /// somebody else: with that user's rights, so that what they have put there can do no more than
    /// they can.
    fn reader(&self) -> Option<String> {
        use std::os::unix::fs::MetadataExt as _;

        let owner = fs::metadata(self.address.local()?).ok()?;
        let own = rustix::process::geteuid().as_raw();
        (own == 0 && owner.uid() != 0).then(|| {
            format!(
                "--upload-pack=setpriv --reuid={} --regid={} --clear-groups --no-new-privs \
                 git-upload-pack",
                owner.uid(),
                owner.gid()
            )
        })
    }

    fn unreachable(&self, source: GitError) -> MirrorError {
        MirrorError::Unreachable { url: self.address.to_string(), source }
    }
}

/// The header that carries a token: `USER:TOKEN`, or a token alone.
fn basic(token: &str) -> String {
    use base64::Engine as _;

    let pair =
        if token.contains(':') { token.to_owned() } else { format!("x-access-token:{token}") };
    format!("Authorization: Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

/// Whether a text is the full name of an object.
fn is_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether what git said of a fetch is about what it was sent, and not about the way to it.
fn is_a_lie(said: &str) -> bool {
    let signs = [
        "fsck error",
        "index-pack",
        "unpack-objects",
        "is corrupt",
        "inflate",
        "bad object",
        "loose object",
        "did not send all necessary objects",
        "hash mismatch",
        "missing necessary objects",
        "not a valid object",
        "bad pack header",
    ];
    signs.iter().any(|sign| said.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_alone_gets_a_user() {
        assert_eq!(basic("a:b"), "Authorization: Basic YTpi");
        assert_eq!(basic("t"), "Authorization: Basic eC1hY2Nlc3MtdG9rZW46dA==");
    }

    #[test]
    fn names_of_objects_are_in_full() {
        assert!(is_id(&"a1".repeat(20)) && is_id(&"0f".repeat(32)));
        assert!(!is_id("abc") && !is_id(&"G1".repeat(20)));
    }
}
