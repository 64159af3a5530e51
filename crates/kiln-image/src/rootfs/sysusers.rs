//! Users and groups that packages declare in `sysusers.d` (sysusers.d(5)).

use super::accounts::{Accounts, Declared};
use super::{RootfsError, conf};
use crate::tree::Tree;

const DIRECTORIES: [&str; 2] = ["usr/lib/sysusers.d", "etc/sysusers.d"];

/// Adds what `systemd-sysusers` would add.
pub(super) fn declare(accounts: &mut Accounts, tree: &Tree) -> Result<(), RootfsError> {
    let lines = conf::lines(tree, &DIRECTORIES)?;
    // Groups first, then users, then who is in what: a line may name what a later one declares.
    for wanted in ["g", "u", "m"] {
        for line in &lines {
            let [kind, name, rest @ ..] = &line[..] else { continue };
            if kind.trim_end_matches('!') == wanted {
                declare_one(accounts, wanted, name, rest);
            }
        }
    }
    Ok(())
}

fn declare_one(accounts: &mut Accounts, kind: &str, name: &str, rest: &[String]) {
    let given = |at: usize| rest.get(at).map(String::as_str).filter(|text| *text != "-");
    // `uid`, `uid:gid`, `uid:group`, or a path whose owner is meant: only numbers are known here.
    let id = given(0).unwrap_or_default();
    let (number, group) = id.split_once(':').map_or((id, None), |(id, group)| (id, Some(group)));
    match kind {
        "g" => drop(accounts.declare_group(name, number.parse().ok())),
        "m" => {
            if let Some(group) = given(0) {
                accounts.declare_member(name, group);
            }
        }
        _ => {
            // A group of the same name that was declared is the user's.
            let same = accounts.resolve(&format!("0:{name}")).is_ok().then_some(name);
            let declared = Declared {
                uid: number.parse().ok(),
                home: given(2),
                shell: given(3),
                group: group.or(same),
            };
            accounts.declare_user(name, declared);
        }
    }
}
