//! The resolver against exhaustive search, on small archives made at random.

use kiln_image::debian::package::{Package, parse_index};
use kiln_image::debian::relation::Relation;
use kiln_image::debian::resolve::{ResolveError, resolve};
use kiln_image::debian::universe::Universe;
use proptest::prelude::*;

const NAMES: usize = 5;

/// One package: which versions there are, and the relations of each.
type Shape = Vec<Vec<(Vec<Vec<(usize, u8)>>, Vec<(usize, u8)>, bool)>>;

/// Relations by name, with a bound: none, `(>= 2)`, `(<< 2)`. One provided name stands beside.
fn relation() -> impl Strategy<Value = (usize, u8)> {
    (0..=NAMES, 0..3_u8)
}

fn shapes() -> impl Strategy<Value = Shape> {
    let depends = prop::collection::vec(prop::collection::vec(relation(), 1..3), 0..3);
    let conflicts = prop::collection::vec(relation(), 0..2);
    let versions = prop::collection::vec((depends, conflicts, any::<bool>()), 1..3);
    prop::collection::vec(versions, NAMES)
}

fn show((name, bound): (usize, u8)) -> String {
    let name = if name == NAMES { "virtual".to_owned() } else { format!("p{name}") };
    name + ["", " (>= 2)", " (<< 2)"][usize::from(bound)]
}

fn index(shape: &Shape) -> String {
    let mut text = String::new();
    for (name, versions) in shape.iter().enumerate() {
        for (version, (depends, conflicts, provides)) in versions.iter().enumerate() {
            let clause = |clause: &Vec<(usize, u8)>| {
                clause.iter().map(|r| show(*r)).collect::<Vec<_>>().join(" | ")
            };
            let depends: Vec<String> = depends.iter().map(clause).collect();
            let conflicts: Vec<String> = conflicts.iter().map(|r| show(*r)).collect();
            let lines = [
                format!("Package: p{name}\nVersion: {}", version + 1),
                format!(
                    "Architecture: all\nFilename: p{name}\nSize: 1\nSHA256: {}",
                    "0".repeat(64)
                ),
                format!("Depends: {}\nConflicts: {}", depends.join(", "), conflicts.join(", ")),
                format!("Provides: {}\n\n", if *provides { "virtual (= 2)" } else { "" }),
            ];
            text += &lines.join("\n");
        }
    }
    text
}

fn means(relation: &Relation, package: &Package) -> bool {
    let provided = package.provides().expect("the relations are right");
    let real = relation.name == package.name && relation.accepts(&package.version);
    real || provided.iter().any(|provided| {
        let version = provided.version.as_ref().map(|(_, version)| version);
        provided.name == relation.name && relation.accepts_provided(version)
    })
}

/// Whether a set of packages holds together.
fn is_sound(chosen: &[&Package]) -> bool {
    chosen.iter().all(|package| {
        let needs = package.dependencies().expect("the relations are right");
        let met = needs.iter().all(|need| {
            need.0.iter().any(|relation| chosen.iter().any(|other| means(relation, other)))
        });
        let conflicts = package.conflicts().expect("the relations are right");
        let free = conflicts.iter().all(|relation| {
            chosen.iter().all(|other| other.name == package.name || !means(relation, other))
        });
        met && free
    })
}

/// Whether some set with `p0` holds together, by trying all.
fn is_possible(packages: &[Package]) -> bool {
    let by_name: Vec<Vec<&Package>> = (0..NAMES)
        .map(|name| packages.iter().filter(|p| p.name == format!("p{name}")).collect())
        .collect();
    let total: usize = by_name.iter().map(|versions| versions.len() + 1).product();
    (0..total).any(|mut number| {
        let mut chosen: Vec<&Package> = Vec::new();
        for versions in &by_name {
            let at = number % (versions.len() + 1);
            number /= versions.len() + 1;
            chosen.extend(versions.get(at));
        }
        chosen.iter().any(|package| package.name == "p0") && is_sound(&chosen)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn finds_a_sound_set_exactly_where_there_is_one(shape in shapes()) {
        let packages = parse_index(&index(&shape), 0).unwrap();
        let universe = Universe::new(packages.clone(), "amd64").unwrap();
        let request = ["p0".to_owned()];
        match resolve(&universe, &request) {
            Ok(found) => {
                let chosen: Vec<&Package> = found.iter().map(|p| universe.get(*p)).collect();
                prop_assert!(chosen.iter().any(|package| package.name == "p0"));
                prop_assert!(is_sound(&chosen), "{chosen:#?}");
                prop_assert_eq!(found, resolve(&universe, &request).unwrap());
            }
            Err(ResolveError::Unsatisfiable(conflict)) => {
                prop_assert!(!is_possible(&packages), "{conflict}");
            }
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}
