//! Heredocs: their introducer and the indentation that `<<-` takes away; and how templates are
//! skipped where nothing is read.

use super::template::{Ending, Piece};
use super::{Parse, Parser};
use crate::syntax::ast::Expr;
use crate::syntax::token::{Token, TokenKind};

impl Parser<'_, '_> {
    /// `<<NAME` or `<<-NAME`, the lines, and a line with `NAME`.
    pub(super) fn heredoc(&mut self) -> Parse<Expr> {
        let open = self.token;
        let (marker, indented) = introducer(self.slice(open));
        let mut pieces = self.pieces(Ending::Marker { marker, open })?;
        if indented {
            strip_indent(&mut pieces);
        }
        self.finish_template(open, pieces)
    }

    /// Goes behind the string or heredoc at hand without reading it.
    pub(super) fn skip_template(&mut self) {
        let open = self.token;
        let from = open.end as usize;
        let rest = &self.text[from..];
        let length = match open.kind {
            TokenKind::Heredoc => {
                let (marker, _) = introducer(self.slice(open));
                let mut length = 0;
                for line in rest.split_inclusive('\n') {
                    if line.trim() == marker {
                        length += line.trim_end().len();
                        break;
                    }
                    length += line.len();
                }
                length
            }
            _ => quoted_length(rest.as_bytes()),
        };
        self.last_end = u32::try_from(from + length).unwrap_or(u32::MAX);
        self.lexer.set_pos(self.last_end);
        self.record(Token { end: self.last_end, ..open }, super::Role::Plain);
        self.advance();
    }
}

/// The marker of a heredoc and whether its indentation is taken away.
fn introducer(text: &str) -> (&str, bool) {
    let name = text.trim_start_matches('<').trim_end();
    name.strip_prefix('-').map_or((name, false), |marker| (marker, true))
}

/// The length of a string behind its opening quote, to behind the closing one or to the line's end.
fn quoted_length(rest: &[u8]) -> usize {
    let mut at = 0;
    while let Some(byte) = rest.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\n' => return at,
            b'\\' if rest.get(at + 1).is_some_and(|next| *next != b'\n') => at += 2,
            _ => at += 1,
        }
    }
    rest.len()
}

/// Takes away the white space that all lines share at their start. Blank lines do not count and
/// stay as they are; a line that starts with a sequence shares none.
fn strip_indent(pieces: &mut [Piece<'_>]) {
    let mut least = usize::MAX;
    let mut line_start = true;
    let mut indented = Vec::new();
    for (index, piece) in pieces.iter().enumerate() {
        let Piece::Literal { text, .. } = piece else {
            if line_start {
                least = 0;
            }
            line_start = false;
            continue;
        };
        if line_start {
            let blank = text.trim_start().is_empty() && text.ends_with('\n');
            if !blank {
                let spaces = text.chars().take_while(|letter| letter.is_whitespace()).count();
                least = least.min(spaces);
                indented.push(index);
            }
        }
        line_start = text.ends_with('\n');
    }
    for index in indented {
        if let Piece::Literal { text, .. } = &mut pieces[index] {
            let rest: String = text.chars().skip(least).collect();
            *text = rest.into();
        }
    }
}
