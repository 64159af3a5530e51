//! Licences from copyright files in Debian's machine-readable format, as SPDX expressions.
//!
//! The format: <https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/>. A licence
//! whose SPDX identifier is not certain makes the whole expression unknown: half an expression
//! would claim too much. Its Debian names are kept for people.

use std::collections::BTreeSet;

use crate::debian::control::stanzas;

/// What a copyright file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Licence {
    /// As an SPDX expression, where each part has an identifier.
    pub(super) expression: Option<String>,
    /// As Debian names them.
    pub(super) names: BTreeSet<String>,
}

/// Debian's short names, in lower case, and what SPDX calls them.
const IDENTIFIERS: &[(&str, &str)] = &[
    ("agpl-3", "AGPL-3.0-only"),
    ("agpl-3+", "AGPL-3.0-or-later"),
    ("apache-2.0", "Apache-2.0"),
    ("apache-2", "Apache-2.0"),
    ("artistic", "Artistic-1.0-Perl"),
    ("artistic-2.0", "Artistic-2.0"),
    ("bsd-2-clause", "BSD-2-Clause"),
    ("bsd-3-clause", "BSD-3-Clause"),
    ("bsd-4-clause", "BSD-4-Clause"),
    ("bsl-1.0", "BSL-1.0"),
    ("cc0-1.0", "CC0-1.0"),
    ("cc0", "CC0-1.0"),
    ("cc-by-3.0", "CC-BY-3.0"),
    ("cc-by-4.0", "CC-BY-4.0"),
    ("cc-by-sa-3.0", "CC-BY-SA-3.0"),
    ("cc-by-sa-4.0", "CC-BY-SA-4.0"),
    ("expat", "MIT"),
    ("gfdl-1.3+", "GFDL-1.3-or-later"),
    ("gpl-1", "GPL-1.0-only"),
    ("gpl-1+", "GPL-1.0-or-later"),
    ("gpl-2", "GPL-2.0-only"),
    ("gpl-2.0", "GPL-2.0-only"),
    ("gpl-2+", "GPL-2.0-or-later"),
    ("gpl-2.0+", "GPL-2.0-or-later"),
    ("gpl-3", "GPL-3.0-only"),
    ("gpl-3.0", "GPL-3.0-only"),
    ("gpl-3+", "GPL-3.0-or-later"),
    ("gpl-3.0+", "GPL-3.0-or-later"),
    ("isc", "ISC"),
    ("lgpl-2", "LGPL-2.0-only"),
    ("lgpl-2+", "LGPL-2.0-or-later"),
    ("lgpl-2.0+", "LGPL-2.0-or-later"),
    ("lgpl-2.1", "LGPL-2.1-only"),
    ("lgpl-2.1+", "LGPL-2.1-or-later"),
    ("lgpl-3", "LGPL-3.0-only"),
    ("lgpl-3+", "LGPL-3.0-or-later"),
    ("mpl-1.1", "MPL-1.1"),
    ("mpl-2.0", "MPL-2.0"),
    ("openssl", "OpenSSL"),
    ("postgresql", "PostgreSQL"),
    ("psf-2", "PSF-2.0"),
    ("python-2.0", "Python-2.0"),
    ("w3c", "W3C"),
    ("zlib", "Zlib"),
];

/// What a copyright file says. One in another format says nothing.
pub(super) fn of(text: &str) -> Licence {
    let mut names = BTreeSet::new();
    let mut stanzas = stanzas(text);
    let head = stanzas.next().and_then(Result::ok);
    let format = head.as_ref().and_then(|head| head.get("Format"));
    if !format.is_some_and(|format| format.contains("copyright-format/1.0")) {
        return Licence::default();
    }
    let mut whole = true;
    for stanza in stanzas {
        let Ok(stanza) = stanza else {
            // What comes behind the damage is not known.
            whole = false;
            break;
        };
        if stanza.get("Files").is_none() {
            continue;
        }
        let name = stanza.get("License").and_then(|text| text.lines().next()).unwrap_or_default();
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        whole &= !name.is_empty();
        names.extend(Some(name).filter(|name| !name.is_empty()));
    }
    let parts: Option<BTreeSet<String>> = names.iter().map(|name| expression(name)).collect();
    let expression = parts.filter(|parts| whole && !parts.is_empty()).map(|parts| {
        let several = parts.len() > 1;
        let bracket = |part: &String| {
            if several && part.contains(" OR ") { format!("({part})") } else { part.clone() }
        };
        parts.iter().map(bracket).collect::<Vec<_>>().join(" AND ")
    });
    Licence { expression, names }
}

/// One `License` field as an SPDX expression: names joined by `or`, or else by `and`.
fn expression(field: &str) -> Option<String> {
    let lower = field.to_ascii_lowercase();
    if lower.contains(',') || (lower.contains(" or ") && lower.contains(" and ")) {
        return None;
    }
    let (word, joint) = if lower.contains(" or ") { (" or ", " OR ") } else { (" and ", " AND ") };
    let identifiers: Option<Vec<&str>> = lower.split(word).map(identifier).collect();
    identifiers.map(|identifiers| identifiers.join(joint))
}

fn identifier(name: &str) -> Option<&'static str> {
    let found = IDENTIFIERS.iter().find(|(debian, _)| *debian == name.trim());
    found.map(|(_, spdx)| *spdx)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n";

    fn expression_of(fields: &[&str]) -> Option<String> {
        let files = fields.iter().map(|licence| {
            format!("Files: *\nCopyright: somebody\nLicense: {licence}\n with a text\n\n")
        });
        of(&format!("{HEAD}{}", files.collect::<String>())).expression
    }

    #[test]
    fn known_names_become_an_expression() {
        let gpl = "GPL-2.0-or-later";
        assert_eq!(expression_of(&["GPL-2+"]).as_deref(), Some(gpl));
        assert_eq!(
            expression_of(&["GPL-2+", "Expat", "GPL-2+ or Artistic"]).as_deref(),
            Some("GPL-2.0-or-later AND (GPL-2.0-or-later OR Artistic-1.0-Perl) AND MIT")
        );
        assert_eq!(expression_of(&["GPL-1+ or Artistic"]).map(|e| e.contains('(')), Some(false));
    }

    #[test]
    fn what_is_not_certain_is_not_claimed() {
        for fields in [&["GPL-2+", "my-own"][..], &["GPL-2+ with OpenSSL exception"], &[]] {
            assert_eq!(expression_of(fields), None, "{fields:?}");
        }
        let licence = of(&format!("{HEAD}Files: *\nLicense: my-own\n"));
        assert_eq!(licence.names, BTreeSet::from(["my-own".to_owned()]));
        assert_eq!(of("This package was debianized by somebody."), Licence::default());
        assert_eq!(of(""), Licence::default());
    }
}
