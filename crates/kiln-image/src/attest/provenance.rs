//! How an image was built: SLSA provenance, version 1 (<https://slsa.dev/spec/v1.0/provenance>).

use kiln_model::digest::Digest;
use kiln_model::spec::image::Recipe;
use serde_json::{Value, json};

use super::Resource;
use super::materials::{Materials, Other, purl};

/// Who builds: this program on a machine of the user's, which makes no claim beyond SLSA level 1.
pub const BUILDER_ID: &str = "urn:kiln:builder:v1";
/// What a build is: a recipe, done with locked inputs and nothing else.
const BUILD_TYPE: &str = "urn:kiln:recipe:v1";

/// What was built, and with what.
#[derive(Clone, Copy, Debug)]
pub struct Build<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// The digest of recipe and locked inputs together.
    pub component: Digest,
    /// The architecture, as Debian calls it.
    pub architecture: &'a str,
    /// Which version of the builder made it.
    pub builder: u32,
}

/// The predicate. It holds no time: the same build says the same.
pub fn predicate(build: &Build<'_>, materials: &Materials<'_>) -> Value {
    json!({
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "recipe": build.recipe,
                "architecture": build.architecture,
            },
            "internalParameters": {
                "component": build.component,
                "reproducible": !build.recipe.is_open(),
            },
            "resolvedDependencies": dependencies(materials),
        },
        "runDetails": {
            "builder": builder(build.builder),
        },
    })
}

/// The builder, as provenance and admission name it.
pub(crate) fn builder(version: u32) -> Value {
    json!({
        "id": BUILDER_ID,
        "version": { "kiln": env!("CARGO_PKG_VERSION"), "format": version.to_string() },
    })
}

fn dependencies(materials: &Materials<'_>) -> Vec<Resource> {
    let packages = materials.packages.iter().map(|package| {
        let locked = package.locked;
        Resource::new(&locked.name, &purl(locked, materials.suite), &locked.sha256)
    });
    let others = materials.others.iter().map(|other| match other {
        Other::Copied { from, digest, .. } => tree(from, digest),
        Other::Base { path, digest } => tree(path, digest),
        Other::Inline { path, digest } => Resource::new(path, "", digest),
        Other::Named { name, manifest: Some(manifest) } => Resource::new(name, name, manifest),
        Other::Named { name, manifest: None } => {
            Resource { name: (*name).to_owned(), uri: (*name).to_owned(), ..Resource::default() }
        }
    });
    packages.chain(others).collect()
}

/// Files of the stack, whose digest is over a list and no plain SHA-256.
fn tree(path: &str, digest: &Digest) -> Resource {
    let digest = [("kilnCopyV1".to_owned(), digest.hex())].into();
    Resource { name: path.to_owned(), uri: String::new(), digest }
}
