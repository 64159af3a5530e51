//! From lines to canonical text: indentation, blanks, alignment.

use super::lines::{Line, Piece, PieceKind};
use crate::syntax::{Role, TokenKind};

/// A line as it will be written.
struct Row {
    /// Levels of indentation.
    indent: usize,
    /// Whether an empty line stands before it.
    gap: bool,
    /// What stands left of an `=` that is aligned with its neighbours; else all of the line.
    left: String,
    /// That `=` and what stands right of it.
    right: Option<String>,
    comment: Option<String>,
}

/// An open bracket.
struct Open {
    /// The indentation of the line in which it stands.
    indent: usize,
}

/// The canonical text of these lines.
pub(super) fn lay_out(lines: &[Line<'_>]) -> String {
    let mut rows = rows(lines);
    align_assignments(&mut rows);
    align_comments(&mut rows);
    let mut out = String::new();
    for row in rows {
        if row.gap {
            out.push('\n');
        }
        out.push_str(&"  ".repeat(row.indent));
        out.push_str(&row.left);
        out.push_str(row.right.as_deref().unwrap_or_default());
        out.push_str(row.comment.as_deref().unwrap_or_default());
        out.push('\n');
    }
    out
}

fn rows(lines: &[Line<'_>]) -> Vec<Row> {
    let mut open: Vec<Open> = Vec::new();
    let mut rows: Vec<Row> = Vec::with_capacity(lines.len());
    let mut behind_opener = true;
    for line in lines {
        let leading = line.pieces.iter().take_while(|piece| piece.closes()).count();
        let outside = open.len().saturating_sub(leading);
        let indent = match open.get(outside).filter(|_| leading > 0) {
            Some(opened) => opened.indent,
            None => open.last().map_or(0, |opened| opened.indent + 1),
        };
        for piece in &line.pieces {
            if piece.opens() {
                open.push(Open { indent });
            } else if piece.closes() {
                open.pop();
            }
        }
        let gap = line.after_gap && !behind_opener && leading == 0;
        rows.push(row(line, indent, gap));
        behind_opener = line.pieces.last().is_some_and(Piece::opens);
    }
    rows
}

fn row(line: &Line<'_>, indent: usize, gap: bool) -> Row {
    let (pieces, comment) = match line.pieces.split_last() {
        Some((last, before)) if last.kind == PieceKind::LineComment && !before.is_empty() => {
            (before, Some(format!(" {}", last.text)))
        }
        _ => (&line.pieces[..], None),
    };
    let (left, right) = match aligned_assignment(pieces) {
        Some(at) => (spaced(&pieces[..at]), Some(format!(" {}", spaced(&pieces[at..])))),
        None => (spaced(pieces), None),
    };
    Row { indent, gap, left, right, comment }
}

/// Where the `=` stands that may be aligned: outside of brackets, in a line that is whole.
fn aligned_assignment(pieces: &[Piece<'_>]) -> Option<usize> {
    if pieces.iter().any(|piece| piece.text.contains('\n')) {
        return None;
    }
    let mut depth = 0_usize;
    let mut found = None;
    for (index, piece) in pieces.iter().enumerate() {
        if piece.opens() {
            depth += 1;
        } else if piece.closes() {
            depth = depth.checked_sub(1)?;
        } else if depth == 0 && piece.is(TokenKind::Equal) && piece.has_role(Role::Assign) {
            found = found.or(Some(index));
        }
    }
    found.filter(|_| depth == 0)
}

/// The pieces with the blanks that belong between them.
fn spaced(pieces: &[Piece<'_>]) -> String {
    let mut out = String::new();
    for (index, piece) in pieces.iter().enumerate() {
        if index > 0 && blank_between(&pieces[..index], piece) {
            out.push(' ');
        }
        out.push_str(piece.text);
    }
    out
}

/// Whether a blank stands between the last of `before` and `piece`.
fn blank_between(before: &[Piece<'_>], piece: &Piece<'_>) -> bool {
    use TokenKind as T;
    let Some(last) = before.last() else { return false };
    let (PieceKind::Token(left, left_role), PieceKind::Token(right, right_role)) =
        (last.kind, piece.kind)
    else {
        return true;
    };
    if right_role == Role::Postfix || left_role == Role::Prefix {
        return false;
    }
    match (left, right) {
        // `1 .0` is the first element of a number, `1.0` is a number.
        (T::Number, T::Dot) => !before.iter().rev().nth(1).is_some_and(|piece| piece.is(T::Dot)),
        (T::OpenBrace, T::CloseBrace)
        | (T::Dot | T::OpenParen | T::OpenBracket, _)
        | (_, T::Dot | T::Comma | T::Ellipsis | T::CloseParen | T::CloseBracket) => false,
        _ => true,
    }
}

/// Pads what stands left of `=` in rows that follow each other.
fn align_assignments(rows: &mut [Row]) {
    let chains = rows.chunk_by_mut(|above, below| {
        above.right.is_some() && below.right.is_some() && beside(above, below)
    });
    for chain in chains {
        let widest = chain.iter().map(|row| width(&row.left)).max().unwrap_or(0);
        for row in chain.iter_mut().filter(|row| row.right.is_some()) {
            let padding = widest - width(&row.left);
            row.left.push_str(&" ".repeat(padding));
        }
    }
}

/// Pads what stands left of comments in rows that follow each other.
fn align_comments(rows: &mut [Row]) {
    let chains = rows.chunk_by_mut(|above, below| {
        above.comment.is_some() && below.comment.is_some() && beside(above, below)
    });
    for chain in chains {
        let length = |row: &Row| width(&row.left) + row.right.as_deref().map_or(0, width);
        let widest = chain.iter().map(length).max().unwrap_or(0);
        for row in chain {
            let padding = widest - length(row);
            if let Some(comment) = &mut row.comment {
                comment.insert_str(0, &" ".repeat(padding));
            }
        }
    }
}

fn beside(above: &Row, below: &Row) -> bool {
    above.indent == below.indent && !below.gap && !above.left.contains('\n')
}

/// The width of the last line of a text, in characters.
fn width(text: &str) -> usize {
    text.rsplit('\n').next().unwrap_or_default().chars().count()
}
