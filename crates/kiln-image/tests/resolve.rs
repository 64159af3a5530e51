//! Which packages a request needs, on small hand-made archives.

use kiln_image::debian::package::parse_index;
use kiln_image::debian::resolve::{ResolveError, resolve};
use kiln_image::debian::universe::Universe;

/// An archive in shorthand: `name version` and further fields, each on a line of its own, the
/// packages set apart by empty lines.
fn universe(packages: &str) -> Universe {
    let text: Vec<String> = packages.split("\n\n").map(stanza).collect();
    let packages = parse_index(&text.join("\n"), 0).expect("the shorthand is right");
    Universe::new(packages, "amd64").expect("the relations are right")
}

fn stanza(package: &str) -> String {
    let (head, fields) = package.trim().split_once('\n').unwrap_or((package.trim(), ""));
    let (name, version) = head.trim().split_once(' ').expect("name and version");
    let fields: Vec<&str> = fields.lines().map(str::trim).collect();
    format!(
        "Package: {name}\nVersion: {version}\nArchitecture: all\nFilename: pool/{name}.deb\n\
         Size: 1\nSHA256: {}\n{}\n",
        "0".repeat(64),
        fields.iter().map(|field| format!("{field}\n")).collect::<Vec<_>>().concat()
    )
}

fn chosen(universe: &Universe, request: &[&str]) -> Result<Vec<String>, ResolveError> {
    let request: Vec<String> = request.iter().map(ToString::to_string).collect();
    let found = resolve(universe, &request)?;
    Ok(found
        .iter()
        .map(|p| format!("{} {}", universe.get(*p).name, universe.get(*p).version))
        .collect())
}

#[test]
fn takes_the_newest_that_fits_and_leaves_out_recommendations() {
    let archive = universe(
        "app 1
         Depends: lib (>= 2), lib (<< 4)
         Recommends: extra

         lib 1

         lib 3

         lib 4

         extra 1",
    );
    assert_eq!(chosen(&archive, &["app"]).unwrap(), ["app 1", "lib 3"]);
    assert_eq!(chosen(&archive, &["lib"]).unwrap(), ["lib 4"]);
    assert_eq!(chosen(&archive, &["lib=1"]).unwrap(), ["lib 1"]);
}

#[test]
fn prefers_what_is_asked_for_over_the_first_alternative() {
    let archive = universe(
        "app 1
         Depends: first | mail

         first 1

         second 1
         Provides: mail",
    );
    assert_eq!(chosen(&archive, &["app"]).unwrap(), ["app 1", "first 1"]);
    assert_eq!(chosen(&archive, &["app", "second"]).unwrap(), ["app 1", "second 1"]);
}

#[test]
fn provided_versions_count() {
    let archive = universe(
        "app 1
         Depends: api (>= 2)

         old 1
         Provides: api (= 1)

         plain 1
         Provides: api

         new 1
         Provides: api (= 2)",
    );
    assert_eq!(chosen(&archive, &["app"]).unwrap(), ["app 1", "new 1"]);
}

#[test]
fn takes_back_a_choice_that_leads_nowhere() {
    let archive = universe(
        "app 1
         Depends: a | b, c

         a 1
         Conflicts: c

         b 1

         c 1",
    );
    assert_eq!(chosen(&archive, &["app"]).unwrap(), ["app 1", "b 1", "c 1"]);
}

#[test]
fn a_package_does_not_conflict_with_what_it_provides_itself() {
    let archive = universe(
        "mta 1
         Provides: mail
         Conflicts: mail

         other 1
         Provides: mail",
    );
    assert_eq!(chosen(&archive, &["mta"]).unwrap(), ["mta 1"]);
    assert!(chosen(&archive, &["mta", "other"]).is_err());
}

#[test]
fn an_unsatisfiable_dependency_is_shown_with_its_chain() {
    let archive = universe(
        "app 1
         Depends: mid

         mid 2
         Depends: lib (>= 3)

         lib 1",
    );
    let error = chosen(&archive, &["app"]).unwrap_err().to_string();
    assert_eq!(
        error,
        "the packages can't be installed together: app 1 -> mid 2 -> lib (>= 3): the archive has lib 1"
    );
}

#[test]
fn a_conflict_names_both_sides() {
    let archive = universe(
        "a 1
         Breaks: b (<< 2)

         b 1",
    );
    let error = chosen(&archive, &["a", "b"]).unwrap_err().to_string();
    assert!(error.contains("a 1 conflicts with b 1"), "{error}");
}

#[test]
fn an_unknown_name_gets_the_nearest() {
    let archive = universe("nginx 1\n\nnginx-light 1\n\nzsh 1\nProvides: shell");
    let error = chosen(&archive, &["ngnix-light"]).unwrap_err().to_string();
    assert_eq!(error, "there is no package `ngnix-light`; did you mean nginx-light?");
    let error = chosen(&archive, &["shell"]).unwrap_err().to_string();
    assert_eq!(error, "`shell` is a virtual package; choose one that provides it: zsh");
}

#[test]
fn what_only_scripts_call_is_left_out_unless_named() {
    let archive = universe(
        "app 1
         Depends: debconf (>= 0.5) | debconf-2.0

         debconf 1",
    );
    assert_eq!(chosen(&archive, &["app"]).unwrap(), ["app 1"]);
    assert_eq!(chosen(&archive, &["app", "debconf"]).unwrap(), ["app 1", "debconf 1"]);
}

#[test]
fn circles_of_dependencies_end() {
    let archive = universe(
        "a 1
         Depends: b

         b 1
         Depends: a",
    );
    assert_eq!(chosen(&archive, &["a"]).unwrap(), ["a 1", "b 1"]);
}
