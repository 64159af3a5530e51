//! Who may log in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::scram::{Kept, Salt, Verifier};

/// The one user and database, and what proves the passwords.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(super) user: String,
    pub(super) database: String,
    pub(super) salt: Salt,
    /// By the version of the secret.
    verifiers: BTreeMap<String, Verifier>,
}

impl Default for Login {
    fn default() -> Self {
        let (user, database, verifiers) = Default::default();
        Self { user, database, salt: Salt::random(), verifiers }
    }
}

/// A login's proofs, as one process tells them to the next.
#[derive(Serialize, Deserialize)]
pub(crate) struct HeldLogin {
    salt: Vec<u8>,
    verifiers: BTreeMap<String, Kept>,
}

impl std::fmt::Debug for HeldLogin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_set().entries(self.verifiers.keys()).finish()
    }
}

impl Login {
    /// A login as this user, with what is known of passwords by one before.
    pub(crate) fn new(user: &str, database: &str, before: &Login) -> Self {
        let verifiers = BTreeMap::new();
        Self { user: user.to_owned(), database: database.to_owned(), salt: before.salt, verifiers }
    }

    /// Accepts a password, whose value is given where it was not known before. Whether it is
    /// known now.
    pub(crate) fn accept(&mut self, version: &str, value: Option<&str>, before: &Login) -> bool {
        let known = before.verifiers.get(version).cloned();
        let verifier = known.or_else(|| value.map(|value| Verifier::new(value, self.salt)));
        let is_known = verifier.is_some();
        self.verifiers.extend(verifier.map(|verifier| (version.to_owned(), verifier)));
        is_known
    }

    pub(super) fn verifiers(&self) -> Vec<Verifier> {
        self.verifiers.values().cloned().collect()
    }

    /// What the next process needs to know.
    pub(crate) fn hold(&self) -> HeldLogin {
        let kept = self.verifiers.iter().map(|(version, one)| (version.clone(), one.keep()));
        HeldLogin { salt: self.salt.bytes().to_vec(), verifiers: kept.collect() }
    }

    /// What the process before this one knew.
    pub(crate) fn adopt(held: &HeldLogin) -> Self {
        let Some(salt) = Salt::of(&held.salt) else { return Self::default() };
        let kept = held.verifiers.iter();
        let verifiers = kept.map(|(version, kept)| (version.clone(), Verifier::of(kept))).collect();
        Self { user: String::new(), database: String::new(), salt, verifiers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_told_once_and_known_by_the_next_process() {
        let none = Login::default();
        let mut login = Login::new("u", "d", &none);
        assert!(!login.accept("v1", None, &none));
        assert!(login.accept("v1", Some("secret"), &none));
        let mut next = Login::new("u", "d", &login);
        assert!(next.accept("v1", None, &login) && next.verifiers().len() == 1);
        let told = serde_json::to_string(&next.hold()).unwrap();
        assert!(!told.contains("secret"));
        let adopted = Login::adopt(&serde_json::from_str(&told).unwrap());
        assert!(Login::new("u", "d", &adopted).accept("v1", None, &adopted));
        assert!(!format!("{login:?}").contains("secret"));
    }
}
