//! Cuts source text into tokens, on demand and from any place.
//!
//! The parser drives the lexer one token at a time, since what a character means depends on
//! whether it stands in an expression or in the text of a template.

use super::token::{Token, TokenKind};

/// A cursor over a text.
#[derive(Clone, Debug)]
pub(crate) struct Lexer<'t> {
    text: &'t str,
    pos: usize,
}

impl<'t> Lexer<'t> {
    /// At the start of `text`, behind a byte order mark.
    pub(crate) fn new(text: &'t str) -> Self {
        let pos = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self { text, pos }
    }

    /// The offset of the next unread byte.
    pub(crate) fn pos(&self) -> u32 {
        offset(self.pos)
    }

    /// Goes to `pos`, which is a character boundary.
    pub(crate) fn set_pos(&mut self, pos: u32) {
        self.pos = pos as usize;
    }

    /// The next token. With `newlines`, line breaks are tokens, else white space.
    #[inline]
    pub(crate) fn next(&mut self, newlines: bool) -> Token {
        self.skip_blank(newlines);
        let start = self.pos;
        let kind = self.scan();
        Token { kind, start: offset(start), end: offset(self.pos) }
    }

    #[inline]
    fn byte(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(self.pos + ahead).copied().unwrap_or(0)
    }

    /// Skips blanks, comments and, without `newlines`, line breaks.
    fn skip_blank(&mut self, newlines: bool) {
        loop {
            match (self.byte(0), self.byte(1)) {
                (b' ' | b'\t', _) => self.pos += 1,
                (b'\n', _) if !newlines => self.pos += 1,
                (b'\r', b'\n') if !newlines => self.pos += 2,
                (b'#', _) | (b'/', b'/') => self.pos = self.line_end(),
                (b'/', b'*') => {
                    let rest = &self.text[self.pos + 2..];
                    let Some(end) = rest.find("*/") else { return };
                    self.pos += end + 4;
                }
                _ => return,
            }
        }
    }

    /// The offset of the line break that ends this line, or the end of the text.
    fn line_end(&self) -> usize {
        let rest = &self.text[self.pos..];
        let end = rest.find('\n').unwrap_or(rest.len());
        self.pos + rest[..end].strip_suffix('\r').map_or(end, str::len)
    }

    fn scan(&mut self) -> TokenKind {
        use TokenKind as T;
        let (first, second, third) = (self.byte(0), self.byte(1), self.byte(2));
        let (kind, length) = match (first, second) {
            (0, _) if self.pos >= self.text.len() => (T::EndOfFile, 0),
            (b'\n', _) => (T::Newline, 1),
            (b'\r', b'\n') => (T::Newline, 2),
            (b'0'..=b'9', _) => return self.scan_number(),
            (b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.., _) => return self.scan_ident(),
            (b'<', b'<') => return self.scan_heredoc(),
            // A comment that is not closed: white space would have been skipped.
            (b'/', b'*') => (T::Invalid, self.text.len() - self.pos),
            (b'.', b'.') if third == b'.' => (T::Ellipsis, 3),
            (b'=', b'=') => (T::EqualEqual, 2),
            (b'!', b'=') => (T::NotEqual, 2),
            (b'<', b'=') => (T::LessOrEqual, 2),
            (b'>', b'=') => (T::GreaterOrEqual, 2),
            (b'=', b'>') => (T::FatArrow, 2),
            (b'&', b'&') => (T::And, 2),
            (b'|', b'|') => (T::Or, 2),
            (b'~', b'}') => (T::TrimClose, 2),
            _ => (single(first), 1),
        };
        self.pos += length;
        kind
    }

    fn scan_number(&mut self) -> TokenKind {
        self.skip_digits();
        if self.byte(0) == b'.' && self.byte(1).is_ascii_digit() {
            self.pos += 1;
            self.skip_digits();
        }
        if matches!(self.byte(0), b'e' | b'E') {
            let sign = usize::from(matches!(self.byte(1), b'+' | b'-'));
            if self.byte(1 + sign).is_ascii_digit() {
                self.pos += 1 + sign;
                self.skip_digits();
            }
        }
        TokenKind::Number
    }

    fn skip_digits(&mut self) {
        while self.byte(0).is_ascii_digit() {
            self.pos += 1;
        }
    }

    fn scan_ident(&mut self) -> TokenKind {
        let start = self.pos;
        loop {
            let byte = self.byte(0);
            if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') {
                self.pos += 1;
            } else if byte < 0x80 {
                return TokenKind::Ident;
            } else {
                let Some(letter) = self.text[self.pos..].chars().next() else {
                    return TokenKind::Ident;
                };
                let first = self.pos == start;
                let fits = if first {
                    unicode_ident::is_xid_start(letter)
                } else {
                    unicode_ident::is_xid_continue(letter)
                };
                if !fits {
                    if first {
                        self.pos += letter.len_utf8();
                        return TokenKind::Invalid;
                    }
                    return TokenKind::Ident;
                }
                self.pos += letter.len_utf8();
            }
        }
    }

    /// The introducer of a heredoc up to and with its line break; else a mere `<`.
    fn scan_heredoc(&mut self) -> TokenKind {
        let start = self.pos;
        self.pos += 2 + usize::from(self.byte(2) == b'-');
        let name = self.pos;
        if self.byte(0).is_ascii_alphabetic() || self.byte(0) >= 0x80 || self.byte(0) == b'_' {
            self.scan_ident();
        }
        if self.pos > name {
            if self.byte(0) == b'\n' {
                self.pos += 1;
                return TokenKind::Heredoc;
            }
            if self.byte(0) == b'\r' && self.byte(1) == b'\n' {
                self.pos += 2;
                return TokenKind::Heredoc;
            }
        }
        self.pos = start + 1;
        TokenKind::Less
    }
}

fn single(byte: u8) -> TokenKind {
    match byte {
        b'"' => TokenKind::Quote,
        b'{' => TokenKind::OpenBrace,
        b'}' => TokenKind::CloseBrace,
        b'[' => TokenKind::OpenBracket,
        b']' => TokenKind::CloseBracket,
        b'(' => TokenKind::OpenParen,
        b')' => TokenKind::CloseParen,
        b',' => TokenKind::Comma,
        b'.' => TokenKind::Dot,
        b'=' => TokenKind::Equal,
        b'!' => TokenKind::Not,
        b'<' => TokenKind::Less,
        b'>' => TokenKind::Greater,
        b':' => TokenKind::Colon,
        b'?' => TokenKind::Question,
        b'+' => TokenKind::Plus,
        b'-' => TokenKind::Minus,
        b'*' => TokenKind::Star,
        b'/' => TokenKind::Slash,
        b'%' => TokenKind::Percent,
        _ => TokenKind::Invalid,
    }
}

/// `pos` as the tree keeps it; texts are bounded by `Sources::MAX_FILE_BYTES`.
fn offset(pos: usize) -> u32 {
    u32::try_from(pos).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Lexer, TokenKind};

    fn kinds(text: &str, newlines: bool) -> Vec<TokenKind> {
        let mut lexer = Lexer::new(text);
        std::iter::from_fn(|| {
            let token = lexer.next(newlines);
            (token.kind != TokenKind::EndOfFile).then_some(token.kind)
        })
        .collect()
    }

    #[test]
    fn numbers_end_where_their_grammar_ends() {
        use TokenKind::{Dot, Ellipsis, Ident, Number};
        assert_eq!(kinds("1.5e-3", true), [Number]);
        assert_eq!(kinds("1.x", true), [Number, Dot, Ident]);
        assert_eq!(kinds("1...", true), [Number, Ellipsis]);
        assert_eq!(kinds("1em", true), [Number, Ident]);
    }

    #[test]
    fn names_may_hold_dashes_and_letters_of_all_scripts() {
        assert_eq!(kinds("a-b größe _x", true), [TokenKind::Ident; 3]);
        assert_eq!(kinds("€", true), [TokenKind::Invalid]);
    }

    #[test]
    fn comments_are_white_space_and_line_breaks_count_where_asked() {
        use TokenKind::{Ident, Newline};
        let text = "a # one\r\nb // two\n/* c\n */ d";
        assert_eq!(kinds(text, true), [Ident, Newline, Ident, Newline, Ident]);
        assert_eq!(kinds(text, false), [Ident, Ident, Ident]);
    }

    #[test]
    fn a_heredoc_is_known_by_its_line_break() {
        assert_eq!(kinds("<<EOT\n", true), [TokenKind::Heredoc]);
        assert_eq!(kinds("<<-EOT\r\n", true), [TokenKind::Heredoc]);
        assert_eq!(kinds("<<EOT x", true)[0], TokenKind::Less);
    }
}
