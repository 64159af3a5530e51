//! What happens before a generation is committed, in the process of whoever asks for it:
//! evaluating the stack, locking and building its images, keeping its secrets, sealing.
//!
//! A [`Draft`] is a stack against what it would replace. It is all that `plan` needs, and comes
//! from reading alone. [`Draft::lock`], [`Draft::build`] and [`Draft::keep_secrets`] touch the
//! stack's `kiln.lock`, the image store and the secrets of the root, never a generation.

mod admission;
mod home;
mod images;
mod rebuild;
mod room;
mod secrets;
mod surroundings;
mod workshop;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_config::diagnostic::Report;
use kiln_config::stack::{self, Inputs, SecretValue};
use kiln_engine::journal::State;
use kiln_image::admission::AdmitError;
use kiln_image::build::BuildError;
use kiln_image::lock::{Lock, LockFileError, PinError, ResolveRequestError};
use kiln_image::store::StoreError as ImageStoreError;
use kiln_image::trial::TestReport;
use kiln_model::address::Offsets;
use kiln_model::alarm::Hooks;
use kiln_model::change::{Change, changes};
use kiln_model::digest::Digest;
use kiln_model::generation::{Component, Content, Generation, Output};
use kiln_model::name::{ComponentId, StackName};
use kiln_model::seal::{SealError, Sealed, seal};
use kiln_model::spec::Spec;
use kiln_model::trust::Demands;

use crate::ledger::{Ledger, LedgerError};

pub use home::{Home, HomeError};
pub use images::{ImageProgress, Upgrade};
pub use room::{NoMemory, NotCarried, carried};
pub use workshop::Tested;

/// Which stack, and what is said about it from outside.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// The stack's directory.
    pub directory: PathBuf,
    /// Where `var_files` are relative to.
    pub caller: PathBuf,
    /// `--var name=value`, in order.
    pub vars: Vec<String>,
    /// `--var-file`, in order.
    pub var_files: Vec<PathBuf>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// Where files of secrets may lie besides the stack's directory; `None`: anywhere.
    pub secret_directories: Option<Vec<PathBuf>>,
}

/// Why nothing can be committed.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The configuration.
    #[error("the configuration of the stack has errors")]
    Configuration(Box<Report>),
    /// What is declared does not fit together.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Seal(Vec<SealError>),
    /// The store.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The lock's file.
    #[error(transparent)]
    LockFile(#[from] LockFileError),
    /// What an image asks for can't be resolved.
    #[error("the images cannot be locked")]
    Lock(#[from] ResolveRequestError),
    /// What a reference to a registry stands for can't be found out.
    #[error("the images cannot be locked")]
    Pin(#[from] PinError),
    /// An image can't be built.
    #[error(transparent)]
    Build(#[from] Box<BuildError>),
    /// An image can't be admitted.
    #[error(transparent)]
    Admission(#[from] Box<AdmitError>),
    /// Not all tests of an image have passed.
    #[error(
        "{image} is not admitted: {} of {} tests have not passed",
        .reports.iter().filter(|report| !report.passed).count(),
        .reports.len()
    )]
    Tests {
        /// The image.
        image: ComponentId,
        /// What came of each test.
        reports: Vec<TestReport>,
    },
    /// An image holds what the stack does not allow in it.
    #[error("{image} is not admitted: it holds {what}, and its `surface` is \"deny\"")]
    Surface {
        /// The image.
        image: ComponentId,
        /// What was found, in words.
        what: String,
    },
    /// The index of images leads from a recipe to what another one makes.
    #[error(
        "{image} is not admitted: {index} leads to {digest}, which this root has admitted as what \
         another recipe makes and never as this one's; it was tampered with, or its tests failed"
    )]
    Swapped {
        /// The image.
        image: ComponentId,
        /// What the index leads to.
        digest: Digest,
        /// The file.
        index: PathBuf,
    },
    /// The running program's own file can't be found.
    #[error("this program cannot be found")]
    Program(#[source] std::io::Error),
    /// The image store.
    #[error("the image store cannot be used")]
    Images(#[from] ImageStoreError),
    /// A component's digest is not known although everything was made that could be.
    #[error("{0}")]
    Unknown(kiln_model::seal::Unknown),
    /// A network's range is too small.
    #[error(transparent)]
    NoAddresses(#[from] kiln_model::address::NoRoom),
    /// There is not enough memory.
    #[error(transparent)]
    NoMemory(#[from] NoMemory),
    /// Data cannot be carried to what is wanted.
    #[error(transparent)]
    NotCarried(#[from] NotCarried),
    /// Where the stack lives.
    #[error(transparent)]
    Home(#[from] HomeError),
}

/// A stack against what it would replace.
pub struct Draft {
    /// The stack's name.
    pub stack: StackName,
    /// Its directory.
    pub directory: PathBuf,
    /// What the journal says; that of nothing where the stack was never applied.
    pub state: State,
    /// The generation that serves, against which this is compared.
    pub parent: Option<Arc<Generation>>,
    /// Warnings of the configuration.
    pub warnings: Report,
    /// The outputs.
    pub outputs: BTreeMap<String, Output>,
    specs: Vec<Spec>,
    offsets: Offsets,
    demands: Demands,
    hooks: Hooks,
    secrets: BTreeMap<ComponentId, SecretValue>,
    lock: Lock,
    locked: Lock,
    /// The specs sealed, until one of them is changed.
    sealed: OnceCell<BTreeMap<ComponentId, Sealed>>,
}

impl Draft {
    /// Evaluates a stack. `ledger` is the store of the root, where there is one.
    pub fn new(source: &Source, ledger: Option<&Ledger>) -> Result<Self, PrepareError> {
        let lock = Lock::load(&source.directory)?;
        let stack = load(source, ledger, &lock)?;
        let (state, parent) = match ledger {
            Some(ledger) => (ledger.state(&stack.name)?, ledger.active(&stack.name)?),
            None => (State::default(), None),
        };
        let mut draft = Self {
            stack: stack.name,
            directory: source.directory.clone(),
            state,
            parent,
            warnings: stack.report,
            outputs: stack.outputs,
            specs: stack.specs,
            offsets: stack.offsets,
            demands: stack.demands,
            hooks: stack.hooks,
            secrets: stack.secrets,
            locked: lock.clone(),
            lock,
            sealed: OnceCell::new(),
        };
        draft.carry_generated_secrets();
        Ok(draft)
    }

    /// The number that the next generation would get.
    pub fn next_number(&self) -> u64 {
        self.state.newest + 1
    }

    /// The specs with what is known of their digests.
    pub fn seal(&self) -> Result<&BTreeMap<ComponentId, Sealed>, PrepareError> {
        if let Some(sealed) = self.sealed.get() {
            return Ok(sealed);
        }
        let sealed = seal(self.specs.clone()).map_err(PrepareError::Seal)?;
        Ok(self.sealed.get_or_init(|| sealed))
    }

    /// What it changes.
    pub fn changes(&self) -> Result<Vec<Change>, PrepareError> {
        let nothing = Content::default();
        let before = self.parent.as_ref().map_or(&nothing, |parent| &parent.content);
        Ok(changes(before, self.seal()?))
    }

    /// Whether `other` holds the same.
    pub fn is_content_of(&self, other: &Generation) -> Result<bool, PrepareError> {
        let same = changes(&other.content, self.seal()?).iter().all(|c| !c.is_difference());
        let other = &other.content;
        Ok(same
            && other.outputs == self.outputs
            && other.offsets == self.offsets
            && other.demands == self.demands
            && other.hooks == self.hooks)
    }

    /// The content, with what was built of each image. Locks and secrets must have been settled.
    pub fn content(
        &self,
        images: BTreeMap<ComponentId, kiln_model::digest::Digest>,
    ) -> Result<Content, PrepareError> {
        let mut components = BTreeMap::new();
        for (id, sealed) in self.seal()? {
            let digest = sealed.digest.clone().map_err(PrepareError::Unknown)?;
            components.insert(id.clone(), Component { digest, spec: sealed.spec.clone() });
        }
        let (offsets, outputs) = (self.offsets.clone(), self.outputs.clone());
        let (demands, hooks) = (self.demands.clone(), self.hooks.clone());
        // Where data goes on is not declared; it stays where it is.
        let data = BTreeMap::new();
        Ok(Content { components, images, offsets, outputs, demands, hooks, data })
    }
}

fn load(
    source: &Source,
    ledger: Option<&Ledger>,
    lock: &Lock,
) -> Result<stack::Stack, PrepareError> {
    let inputs = Inputs {
        directory: source.directory.clone(),
        directory_of_caller: source.caller.clone(),
        vars: source.vars.clone(),
        var_files: source.var_files.clone(),
        env: source.env.clone(),
        secret_directories: source.secret_directories.clone(),
        ..Inputs::default()
    };
    let around = surroundings::Around::new(&source.directory, lock, ledger);
    stack::load(&inputs, &around).map_err(|report| PrepareError::Configuration(Box::new(report)))
}

/// The commit that `directory` is at, where it is in a git repository.
pub fn commit_of(directory: &Path) -> Option<String> {
    home::git(directory, &["rev-parse", "HEAD"])
}
