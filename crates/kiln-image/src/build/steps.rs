//! The steps of a recipe, done to the tree in their order.

mod take;

use std::collections::BTreeMap;
use std::path::Path;

use kiln_model::digest::Digest;
use kiln_model::name::ComponentId;
use kiln_model::spec::image::{Recipe, Step};

use super::run::{self, Ground, Program, RunError};
use crate::copy::{self, CopiedKind, CopyError, time_of};
use crate::rootfs::Rootfs;
use crate::rootfs::accounts::AccountError;
use crate::tree::{Inode, Metadata, Tree, TreeError};

/// A step that can't be done.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A copy can't be made.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// Something has no place in the tree.
    #[error("{step} \"{path}\"")]
    Place {
        /// The kind of the step.
        step: &'static str,
        /// Where it was to go.
        path: String,
        /// Why.
        source: TreeError,
    },
    /// An owner is not there, or can't be added.
    #[error("{step} \"{path}\"")]
    Account {
        /// The kind of the step.
        step: &'static str,
        /// The path or name that it is about.
        path: String,
        /// Why.
        source: AccountError,
    },
    /// A mode has other bits than permissions.
    #[error(
        "{step} \"{path}\": the mode {mode:#o} has bits beyond 01777; set-id programs gain no rights in an instance"
    )]
    Mode {
        /// The kind of the step.
        step: &'static str,
        /// Where it was to go.
        path: String,
        /// The mode.
        mode: u32,
    },
    /// A program of the image has not done its work.
    #[error(transparent)]
    Run(#[from] Box<RunError>),
    /// The image to copy from has not been built.
    #[error("{0} is not built yet; build it first")]
    NoImage(ComponentId),
    /// There is nothing to copy in another image.
    #[error("copy \"{path}\": {image} has nothing there")]
    NotThere {
        /// The path in the other image.
        path: String,
        /// The other image.
        image: ComponentId,
    },
    /// The image's own files have no place.
    #[error("the image's accounts and mount points can't be put in place")]
    Own(#[from] TreeError),
}

/// What steps bring files from.
pub(super) struct Materials<'a> {
    /// The stack's directory.
    pub(super) stack: &'a Path,
    /// The files of other images of the stack.
    pub(super) others: &'a BTreeMap<ComponentId, Tree>,
}

/// Does all steps, then writes the accounts and makes the writable places. Programs run on the
/// given ground.
pub(super) fn apply(
    root: &mut Rootfs,
    recipe: &Recipe,
    materials: &Materials<'_>,
    ground: &Ground<'_>,
) -> Result<(), StepError> {
    // Users first: a step may give files to a user that a later one adds.
    for step in &recipe.steps {
        if let Step::User { name, uid, home } = step {
            let added = root.accounts.add(name, *uid, home.as_deref());
            added.map_err(|source| StepError::Account {
                step: "user",
                path: name.clone(),
                source,
            })?;
        }
    }
    for step in &recipe.steps {
        if let Step::Group { name, gid } = step {
            let added = root.accounts.add_group(name, *gid);
            added.map_err(|source| StepError::Account {
                step: "group",
                path: name.clone(),
                source,
            })?;
        }
    }
    root.write_accounts()?;
    for step in &recipe.steps {
        apply_step(root, step, materials, ground)?;
    }
    for path in recipe.writable.keys().chain(&recipe.workdir) {
        if root.tree.resolve(path).is_err() {
            root.tree.make_directories(path, &Metadata::new(0o755))?;
        }
    }
    Ok(())
}

/// One step's place, owner and mode.
struct Target<'a> {
    step: &'static str,
    path: &'a str,
    uid: u32,
    gid: u32,
}

impl<'a> Target<'a> {
    fn new(
        root: &Rootfs,
        step: &'static str,
        path: &'a str,
        owner: Option<&String>,
    ) -> Result<Self, StepError> {
        let resolved = owner.map_or(Ok((0, 0)), |owner| root.accounts.resolve(owner));
        let (uid, gid) = resolved.map_err(|source| StepError::Account {
            step,
            path: path.to_owned(),
            source,
        })?;
        Ok(Self { step, path, uid, gid })
    }

    fn metadata(&self, mode: u32) -> Result<Metadata, StepError> {
        let bits = u16::try_from(mode).ok().filter(|bits| *bits & !0o1777 == 0);
        let bits = bits.ok_or_else(|| StepError::Mode {
            step: self.step,
            path: self.path.to_owned(),
            mode,
        })?;
        Ok(Metadata::new(bits).owned_by(self.uid, self.gid))
    }

    /// Puts something at a path, with the directories above it.
    fn put(&self, tree: &mut Tree, path: &[u8], inode: Inode) -> Result<(), StepError> {
        let mut placed = Ok(());
        if let Some(slash) = path.iter().rposition(|c| *c == b'/').filter(|slash| *slash > 0) {
            placed = tree.make_directories(&path[..slash], &Metadata::new(0o755)).map(drop);
        }
        placed.and_then(|()| tree.replace(path, inode)).map(drop).map_err(|source| {
            StepError::Place { step: self.step, path: self.path.to_owned(), source }
        })
    }
}

fn apply_step(
    root: &mut Rootfs,
    step: &Step,
    materials: &Materials<'_>,
    ground: &Ground<'_>,
) -> Result<(), StepError> {
    match step {
        Step::User { .. } | Step::Group { .. } => Ok(()),
        Step::Take { image, from, to, owner, mode } => {
            let other = materials.others.get(&image.id);
            let other = other.ok_or_else(|| StepError::NoImage(image.id.clone()))?;
            take::take(root, other, &take::Order { image: &image.id, from, to, owner, mode: *mode })
        }
        Step::Run { name, command, env, user, workdir, network } => {
            let program = Program {
                name,
                command,
                env,
                user: user.as_deref(),
                workdir: workdir.as_deref().unwrap_or("/"),
                network: *network,
            };
            Ok(run::run(root, &program, ground).map_err(Box::new)?)
        }
        Step::Symlink { path, target } => {
            let place = Target::new(root, "symlink", path, None)?;
            let link = Inode::symlink(place.metadata(0o777)?, target);
            place.put(&mut root.tree, path.as_bytes(), link)
        }
        Step::Directory { path, owner, mode } => {
            let place = Target::new(root, "directory", path, owner.as_ref())?;
            let directory = Inode::directory(place.metadata(mode.unwrap_or(0o755))?);
            place.put(&mut root.tree, path.as_bytes(), directory)
        }
        Step::File { path, content, owner, mode } => {
            let place = Target::new(root, "file", path, owner.as_ref())?;
            let time = time_of(&Digest::of(content.as_bytes()));
            let metadata = place.metadata(mode.unwrap_or(0o644))?.modified_at(time);
            let file = Inode::file(metadata, content.as_bytes().to_vec());
            place.put(&mut root.tree, path.as_bytes(), file)
        }
        Step::Copy { from, to, digest, owner, mode } => {
            let place = Target::new(root, "copy", to, owner.as_ref())?;
            let entries = copy::collect(materials.stack, from, digest, ground.workspace)?;
            let is_directory =
                entries.first().is_some_and(|entry| matches!(entry.kind, CopiedKind::Directory));
            let start = destination(&root.tree, from, to, is_directory);
            for entry in entries {
                let mut path = start.clone();
                if !entry.path.is_empty() {
                    path.push(b'/');
                    path.extend(&entry.path);
                }
                let inode = copied_inode(&place, *mode, entry.kind)?;
                place.put(&mut root.tree, &path, inode)?;
            }
            Ok(())
        }
    }
}

/// Where a copy goes: a directory's entries into `to`, a file to `to`, or into it if `to` is a
/// directory or ends with a slash.
fn destination(tree: &Tree, from: &str, to: &str, is_directory: bool) -> Vec<u8> {
    let into = to.ends_with('/') || tree.resolve(to).is_ok_and(Inode::is_directory);
    let trimmed = to.trim_end_matches('/');
    match Path::new(from).file_name() {
        Some(name) if !is_directory && into => {
            [trimmed.as_bytes(), b"/", name.as_encoded_bytes()].concat()
        }
        _ => {
            if trimmed.is_empty() {
                b"/".to_vec()
            } else {
                trimmed.as_bytes().to_vec()
            }
        }
    }
}

fn copied_inode(
    place: &Target<'_>,
    mode: Option<u32>,
    kind: CopiedKind,
) -> Result<Inode, StepError> {
    Ok(match kind {
        CopiedKind::Directory => Inode::directory(place.metadata(0o755)?),
        CopiedKind::Symlink(target) => Inode::symlink(place.metadata(0o777)?, target),
        CopiedKind::File { content, digest, executable } => {
            let own = if executable { 0o755 } else { 0o644 };
            let metadata = place.metadata(mode.unwrap_or(own))?.modified_at(time_of(&digest));
            Inode::file(metadata, content)
        }
    })
}

#[cfg(test)]
mod tests;
