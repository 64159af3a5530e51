//! From the trace of the parser to the lines of a file: tokens and comments, as they stand.

use crate::syntax::{Role, TokenKind, TraceToken};

/// A token or comment of a line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'t> {
    pub(super) kind: PieceKind,
    pub(super) text: &'t str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceKind {
    Token(TokenKind, Role),
    /// `#` or `//` up to the end of the line.
    LineComment,
    /// `/* */`.
    BlockComment,
}

impl Piece<'_> {
    pub(super) fn is(&self, kind: TokenKind) -> bool {
        matches!(self.kind, PieceKind::Token(found, _) if found == kind)
    }

    pub(super) fn has_role(&self, role: Role) -> bool {
        matches!(self.kind, PieceKind::Token(_, found) if found == role)
    }

    pub(super) fn opens(&self) -> bool {
        matches!(self.kind, PieceKind::Token(kind, _) if kind.opens())
    }

    pub(super) fn closes(&self) -> bool {
        matches!(self.kind, PieceKind::Token(kind, _) if kind.closes())
    }
}

/// A line that holds something.
#[derive(Clone, Debug, Default)]
pub(super) struct Line<'t> {
    pub(super) pieces: Vec<Piece<'t>>,
    /// Whether empty lines stand before it.
    pub(super) after_gap: bool,
}

/// The lines of `text`, of which `trace` are the tokens.
pub(super) fn lines<'t>(text: &'t str, trace: &[TraceToken]) -> Vec<Line<'t>> {
    let mut lines: Vec<Line<'t>> = Vec::new();
    let mut breaks = 1;
    let mut end = text.len() - text.trim_start_matches('\u{feff}').len();
    for TraceToken { token, role } in trace {
        if token.kind == TokenKind::Newline {
            continue;
        }
        let (start, stop) = (token.start as usize, token.end as usize);
        gap(&text[end..start], &mut lines, &mut breaks);
        let kind = PieceKind::Token(token.kind, *role);
        push(&mut lines, &mut breaks, Piece { kind, text: &text[start..stop] });
        end = stop;
    }
    gap(&text[end..], &mut lines, &mut breaks);
    lines
}

/// Takes the comments out of what stands between two tokens and counts the line breaks.
fn gap<'t>(mut rest: &'t str, lines: &mut Vec<Line<'t>>, breaks: &mut usize) {
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("/*") {
            let length = rest.find("*/").map_or(rest.len(), |end| end + 2);
            push(lines, breaks, Piece { kind: PieceKind::BlockComment, text: &rest[..length] });
            length
        } else if first == '#' || rest.starts_with("//") {
            let length = rest.find('\n').unwrap_or(rest.len());
            let text = rest[..length].trim_end();
            push(lines, breaks, Piece { kind: PieceKind::LineComment, text });
            length
        } else {
            *breaks += usize::from(first == '\n');
            first.len_utf8()
        };
        rest = &rest[length..];
    }
}

fn push<'t>(lines: &mut Vec<Line<'t>>, breaks: &mut usize, piece: Piece<'t>) {
    let found = std::mem::take(breaks);
    match lines.last_mut() {
        Some(line) if found == 0 => line.pieces.push(piece),
        _ => lines.push(Line { pieces: vec![piece], after_gap: found > 1 }),
    }
}
