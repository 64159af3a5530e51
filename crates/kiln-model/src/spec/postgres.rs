//! What Kiln asks of an image for PostgreSQL.

use std::collections::BTreeSet;

use crate::spec::image::{Base, Recipe, Step};

/// The superuser, by whom Kiln alone does what it does.
pub const SUPERUSER: &str = "kiln";
/// Where an instance has its data, in the image.
pub const DATA: &str = "/var/lib/postgresql/data";
/// Where the sockets of a database's instances are, in the image.
pub const SOCKETS: &str = "/run/postgresql";
/// Where the files of configuration are, in the image.
pub const CONFIGURATION: &str = "/etc/postgresql";
/// The user in the image as whom PostgreSQL runs.
pub const USER: &str = "postgres";

/// The versions that there is a recipe for, with the suite of Debian that has each.
const SUITES: [(u32, &str); 3] = [(13, "bullseye"), (15, "bookworm"), (17, "trixie")];

/// The image of a version, where there is one: packages of the Debian release that has it.
pub fn recipe(version: u32) -> Option<Recipe> {
    let (_, suite) = SUITES.iter().find(|(known, _)| *known == version)?;
    let directory = |path: &str, owner: Option<&str>| Step::Directory {
        path: path.to_owned(),
        owner: owner.map(str::to_owned),
        mode: None,
    };
    let suite = (*suite).to_owned();
    Some(Recipe {
        // `initdb` has its programs started by a shell.
        packages: BTreeSet::from([format!("postgresql-{version}"), "dash".to_owned()]),
        steps: vec![
            directory(DATA, Some(USER)),
            directory(SOCKETS, None),
            directory(CONFIGURATION, None),
        ],
        user: Some(USER.to_owned()),
        entrypoint: vec![program(version, "postgres")],
        ..Recipe::on(Base::Debian { suite })
    })
}

/// Where a program of PostgreSQL is, in the image.
pub fn program(version: u32, name: &str) -> String {
    format!("/usr/lib/postgresql/{version}/bin/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_recipe_for_what_debian_has() {
        let versions: Vec<u32> = (9..20).filter(|version| recipe(*version).is_some()).collect();
        assert_eq!(versions, [13, 15, 17]);
        let packages = recipe(15).unwrap().packages;
        assert!(packages.contains("postgresql-15"));
    }
}
