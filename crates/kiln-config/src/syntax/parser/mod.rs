//! The parser: recursive descent over the HCL native syntax, with recovery.
//!
//! A mistake is reported once, what holds it is left out or becomes [`ExprKind::Error`], and
//! reading goes on at the next item, so that one run reports all mistakes. Depth is bounded
//! ([`MAX_NESTING`], [`MAX_EXPR_HEIGHT`]): no input overflows the stack, here or in what walks the
//! tree.

mod assemble;
mod body;
mod collection;
mod expr;
mod heredoc;
mod template;

use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::ast::{Body, Expr, ExprKind, Ident, MAX_EXPR_HEIGHT, Name};
use super::lexer::Lexer;
use super::span::{FileId, Span};
use super::token::{Token, TokenKind};
use crate::diagnostic::{Diagnostic, Diagnostics};

/// How deep brackets, blocks and templates may nest in one another.
pub const MAX_NESTING: u32 = 100;

/// Reads a file of attributes and blocks.
pub fn parse_body(file: FileId, text: &str, diagnostics: &mut Diagnostics) -> Body {
    Parser::new(file, text, diagnostics).file_body()
}

/// Reads one expression, such as the value of `--var`.
pub fn parse_expr(file: FileId, text: &str, diagnostics: &mut Diagnostics) -> Expr {
    let mut parser = Parser::new(file, text, diagnostics);
    parser.newlines = false;
    parser.advance();
    let parsed = parser.expr().and_then(|expr| {
        parser.expect(TokenKind::EndOfFile, "an operator or the end of the expression")?;
        Ok(expr)
    });
    parsed.unwrap_or_else(|Failed| parser.whole_as_error())
}

/// Reads a text that is a template as a whole, such as a file for `templatefile`.
pub fn parse_template(file: FileId, text: &str, diagnostics: &mut Diagnostics) -> Expr {
    let mut parser = Parser::new(file, text, diagnostics);
    parser.bare_template().unwrap_or_else(|Failed| parser.whole_as_error())
}

/// Reads a file and keeps its tokens for the formatter.
pub(crate) fn parse_body_traced(
    file: FileId,
    text: &str,
    diagnostics: &mut Diagnostics,
) -> (Body, Vec<TraceToken>) {
    let mut parser = Parser::new(file, text, diagnostics);
    parser.trace = Some(Vec::new());
    let body = parser.file_body();
    (body, parser.trace.unwrap_or_default())
}

/// A token as the formatter sees it: a whole string or heredoc is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TraceToken {
    pub(crate) token: Token,
    pub(crate) role: Role,
}

/// What a token does where it stands, as far as its kind does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// What its kind says.
    Plain,
    /// The `=` of an attribute of a body, or the `=` or `:` of an item of an object.
    Assign,
    /// A brace around the body of a block.
    Block,
    /// A sign before its only operand.
    Prefix,
    /// A bracket, parenthesis or star that belongs to what stands before it.
    Postfix,
}

/// The mark of what could not be read and has been reported.
#[derive(Clone, Copy, Debug)]
struct Failed;

type Parse<T> = Result<T, Failed>;

struct Parser<'t, 'd> {
    file: FileId,
    text: &'t str,
    lexer: Lexer<'t>,
    /// The token at hand, not yet consumed.
    token: Token,
    /// The end of the last consumed token.
    last_end: u32,
    /// Whether line breaks are tokens here.
    newlines: bool,
    /// Open brackets among the consumed tokens.
    brackets: u32,
    /// How deep the descent is.
    nesting: u32,
    /// Whether a block that is never closed has been reported.
    unclosed: bool,
    names: FxHashSet<Name>,
    diagnostics: &'d mut Diagnostics,
    trace: Option<Vec<TraceToken>>,
}

impl<'t, 'd> Parser<'t, 'd> {
    fn new(file: FileId, text: &'t str, diagnostics: &'d mut Diagnostics) -> Self {
        let lexer = Lexer::new(text);
        let start = lexer.pos();
        Self {
            file,
            text,
            lexer,
            token: Token { kind: TokenKind::Newline, start, end: start },
            last_end: start,
            newlines: true,
            brackets: 0,
            nesting: 0,
            unclosed: false,
            names: FxHashSet::default(),
            diagnostics,
            trace: None,
        }
    }

    /// Reads the next token without consuming the one at hand.
    #[inline]
    fn advance(&mut self) {
        self.token = self.lexer.next(self.newlines);
    }

    /// Consumes the token at hand and returns it.
    #[inline]
    fn bump(&mut self) -> Token {
        self.bump_as(Role::Plain)
    }

    #[inline]
    fn bump_as(&mut self, role: Role) -> Token {
        let token = self.token;
        if token.kind.opens() {
            self.brackets += 1;
        } else if token.kind.closes() {
            self.brackets = self.brackets.saturating_sub(1);
        }
        self.last_end = token.end;
        self.record(token, role);
        self.advance();
        token
    }

    fn record(&mut self, token: Token, role: Role) {
        if let Some(trace) = &mut self.trace {
            trace.push(TraceToken { token, role });
        }
    }

    #[inline]
    fn at(&self, kind: TokenKind) -> bool {
        self.token.kind == kind
    }

    /// Whether the token at hand is the word `word`.
    fn at_word(&self, word: &str) -> bool {
        self.at(TokenKind::Ident) && self.slice(self.token) == word
    }

    fn eat(&mut self, kind: TokenKind) -> bool {
        let found = self.at(kind);
        if found {
            self.bump();
        }
        found
    }

    /// Consumes a token of this kind, else reports that `wanted` was expected.
    fn expect(&mut self, kind: TokenKind, wanted: &str) -> Parse<Token> {
        if self.at(kind) { Ok(self.bump()) } else { Err(self.unexpected(wanted)) }
    }

    /// Consumes the bracket that closes `open`, leaving the line break mode `newlines` behind it.
    fn close(
        &mut self,
        kind: TokenKind,
        open: Token,
        wanted: &str,
        newlines: bool,
    ) -> Parse<Token> {
        if self.at(kind) {
            self.newlines = newlines;
            return Ok(self.bump());
        }
        let diagnostic = self
            .unexpected_diagnostic(wanted)
            .with_related(self.span_of(open), format!("{} is opened here", open.kind.describe()));
        Err(self.report(diagnostic))
    }

    fn slice(&self, token: Token) -> &'t str {
        &self.text[token.start as usize..token.end as usize]
    }

    #[inline]
    fn span(&self, start: u32, end: u32) -> Span {
        Span::new(self.file, start, end)
    }

    fn span_of(&self, token: Token) -> Span {
        self.span(token.start, token.end)
    }

    /// From `start` to the end of the last consumed token.
    fn span_from(&self, start: u32) -> Span {
        self.span(start, self.last_end.max(start))
    }

    #[inline]
    fn intern(&mut self, text: &str) -> Name {
        if let Some(name) = self.names.get(text) {
            return name.clone();
        }
        let name: Name = Arc::from(text);
        self.names.insert(name.clone());
        name
    }

    /// Consumes the name at hand.
    fn ident(&mut self, wanted: &str) -> Parse<Ident> {
        let token = self.expect(TokenKind::Ident, wanted)?;
        let name = self.intern(self.slice(token));
        Ok(Ident { name, span: self.span_of(token) })
    }

    /// An expression, refused if it is too high.
    #[inline]
    fn node(&mut self, span: Span, kind: ExprKind) -> Parse<Expr> {
        let expr = Expr::new(span, kind);
        if expr.height() > MAX_EXPR_HEIGHT {
            let diagnostic = Diagnostic::error(span, "this expression is too long a chain")
                .with_label(format!("more than {MAX_EXPR_HEIGHT} steps or operators"))
                .with_help("give parts of it names in a `locals` block");
            return Err(self.report(diagnostic));
        }
        Ok(expr)
    }

    /// Runs `inner` one level deeper, unless that is too deep.
    #[inline]
    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Parse<T>) -> Parse<T> {
        if self.nesting >= MAX_NESTING {
            let diagnostic = Diagnostic::error(self.span_of(self.token), "nested too deeply")
                .with_label(format!("more than {MAX_NESTING} levels"));
            return Err(self.report(diagnostic));
        }
        self.nesting += 1;
        let result = inner(self);
        self.nesting -= 1;
        result
    }

    fn report(&mut self, diagnostic: Diagnostic) -> Failed {
        self.diagnostics.push(diagnostic);
        Failed
    }

    /// Reports the token at hand where `wanted` was expected.
    fn unexpected(&mut self, wanted: &str) -> Failed {
        let diagnostic = self.unexpected_diagnostic(wanted);
        self.report(diagnostic)
    }

    fn unexpected_diagnostic(&self, wanted: &str) -> Diagnostic {
        let token = self.token;
        let text = self.slice(token);
        let summary = match token.kind {
            TokenKind::Ident | TokenKind::Number => format!("unexpected `{text}`"),
            TokenKind::Invalid => return self.invalid_diagnostic(text, wanted),
            kind => format!("unexpected {}", kind.describe()),
        };
        let span = match token.kind {
            TokenKind::Newline | TokenKind::EndOfFile => {
                self.span(self.last_end, self.last_end).end_point()
            }
            _ => self.span_of(token),
        };
        Diagnostic::error(span, summary).with_label(format!("expected {wanted}"))
    }

    fn invalid_diagnostic(&self, text: &str, wanted: &str) -> Diagnostic {
        let Token { start, .. } = self.token;
        if text.starts_with("/*") {
            return Diagnostic::error(self.span(start, start + 2), "this comment is not closed")
                .with_help("end it with `*/`");
        }
        let summary = format!("unexpected character `{text}`");
        let diagnostic = Diagnostic::error(self.span_of(self.token), summary)
            .with_label(format!("expected {wanted}"));
        match text {
            "'" | "`" | "\u{201c}" | "\u{201d}" | "\u{2018}" | "\u{2019}" => {
                diagnostic.with_help("strings stand in straight double quotes: \"text\"")
            }
            ";" => diagnostic.with_help("items end with the line, without a semicolon"),
            "&" => diagnostic.with_help("the logical operator is `&&`"),
            "|" => diagnostic.with_help("the logical operator is `||`"),
            _ => diagnostic,
        }
    }

    fn whole_as_error(&self) -> Expr {
        Expr::new(self.span(0, self.lexer.pos()), ExprKind::Error)
    }
}
