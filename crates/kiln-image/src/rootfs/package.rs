//! The packages of an image, with what their descriptions say.

use std::collections::BTreeMap;

use super::RootfsError;
use crate::deb::Deb;
use crate::debian::control::stanzas;
use crate::debian::relation::{Relation, parse_dependencies, parse_relations};

/// One package.
pub(super) struct Package<'a> {
    pub(super) name: &'a str,
    pub(super) architecture: String,
    pub(super) version: String,
    pub(super) deb: &'a Deb,
    fields: BTreeMap<String, String>,
}

impl<'a> Package<'a> {
    pub(super) fn all_of(packages: &'a [(String, Deb)]) -> Result<Vec<Self>, RootfsError> {
        packages.iter().map(|(name, deb)| Self::new(name, deb)).collect()
    }

    fn new(name: &'a str, deb: &'a Deb) -> Result<Self, RootfsError> {
        let mut fields = BTreeMap::new();
        if let Some(stanza) = stanzas(&deb.control).next() {
            let stanza = stanza
                .map_err(|source| RootfsError::Control { package: name.to_owned(), source })?;
            let owned = stanza.fields().iter();
            fields = owned.map(|(k, v)| (k.to_ascii_lowercase(), v.trim().to_owned())).collect();
        }
        let text = |name: &str| fields.get(name).cloned().unwrap_or_default();
        let (architecture, version) = (text("architecture"), text("version"));
        Ok(Self { name, architecture, version, deb, fields })
    }

    /// A field of the description, by its name in lower case.
    pub(super) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// The name under which dpkg keeps books about it.
    pub(super) fn book_name(&self) -> String {
        match self.field("multi-arch") {
            "same" => format!("{}:{}", self.name, self.architecture),
            _ => self.name.to_owned(),
        }
    }

    /// Names of packages and virtual packages in a field. A field that can't be read names none:
    /// the index that the package was found by has been read.
    pub(super) fn relations(&self, field: &str) -> Vec<Relation> {
        parse_relations(self.field(field)).unwrap_or_default()
    }

    /// What it needs to be configured, each as the names of alternatives.
    pub(super) fn needs(&self) -> Vec<Vec<String>> {
        let mut all = Vec::new();
        for field in ["pre-depends", "depends"] {
            for dependency in parse_dependencies(self.field(field)).unwrap_or_default() {
                all.push(dependency.0.into_iter().map(|relation| relation.name).collect());
            }
        }
        all
    }

    /// A file of the control archive, as text.
    pub(super) fn control_text(&self, name: &str) -> Option<String> {
        let bytes = self.deb.control_files.get(name)?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    }
}
