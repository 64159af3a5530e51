//! Templates: strings, heredocs and whole files, cut into literals, interpolations and directives.
//!
//! A literal is cut behind each line break, because that is how far a `~` trim reaches.

use std::borrow::Cow;

use super::{Failed, Parse, Parser};
use crate::diagnostic::Diagnostic;
use crate::syntax::ast::{Expr, ExprKind, Ident};
use crate::syntax::span::Span;
use crate::syntax::token::{Token, TokenKind};

/// One part of a template before directives are matched.
pub(super) enum Piece<'t> {
    Literal { text: Cow<'t, str>, span: Span },
    Interpolation(Expr),
    If { condition: Expr, span: Span },
    Else(Span),
    EndIf(Span),
    For { key: Option<Ident>, value: Ident, collection: Expr, span: Span },
    EndFor(Span),
}

/// Where the text of a template ends.
#[derive(Clone, Copy)]
pub(super) enum Ending<'t> {
    /// At `"`.
    Quote { open: Token },
    /// At a line that holds only the marker.
    Marker { marker: &'t str, open: Token },
    /// At the end of the text.
    EndOfFile,
}

impl<'t> Parser<'t, '_> {
    /// `"text ${expr} text"`.
    pub(super) fn quoted_template(&mut self) -> Parse<Expr> {
        let open = self.token;
        let rest = &self.text[open.end as usize..];
        let run = plain_run(rest.as_bytes(), true);
        // Most strings are plain: they are their text.
        if rest.as_bytes().get(run) == Some(&b'"') {
            let (text, after) = (&rest[..run], &rest[run + 1..]);
            self.lexer.set_pos(u32::try_from(self.text.len() - after.len()).unwrap_or(u32::MAX));
            let span = self.end_template(open);
            return Ok(Expr::new(span, ExprKind::String(self.string(text))));
        }
        let pieces = self.pieces(Ending::Quote { open })?;
        self.finish_template(open, pieces)
    }

    pub(super) fn bare_template(&mut self) -> Parse<Expr> {
        let pieces = self.pieces(Ending::EndOfFile)?;
        let span = self.span(0, self.lexer.pos());
        self.assemble(span, pieces)
    }

    /// Makes the tree of a template whose end the lexer has reached, and reads the token behind.
    pub(super) fn finish_template(&mut self, open: Token, pieces: Vec<Piece<'t>>) -> Parse<Expr> {
        let span = self.end_template(open);
        self.assemble(span, pieces)
    }

    /// Reads the token behind a template whose end the lexer has reached; the template's place.
    fn end_template(&mut self, open: Token) -> Span {
        let end = self.lexer.pos();
        self.record(Token { end, ..open }, super::Role::Plain);
        self.last_end = end;
        self.advance();
        self.span(open.start, end)
    }

    /// Reads from the lexer's place to behind the ending.
    pub(super) fn pieces(&mut self, ending: Ending<'t>) -> Parse<Vec<Piece<'t>>> {
        let trace = self.trace.take();
        let result = self.scan_pieces(ending);
        self.trace = trace;
        result
    }

    fn scan_pieces(&mut self, ending: Ending<'t>) -> Parse<Vec<Piece<'t>>> {
        let mut pieces = Vec::new();
        let mut trim_next = false;
        let mut at_line_start = true;
        loop {
            if at_line_start && self.at_marker(ending) {
                return Ok(pieces);
            }
            let literal_follows = match self.literal(ending) {
                Some(piece) => {
                    at_line_start = piece.ends_line();
                    pieces.push(if trim_next { piece.trim_start() } else { piece });
                    true
                }
                None => false,
            };
            trim_next = false;
            let rest = &self.text.as_bytes()[self.lexer.pos() as usize..];
            match rest {
                [b'$' | b'%', b'{', ..] => {
                    at_line_start = false;
                    if literal_follows && rest.get(2) == Some(&b'~') {
                        trim_end(&mut pieces);
                    }
                    trim_next = self.sequence(ending, &mut pieces)?;
                }
                [b'"', ..] if matches!(ending, Ending::Quote { .. }) => {
                    self.lexer.set_pos(self.lexer.pos() + 1);
                    return Ok(pieces);
                }
                [] | [b'\n' | b'\r', ..] if !literal_follows || rest.is_empty() => {
                    self.unclosed(ending);
                    return Ok(pieces);
                }
                _ => {}
            }
        }
    }

    /// Whether a heredoc ends here; goes behind its marker if so.
    fn at_marker(&mut self, ending: Ending<'t>) -> bool {
        let Ending::Marker { marker, .. } = ending else { return false };
        let start = self.lexer.pos() as usize;
        let rest = &self.text[start..];
        let line = &rest[..rest.find('\n').unwrap_or(rest.len())];
        if line.trim() != marker {
            return false;
        }
        let end = start + line.trim_end().len();
        self.lexer.set_pos(u32::try_from(end).unwrap_or(u32::MAX));
        true
    }

    fn unclosed(&mut self, ending: Ending<'t>) {
        let diagnostic = match ending {
            Ending::EndOfFile => return,
            Ending::Quote { open } => {
                let span = self.span(open.start, self.lexer.pos());
                Diagnostic::error(span, "this string is not closed")
                    .with_label("expected `\"` before the end of the line")
                    .with_help("for text of several lines use a heredoc: <<-EOT")
            }
            Ending::Marker { marker, open } => {
                let span = self.span(open.start, open.start + 2).to(self.span_of(open));
                Diagnostic::error(span, "this heredoc is not closed")
                    .with_label(format!("expected a line with only `{marker}`"))
            }
        };
        self.report(diagnostic);
    }

    /// `${ … }` or `%{ … }`; whether what follows is to be trimmed.
    fn sequence(&mut self, ending: Ending<'t>, pieces: &mut Vec<Piece<'t>>) -> Parse<bool> {
        let start = self.lexer.pos();
        let directive = self.text.as_bytes()[start as usize] == b'%';
        let trims = self.text.as_bytes().get(start as usize + 2) == Some(&b'~');
        let (newlines, brackets, nesting) = (self.newlines, self.brackets, self.nesting);
        self.newlines = false;
        self.lexer.set_pos(start + 2 + u32::from(trims));
        self.advance();
        let result = self.nested(|parser| {
            let piece = if directive {
                parser.directive(start)?
            } else {
                Piece::Interpolation(parser.expr()?)
            };
            parser.sequence_end(start)?;
            Ok(piece)
        });
        (self.newlines, self.brackets, self.nesting) = (newlines, brackets, nesting);
        if let Ok(piece) = result {
            pieces.push(piece);
            self.lexer.set_pos(self.token.end);
            return Ok(self.at(TokenKind::TrimClose));
        }
        self.behind_broken_sequence(start, ending)?;
        Ok(false)
    }

    fn sequence_end(&mut self, start: u32) -> Parse<()> {
        if self.at(TokenKind::CloseBrace) || self.at(TokenKind::TrimClose) {
            return Ok(());
        }
        let escape = &self.text[start as usize..=start as usize];
        let diagnostic = self
            .unexpected_diagnostic("an operator or `}`")
            .with_related(self.span(start, start + 2), "the sequence starts here")
            .with_help(format!("if this is plain text, write `{escape}{escape}{{`"));
        Err(self.report(diagnostic))
    }

    /// Goes on behind the `}` of a sequence that could not be read, if it is on the same line.
    fn behind_broken_sequence(&mut self, start: u32, ending: Ending<'t>) -> Parse<()> {
        let quoted = matches!(ending, Ending::Quote { .. });
        let from = (self.token.start as usize).max(start as usize + 2);
        let rest = &self.text[from..];
        let stop = rest
            .bytes()
            .position(|byte| matches!(byte, b'}' | b'\n') || (quoted && byte == b'"'))
            .unwrap_or(rest.len());
        let closed = rest.as_bytes().get(stop) == Some(&b'}');
        if quoted && !closed {
            return Err(Failed);
        }
        let end = from + stop + usize::from(closed);
        self.lexer.set_pos(u32::try_from(end).unwrap_or(u32::MAX));
        Ok(())
    }

    fn directive(&mut self, start: u32) -> Parse<Piece<'t>> {
        let keyword = self.token;
        let span = self.span(start, keyword.end);
        let word = if self.at(TokenKind::Ident) { self.slice(keyword) } else { "" };
        if !matches!(word, "if" | "else" | "endif" | "for" | "endfor") {
            return Err(self.unexpected("`if`, `else`, `endif`, `for` or `endfor`"));
        }
        self.bump();
        Ok(match word {
            "if" => Piece::If { condition: self.expr()?, span },
            "else" => Piece::Else(span),
            "endif" => Piece::EndIf(span),
            "endfor" => Piece::EndFor(span),
            _ => {
                let (key, value) = self.for_names()?;
                let collection = self.for_collection()?;
                Piece::For { key, value, collection, span }
            }
        })
    }

    /// The text up to a sequence, the ending or behind a line break.
    fn literal(&mut self, ending: Ending<'t>) -> Option<Piece<'t>> {
        let start = self.lexer.pos();
        let quoted = matches!(ending, Ending::Quote { .. });
        let mut text: Cow<'t, str> = Cow::Borrowed("");
        loop {
            let from = self.lexer.pos() as usize;
            let rest = &self.text[from..];
            let run = plain_run(rest.as_bytes(), quoted);
            push(&mut text, &rest[..run]);
            self.lexer.set_pos(u32::try_from(from + run).unwrap_or(u32::MAX));
            let taken = match &rest.as_bytes()[run..] {
                [b'$', b'$', b'{', ..] | [b'%', b'%', b'{', ..] => {
                    push(&mut text, &rest[run + 1..run + 3]);
                    3
                }
                [b'$' | b'%', b'{', ..] | [] => break,
                [b'\\', ..] if quoted => {
                    let (escaped, length) = self.escape();
                    text.to_mut().push(escaped);
                    length
                }
                [b'"' | b'\n' | b'\r', ..] if quoted => break,
                [b'\n', ..] => {
                    push(&mut text, "\n");
                    self.lexer.set_pos(self.lexer.pos() + 1);
                    break;
                }
                [_, ..] => {
                    push(&mut text, &rest[run..=run]);
                    1
                }
            };
            self.lexer.set_pos(self.lexer.pos() + taken);
        }
        let span = self.span(start, self.lexer.pos());
        (span.start < span.end).then_some(Piece::Literal { text, span })
    }

    /// The character that the escape at hand stands for, and the length of the escape.
    fn escape(&mut self) -> (char, u32) {
        let start = self.lexer.pos();
        let rest = &self.text[start as usize + 1..];
        let letter = rest.chars().next().unwrap_or('\n');
        let digits = match letter {
            'n' => return ('\n', 2),
            'r' => return ('\r', 2),
            't' => return ('\t', 2),
            '"' => return ('"', 2),
            '\\' => return ('\\', 2),
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        if digits > 0 {
            let code = rest
                .get(1..=digits)
                .filter(|code| code.bytes().all(|byte| byte.is_ascii_hexdigit()));
            let parsed = code.and_then(|code| u32::from_str_radix(code, 16).ok());
            if let Some(found) = parsed.and_then(char::from_u32) {
                return (found, 2 + if digits == 4 { 4 } else { 8 });
            }
        }
        let line_break = matches!(letter, '\n' | '\r');
        let end = start + 1 + if line_break { 0 } else { utf8_length(letter) };
        let expected = match digits {
            0 => "expected one of \\n \\r \\t \\\" \\\\ \\uNNNN \\UNNNNNNNN",
            4 => "expected four hexadecimal digits of a Unicode character",
            _ => "expected eight hexadecimal digits of a Unicode character",
        };
        let diagnostic = Diagnostic::error(self.span(start, end), "unknown escape sequence")
            .with_label(expected)
            .with_help("for a backslash itself write `\\\\`");
        self.report(diagnostic);
        ('\\', end - start)
    }
}

impl Piece<'_> {
    fn ends_line(&self) -> bool {
        matches!(self, Self::Literal { text, .. } if text.ends_with('\n'))
    }

    fn trim_start(mut self) -> Self {
        if let Self::Literal { text, .. } = &mut self {
            *text = match std::mem::take(text) {
                Cow::Borrowed(text) => Cow::Borrowed(text.trim_start()),
                Cow::Owned(text) => Cow::Owned(text.trim_start().to_owned()),
            };
        }
        self
    }
}

/// Trims the white space at the end of the last piece, if it is a literal.
fn trim_end(pieces: &mut [Piece<'_>]) {
    if let Some(Piece::Literal { text, .. }) = pieces.last_mut() {
        let length = text.trim_end().len();
        match text {
            Cow::Borrowed(text) => *text = &text[..length],
            Cow::Owned(text) => text.truncate(length),
        }
    }
}

/// The length of the text that stands for itself.
fn plain_run(rest: &[u8], quoted: bool) -> usize {
    let special = |byte: &u8| match byte {
        b'$' | b'%' | b'\n' => true,
        b'"' | b'\\' | b'\r' => quoted,
        _ => false,
    };
    rest.iter().position(special).unwrap_or(rest.len())
}

fn push<'t>(text: &mut Cow<'t, str>, more: &'t str) {
    if text.is_empty() {
        *text = Cow::Borrowed(more);
    } else {
        text.to_mut().push_str(more);
    }
}

fn utf8_length(letter: char) -> u32 {
    u32::try_from(letter.len_utf8()).unwrap_or(1)
}
