//! From a commit to a proposal: checked, written out, evaluated, locked, built.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use kiln_image::build::BuildError;
use kiln_image::lock::{FILE_NAME, Lock};
use kiln_image::progress::Event;
use kiln_image::trial::{Stop, TestReport};
use kiln_model::generation::Origin;
use kiln_model::name::{ComponentId, StackName};

use crate::api::Apply;
use crate::ledger::{Ledger, LedgerError};
use crate::prepare::{Draft, Home, HomeError, ImageProgress, PrepareError, Source};
use crate::root::Root;
use crate::server::chain;

use super::address::Address;
use super::mirror::Mirror;
use super::registry::{Follow, Registry};
use super::signature::{self, SignatureError};
use super::tree;

/// The longest reason that is kept, in characters.
const MAX_REASON: usize = 4_000;

/// Why a commit was not proposed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The commit is bad.
    Bad(String),
    /// Something that may pass; after a few tries it counts as the commit's fault.
    Doubtful(String),
    /// Something that is not the commit's fault.
    Passing(String),
}

impl Failure {
    /// A commit that is bad, the reason within bounds.
    pub(super) fn bad(reason: &str) -> Self {
        Self::Bad(reason.trim_end().chars().take(MAX_REASON).collect())
    }
}

/// What commits are prepared with.
pub(super) struct Preparation<'a> {
    pub(super) root: &'a Root,
    pub(super) ledger: &'a Ledger,
    pub(super) registry: &'a Registry,
    pub(super) id: &'a str,
    pub(super) follow: &'a Follow,
    pub(super) address: &'a Address,
    pub(super) mirror: &'a Mirror,
    /// The stack that earlier commits declared.
    pub(super) stack: Option<&'a StackName>,
    pub(super) stop: &'a Stop,
}

/// A commit that can be proposed.
pub(super) struct Prepared {
    pub(super) stack: StackName,
    pub(super) home: Home,
    pub(super) proposal: Apply,
}

/// What is known of a commit once it lies in a directory.
#[derive(Debug, Clone, Default)]
pub(super) struct Checked {
    pub(super) signed_by: Option<String>,
    pub(super) notes: Vec<String>,
    /// The lock that the commit came with.
    lock: Lock,
}

impl Preparation<'_> {
    /// Where the files of commits are written out.
    fn tree(&self) -> PathBuf {
        let last = self.follow.path.rsplit('/').next().filter(|part| !part.is_empty());
        let name = last.unwrap_or_else(|| self.address.base_name());
        place(self.root, self.id).join("tree").join(name)
    }

    /// Checks the signature where one is required, and writes the files out.
    pub(super) fn check_out(&self, commit: &str) -> Result<Checked, Failure> {
        let (git, directory) = self.mirror.offline();
        let mut checked = Checked::default();
        if let Some(signers) = &self.follow.signers {
            let place = place(self.root, self.id);
            let signer = signature::check((&git, &directory), commit, signers, &place);
            checked.signed_by = Some(signer.map_err(|error| match &error {
                SignatureError::Refused(_) => Failure::bad(&chain(&error)),
                _ => Failure::Passing(chain(&error)),
            })?);
        }
        let to = self.tree();
        let unusable = |error: std::io::Error| {
            Failure::Passing(format!("{} cannot be written: {error}", to.display()))
        };
        // Whatever was called there before, by an earlier commit or another path, goes.
        let above = place(self.root, self.id).join("tree");
        if above.exists() {
            fs::remove_dir_all(&above).map_err(unusable)?;
        }
        let empty = tree::write_out((&git, &directory), commit, &self.follow.path, &to);
        let empty = empty.map_err(|error| {
            let text = chain(&error);
            if error.is_of_the_commit() { Failure::bad(&text) } else { Failure::Passing(text) }
        })?;
        if !empty.is_empty() {
            let text = "submodules are not followed, their directories stay empty";
            checked.notes.push(format!("{text}: {}", empty.join(", ")));
        }
        checked.lock = self.bring_lock()?;
        Ok(checked)
    }

    /// Completes the commit's lock from the one that is kept beside: what an earlier commit needed
    /// and did not lock stays as it was chosen then. The lock that the commit came with.
    fn bring_lock(&self) -> Result<Lock, Failure> {
        let (tree, kept) = (self.tree(), self.registry.place(self.id));
        let own = Lock::load(&kept).map_err(|error| Failure::Passing(chain(&error)))?;
        let lock = Lock::load(&tree).map_err(|error| Failure::bad(&chain(&error)))?;
        let mut whole = lock.clone();
        if whole.complete_from(&own) {
            whole.save(&tree).map_err(|error| Failure::Passing(chain(&error)))?;
        }
        Ok(lock)
    }

    /// Plans, locks and builds what was checked out.
    pub(super) fn prepare(&self, commit: &str) -> Result<Prepared, Failure> {
        let (root, told) = (self.root.path(), Quiet);
        let mut draft = Draft::new(&self.source(), Some(self.ledger)).map_err(judge)?;
        self.check_name(&draft.stack)?;
        let home = self.home();
        home.check(self.root, &draft.stack, self.may_adopt(&draft.stack)?).map_err(|error| {
            let text = chain(&error);
            match error {
                HomeError::Elsewhere { .. } => {
                    Failure::bad(&format!("{text}; follow it with --adopt to take it over"))
                }
                HomeError::Unusable { .. } => Failure::Passing(text),
            }
        })?;
        draft.lock(root, false, &told).map_err(judge)?;
        draft.check_room().map_err(judge)?;
        let built = draft.build(root, None, &told, self.stop).map_err(judge)?;
        if draft.save_lock().map_err(judge)? {
            let kept = self.registry.place(self.id).join(FILE_NAME);
            let copied = fs::copy(self.tree().join(FILE_NAME), &kept);
            copied
                .map_err(|e| Failure::Passing(format!("cannot write {}: {e}", kept.display())))?;
        }
        draft.keep_secrets(self.ledger).map_err(judge)?;
        let proposal = Apply {
            content: draft.content(Draft::contents(&built)).map_err(judge)?,
            parent: draft.parent.as_ref().map(|parent| parent.number),
            origin: Origin::Follow,
            commit: Some(commit.to_owned()),
            cause: None,
        };
        Ok(Prepared { stack: draft.stack, home, proposal })
    }

    /// What the lock of a commit that was prepared lacks, in words.
    pub(super) fn lock_note(&self, checked: &Checked) -> Option<String> {
        let used = Lock::load(&self.tree()).ok()?;
        checked.lock.clone().complete_from(&used).then(|| {
            format!(
                "the commit's {FILE_NAME} lacks what its images need: it was resolved here and is \
                 kept in {}; `kiln image lock` writes one to commit",
                self.registry.place(self.id).join(FILE_NAME).display()
            )
        })
    }

    fn source(&self) -> Source {
        let directory = self.tree();
        Source {
            caller: directory.clone(),
            directory,
            vars: self.follow.vars.clone(),
            var_files: self.follow.var_files.clone(),
            env: BTreeMap::new(),
            secret_directories: Some(self.follow.secrets.clone()),
        }
    }

    /// A branch is the source of one stack, and a stack has one branch.
    fn check_name(&self, stack: &StackName) -> Result<(), Failure> {
        if let Some(known) = self.stack.filter(|known| *known != stack) {
            return Err(Failure::bad(&format!(
                "it calls the stack {stack}, and it was {known} so far; to rename it, end the \
                 following, retire {known} and follow the branch anew"
            )));
        }
        let passing = |error: super::registry::RegistryError| Failure::Passing(chain(&error));
        for id in self.registry.ids().map_err(passing)? {
            if id != self.id
                && self.registry.record(&id).map_err(passing)?.stack.as_ref() == Some(stack)
            {
                let other = self.registry.follow(&id).map_err(passing)?;
                let other = other.map(|f| format!("{} of {}", f.branch, f.url)).unwrap_or_default();
                return Err(Failure::bad(&format!("stack {stack} follows {other} already")));
            }
        }
        Ok(())
    }

    /// Where the stack lives: in the directory that is followed, where it is one that a person
    /// works in; else in the repository.
    fn home(&self) -> Home {
        let worked_in = self.worked_in();
        Home {
            directory: worked_in.unwrap_or_else(|| self.tree()),
            remote: Some(self.address.to_string()),
            path: Some(match self.follow.path.as_str() {
                "" => String::new(),
                path => format!("{path}/"),
            }),
        }
    }

    /// The stack's directory in a repository of this machine that has its files laid out.
    fn worked_in(&self) -> Option<PathBuf> {
        let local = self.address.local().filter(|local| local.join(".git").exists())?;
        fs::canonicalize(local.join(&self.follow.path)).ok()
    }

    /// Whether a stack may be taken over: the first time, where that was asked for.
    fn may_adopt(&self, stack: &StackName) -> Result<bool, Failure> {
        let known = Home::known(self.root, stack).map_err(|e| Failure::Passing(chain(&e)))?;
        let same = known.is_some_and(|known| Some(known.directory) == self.worked_in());
        Ok(same || (self.follow.adopt && self.stack.is_none()))
    }
}

/// Where a follow keeps what it can make again.
pub(super) fn place(root: &Root, id: &str) -> PathBuf {
    root.path().join("cache/follow").join(id)
}

/// Nobody watches the builds of a follow; how they end is what counts.
struct Quiet;

impl ImageProgress for Quiet {
    fn event(&self, image: Option<&ComponentId>, event: Event<'_>) {
        if let (Some(image), Event::Warning(text)) = (image, event) {
            super::worker::say(&format!("{image}: warning: {text}"));
        }
    }
}

/// Whose fault an error is.
fn judge(error: PrepareError) -> Failure {
    let text = match &error {
        PrepareError::Configuration(report) => return Failure::bad(&report.render(false)),
        PrepareError::Tests { reports, .. } => {
            let complaints = reports.iter().flat_map(TestReport::complaints);
            std::iter::once(error.to_string()).chain(complaints).collect::<Vec<_>>().join("\n")
        }
        error => chain(error),
    };
    // A full disk says nothing about the commit.
    let full = ["No space left on device", "disk is full"].iter().any(|sign| text.contains(sign));
    match error {
        _ if full => Failure::Passing(text),
        PrepareError::Ledger(LedgerError::Store(_) | LedgerError::Unreadable { .. })
        | PrepareError::Program(_)
        | PrepareError::Home(HomeError::Unusable { .. }) => Failure::Passing(text),
        PrepareError::Tests { ref reports, .. }
            if reports.iter().any(TestReport::was_interrupted) =>
        {
            Failure::Passing(text)
        }
        PrepareError::Lock(_) | PrepareError::Pin(_) | PrepareError::NoMemory(_) => {
            Failure::Doubtful(text)
        }
        PrepareError::Build(ref build) if matches!(**build, BuildError::Fetch(_)) => {
            Failure::Doubtful(text)
        }
        PrepareError::Images(_) | PrepareError::Admission(_) => Failure::Doubtful(text),
        _ => Failure::bad(&text),
    }
}
