//! Lines of the configuration files below `sysusers.d` and `tmpfiles.d`.

use std::collections::BTreeMap;

use super::RootfsError;
use crate::tree::{Content, Kind, Tree};

/// The fields of a line: set apart by blanks, perhaps in quotes (systemd.syntax(7)). None for a
/// comment or an empty line.
pub(super) fn fields(line: &str) -> Option<Vec<String>> {
    let line = line.trim();
    if line.is_empty() || line.starts_with(['#', ';']) {
        return None;
    }
    let (mut fields, mut field, mut quote) = (Vec::new(), None::<String>, None);
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(q), _) if q == letter => quote = None,
            (None, '"' | '\'') => {
                quote = Some(letter);
                field.get_or_insert_default();
            }
            (Some('"') | None, '\\') => {
                let escaped = letters.next().map(|letter| match letter {
                    'n' => '\n',
                    't' => '\t',
                    letter => letter,
                });
                field.get_or_insert_default().extend(escaped);
            }
            (None, ' ' | '\t') => fields.extend(field.take()),
            _ => field.get_or_insert_default().push(letter),
        }
    }
    fields.extend(field);
    Some(fields)
}

/// The lines of all files that end with `.conf` in some directories, files in the order of their
/// names. A file in a later directory stands for one of the same name in an earlier.
pub(super) fn lines(tree: &Tree, directories: &[&str]) -> Result<Vec<Vec<String>>, RootfsError> {
    let mut texts = BTreeMap::new();
    for directory in directories {
        texts.extend(text_files(tree, directory)?);
    }
    texts.retain(|name, _| is_conf(name));
    Ok(texts.values().flat_map(|text| text.lines().filter_map(fields)).collect())
}

/// Whether a file counts: its name ends with `.conf`, in these letters.
pub(super) fn is_conf(name: &str) -> bool {
    name.strip_suffix(".conf").is_some()
}

/// The text files right in a directory, by name. Bytes that are no text are replaced.
pub(super) fn text_files(
    tree: &Tree,
    directory: &str,
) -> Result<BTreeMap<String, String>, RootfsError> {
    let mut texts = BTreeMap::new();
    for (name, content) in files_in(tree, directory) {
        let bytes = content.read().map_err(|source| RootfsError::Content {
            path: format!("{directory}/{name}"),
            source,
        })?;
        texts.insert(name, String::from_utf8_lossy(&bytes).into_owned());
    }
    Ok(texts)
}

/// The regular files right in a directory, by name, in order.
fn files_in(tree: &Tree, directory: &str) -> Vec<(String, Content)> {
    let Ok(Kind::Directory(children)) = tree.resolve(directory).map(crate::tree::Inode::kind)
    else {
        return Vec::new();
    };
    let files = children.iter().filter_map(|(name, id)| {
        let content = tree.inode(id).content()?;
        Some((String::from_utf8_lossy(name).into_owned(), content.clone()))
    });
    files.collect()
}

/// The regular files below a directory, by path from the root, in order.
pub(super) fn files_below(tree: &Tree, directory: &str) -> Vec<(String, Content)> {
    let prefix = format!("{directory}/");
    let text = |path: &[u8]| {
        let path = String::from_utf8_lossy(path);
        path.trim_start_matches('/').to_owned()
    };
    let files = tree.walk().filter_map(|visit| {
        let content = visit.inode.content()?;
        Some((text(&visit.path), content.clone())).filter(|(path, _)| path.starts_with(&prefix))
    });
    files.collect()
}

#[cfg(test)]
mod tests {
    use super::fields;

    #[test]
    fn lines_have_fields() {
        assert_eq!(fields("u a - \"Some one\" /x").unwrap(), ["u", "a", "-", "Some one", "/x"]);
        assert_eq!(fields("f /x\\ y - - - - it's 1'").unwrap().last().unwrap(), "its 1");
        assert!(fields("# u a").is_none() && fields("  ").is_none());
    }
}
