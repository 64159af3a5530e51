//! Whether a commit is signed by somebody who may: with SSH keys (`ssh-keygen`) or `OpenPGP` (`gpg`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::git::{Git, GitError, bounded};

/// How long a check may take.
const BOUND: Duration = Duration::from_secs(60);
/// What a file of `OpenPGP` keys holds, where it is text.
const ARMOR: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----";

/// Who may sign commits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signers {
    /// A file of theirs: SSH's allowed signers, or `OpenPGP` keys as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// A keyring of `gpg`, with what it says of whom to trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gnupg: Option<PathBuf>,
}

/// Why a commit does not count as signed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignatureError {
    /// It is not, or by nobody who may.
    #[error("{0}")]
    Refused(String),
    /// Who may sign can't be read.
    #[error("{path} cannot be read, which says who may sign")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It can't be checked here.
    #[error("the signature cannot be checked")]
    Check(#[from] GitError),
}

/// Checks a commit's signature; by whom it is. `place` is a directory of Kiln's for what `gpg` needs.
pub(super) fn check(
    (git, git_dir): (&Git, &str),
    commit: &str,
    signers: &Signers,
    place: &Path,
) -> Result<String, SignatureError> {
    let raw = git.run([git_dir, "cat-file", "commit", commit], BOUND, 16 << 20)?;
    let kind = kind_of(&raw).ok_or_else(|| refused("the commit is not signed"))?;
    let mut git = git.clone();
    match kind {
        Kind::Ssh => {
            let file = signers.file.as_ref().ok_or_else(|| {
                refused("it is signed with an SSH key, and no file of allowed signers is named")
            })?;
            readable(file)?;
            git.settings.push(format!("gpg.ssh.allowedSignersFile={}", file.display()));
            git.settings.push("gpg.minTrustLevel=fully".to_owned());
        }
        Kind::OpenPgp => git.gnupg = Some(keyring(signers, place, &mut git)?),
    }
    let command = git.command([git_dir, "verify-commit", "--raw", commit]);
    let ended = bounded(command, "verify-commit", BOUND, 1 << 20)?;
    if !ended.status.success() {
        return Err(SignatureError::Refused(format!(
            "its signature does not count: {}",
            ended.said
        )));
    }
    Ok(signer(&ended.said))
}

fn refused(text: &str) -> SignatureError {
    SignatureError::Refused(text.to_owned())
}

/// How a commit is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ssh,
    OpenPgp,
}

/// How a commit is signed, by the header of its object; `None` where it is not.
fn kind_of(commit: &[u8]) -> Option<Kind> {
    let text = String::from_utf8_lossy(commit);
    let head = text.split("\n\n").next()?;
    let line = head.lines().find(|line| line.starts_with("gpgsig"))?;
    Some(if line.contains("BEGIN SSH SIGNATURE") { Kind::Ssh } else { Kind::OpenPgp })
}

/// The home of `gpg`: the one that was named, or one with the keys of the file alone.
fn keyring(signers: &Signers, place: &Path, git: &mut Git) -> Result<PathBuf, SignatureError> {
    let armored = |file: &&PathBuf| fs::read_to_string(file).is_ok_and(|text| text.contains(ARMOR));
    if let Some(file) = signers.file.as_ref().filter(armored) {
        let home = place.join("gnupg");
        // Keys that were taken out of the file must not count any more.
        let _ = fs::remove_dir_all(&home);
        let made = fs::create_dir_all(&home).and_then(|()| {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(&home, fs::Permissions::from_mode(0o700))
        });
        made.map_err(|source| SignatureError::File { path: home.clone(), source })?;
        let mut import = Command::new("gpg");
        import.env_clear().env("PATH", "/usr/bin:/bin:/usr/local/bin").env("GNUPGHOME", &home);
        import.args(["--batch", "--quiet", "--no-autostart", "--import", "--"]).arg(file);
        let ended = bounded(import, "gpg --import", BOUND, 1 << 20).map_err(no_gpg)?;
        if !ended.status.success() {
            return Err(SignatureError::Refused(format!(
                "the keys of {} cannot be taken in: {}",
                file.display(),
                ended.said
            )));
        }
        return Ok(home);
    }
    let home = signers.gnupg.clone().ok_or_else(|| {
        refused("it is signed with OpenPGP, and no file of OpenPGP keys is named with --signers")
    })?;
    git.settings.push("gpg.minTrustLevel=marginal".to_owned());
    Ok(home)
}

fn no_gpg(error: GitError) -> SignatureError {
    match error {
        GitError::NotInstalled => {
            refused("it is signed with OpenPGP, and gpg is not installed: `apt install gpg`")
        }
        error => error.into(),
    }
}

fn readable(path: &Path) -> Result<(), SignatureError> {
    let opened = fs::File::open(path).map(drop);
    opened.map_err(|source| SignatureError::File { path: path.to_owned(), source })
}

/// The signer, in the words of `ssh-keygen` or `gpg`.
fn signer(said: &str) -> String {
    if let Some((_, rest)) = said.split_once("signature for ") {
        return rest.split(" with ").next().unwrap_or(rest).to_owned();
    }
    // `[GNUPG:] GOODSIG KEYID USER`.
    let good = said.split("; ").find_map(|line| line.split_once("GOODSIG "));
    let user = good.and_then(|(_, rest)| rest.split_once(' ')).map(|(_, user)| user.to_owned());
    user.unwrap_or_else(|| "a known key".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_commit_is_signed_stands_in_its_head() {
        let of = |text: &str| kind_of(text.as_bytes());
        let head = "tree 0\nauthor a\n";
        assert_eq!(of(&format!("{head}\nmessage\ngpgsig -----BEGIN SSH SIGNATURE-----")), None);
        let ssh = format!("{head}gpgsig -----BEGIN SSH SIGNATURE-----\n abc\n\nmessage\n");
        assert_eq!(of(&ssh), Some(Kind::Ssh));
        let pgp = format!("{head}gpgsig-sha256 -----BEGIN PGP SIGNATURE-----\n abc\n\nmessage\n");
        assert_eq!(of(&pgp), Some(Kind::OpenPgp));
    }

    #[test]
    fn the_signer_is_named() {
        let ssh = "Good \"git\" signature for ada@example.org with ED25519 key SHA256:x";
        assert_eq!(signer(ssh), "ada@example.org");
        let pgp = "[GNUPG:] NEWSIG; [GNUPG:] GOODSIG 0123 Ada <ada@example.org>; [GNUPG:] X";
        assert_eq!(signer(pgp), "Ada <ada@example.org>");
    }
}
