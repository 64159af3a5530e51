//! Where the backups of a database go, with the secrets that this needs.

use kiln_backup::Store;
use kiln_backup::age::Identity;
use kiln_backup::catalogue::Catalogue;
use kiln_backup::store::{Access, Directory, S3};
use kiln_engine::backup::Wanted;
use kiln_model::name::ComponentId;
use kiln_model::spec::backup::Destination;

use crate::local::Machine;
use crate::local::create::chain;

/// Below a root: a directory for the backups of each database that names no other place.
const BACKUPS: &str = "backups";

/// Where backups go, and for whom they are sealed.
pub(super) struct Place {
    pub(super) store: Box<dyn Store>,
    pub(super) seal: Option<Identity>,
}

impl Place {
    /// What there is of a database's; others may back up to the same place.
    pub(super) fn catalogue(&self, wanted: &Wanted) -> Result<Catalogue, String> {
        let all = Catalogue::read(&*self.store).map_err(|error| chain(&error))?;
        Ok(all.of(&wanted.creation.stack, &wanted.creation.component))
    }
}

/// The place of a database's backups, or in words why there is none.
pub(super) fn place(machine: &Machine, wanted: &Wanted) -> Result<Place, String> {
    let (stack, component) = (&wanted.creation.stack, &wanted.creation.component);
    let reveal = |secret: &ComponentId| {
        let value = machine.secrets.reveal(stack, wanted.creation.generation, secret);
        value.map_err(|why| format!("the value of {secret} is not there: {why}"))
    };
    let own = machine.root.join(BACKUPS).join(format!("{stack}.{}", component.host_name()));
    let store: Box<dyn Store> = match &wanted.backup.to {
        Destination::Root => Box::new(Directory::new(own)),
        Destination::Directory(path) => Box::new(Directory::new(path)),
        Destination::S3(bucket) => {
            let id = reveal(&bucket.access_key)?.trim().to_owned();
            let secret = reveal(&bucket.secret_key)?.trim().to_owned();
            Box::new(S3::new(bucket.clone(), Access { id, secret }))
        }
    };
    let seal = match &wanted.backup.encrypt {
        None => None,
        Some(secret) => {
            let identity = reveal(secret)?.parse::<Identity>();
            Some(identity.map_err(|error| format!("{secret}: {}", chain(&error)))?)
        }
    };
    Ok(Place { store, seal })
}
