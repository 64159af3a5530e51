//! Patterns of the shell: `*`, `?`, `[a-z]`.

use crate::tree::{Kind, Tree};

/// One place of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    /// This letter.
    Letter(char),
    /// Any letters.
    Any,
    /// Any one letter.
    One,
    /// One of these letters, or one of none of them.
    Of { letters: Vec<(char, char)>, none: bool },
}

/// Reads what was not quoted as a pattern.
pub(super) fn read(text: &str, pieces: &mut Vec<Piece>) {
    let letters: Vec<char> = text.chars().collect();
    let mut at = 0;
    while at < letters.len() {
        match letters[at] {
            '*' => pieces.push(Piece::Any),
            '?' => pieces.push(Piece::One),
            '[' => {
                let end = letters.iter().skip(at + 2).position(|c| *c == ']').map(|e| e + at + 2);
                match end {
                    Some(end) => {
                        pieces.push(class(&letters[at + 1..end]));
                        at = end;
                    }
                    None => pieces.push(Piece::Letter('[')),
                }
            }
            c => pieces.push(Piece::Letter(c)),
        }
        at += 1;
    }
}

fn class(inside: &[char]) -> Piece {
    let none = matches!(inside.first(), Some('!' | '^'));
    let inside = &inside[usize::from(none)..];
    let mut letters = Vec::new();
    let mut at = 0;
    while at < inside.len() {
        if let (Some('-'), Some(last)) = (inside.get(at + 1), inside.get(at + 2)) {
            letters.push((inside[at], *last));
            at += 3;
        } else {
            letters.push((inside[at], inside[at]));
            at += 1;
        }
    }
    Piece::Of { letters, none }
}

/// Whether the whole of a text fits.
pub(super) fn matches(pattern: &[Piece], text: &str) -> bool {
    let letters: Vec<char> = text.chars().collect();
    // Which ends of the text can be reached, after each piece.
    let mut reached = vec![false; letters.len() + 1];
    reached[0] = true;
    for piece in pattern {
        let mut next = vec![false; letters.len() + 1];
        for at in 0..=letters.len() {
            if !reached[at] {
                continue;
            }
            match piece {
                Piece::Any => next[at..].fill(true),
                _ if at < letters.len() && fits(piece, letters[at]) => next[at + 1] = true,
                _ => {}
            }
        }
        reached = next;
    }
    reached[letters.len()]
}

fn fits(piece: &Piece, letter: char) -> bool {
    match piece {
        Piece::Letter(own) => *own == letter,
        Piece::Any | Piece::One => true,
        Piece::Of { letters, none } => {
            letters.iter().any(|(first, last)| (*first..=*last).contains(&letter)) != *none
        }
    }
}

/// The paths of a tree that fit, in order; none if there is no such path.
pub(super) fn paths(tree: &Tree, pattern: &[Piece]) -> Vec<String> {
    let parts: Vec<&[Piece]> = pattern.split(|piece| *piece == Piece::Letter('/')).collect();
    // Scripts stand at the root, and name files from there.
    if parts.len() < 2 || !parts[0].is_empty() {
        return Vec::new();
    }
    let mut found = vec![String::new()];
    for part in &parts[1..] {
        let plain: Option<String> = part
            .iter()
            .map(|piece| match piece {
                Piece::Letter(letter) => Some(*letter),
                _ => None,
            })
            .collect();
        let step = |directory: &String| match &plain {
            Some(name) => vec![format!("{directory}/{name}")],
            None => children(tree, directory, part),
        };
        found = found.iter().flat_map(step).collect();
    }
    found.retain(|path| tree.get(path).is_some());
    found
}

fn children(tree: &Tree, directory: &str, part: &[Piece]) -> Vec<String> {
    let inode = if directory.is_empty() { tree.get("/") } else { tree.resolve(directory).ok() };
    let Some(Kind::Directory(children)) = inode.map(crate::tree::Inode::kind) else {
        return Vec::new();
    };
    let dotted = part.first() == Some(&Piece::Letter('.'));
    let names = children.iter().filter_map(|(name, _)| str::from_utf8(name).ok());
    let fitting = names.filter(|name| name.starts_with('.') == dotted && matches(part, name));
    fitting.map(|name| format!("{directory}/{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_texts() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abbcd", false),
            ("?[0-9]", "x7", true),
            ("?[!0-9]", "x7", false),
            ("[", "[", true),
            ("*.ini", "20-x.ini", true),
        ] {
            let mut pieces = Vec::new();
            read(pattern, &mut pieces);
            assert_eq!(matches(&pieces, text), fits, "{pattern} {text}");
        }
    }
}
