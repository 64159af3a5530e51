//! Constructors: tuples, objects and `for` expressions.

use super::{Parse, Parser, Role};
use crate::syntax::ast::{Expr, ExprKind, For, ForResult, Ident, ObjectItem};
use crate::syntax::token::{Token, TokenKind};

/// The part of a `for` up to its colon.
struct ForHead {
    key: Option<Ident>,
    value: Ident,
    collection: Expr,
}

impl Parser<'_, '_> {
    /// `[a, b]` or `[for …]`.
    pub(super) fn tuple_or_for(&mut self) -> Parse<Expr> {
        let outside = std::mem::replace(&mut self.newlines, false);
        let open = self.bump();
        if self.at_word("for") {
            return self.for_tuple(open, outside);
        }
        let mut items = Vec::new();
        while !self.at(TokenKind::CloseBracket) {
            items.push(self.expr()?);
            if !self.eat(TokenKind::Comma) {
                break;
            }
        }
        self.close(TokenKind::CloseBracket, open, "`,` or `]`", outside)?;
        let span = self.span_from(open.start);
        self.node(span, ExprKind::Tuple(items.into_boxed_slice()))
    }

    /// `{ a = b }` or `{for …}`.
    pub(super) fn object_or_for(&mut self) -> Parse<Expr> {
        let outside = std::mem::replace(&mut self.newlines, true);
        let open = self.bump();
        if self.at_for_behind_newlines() {
            self.newlines = false;
            while self.at(TokenKind::Newline) {
                self.bump();
            }
            return self.for_object(open, outside);
        }
        let mut items = Vec::new();
        loop {
            while self.at(TokenKind::Newline) {
                self.bump();
            }
            if self.at(TokenKind::CloseBrace) {
                break;
            }
            items.push(self.object_item()?);
            if !self.at(TokenKind::Comma) && !self.at(TokenKind::Newline) {
                break;
            }
            self.bump();
        }
        self.close(TokenKind::CloseBrace, open, "`,`, the end of the line or `}`", outside)?;
        let span = self.span_from(open.start);
        self.node(span, ExprKind::Object(items.into_boxed_slice()))
    }

    /// Whether the first word behind a brace is `for`, used as a word and not as a key.
    fn at_for_behind_newlines(&self) -> bool {
        let mut lexer = self.lexer.clone();
        let first = if self.at(TokenKind::Newline) { lexer.next(false) } else { self.token };
        first.kind == TokenKind::Ident
            && self.slice(first) == "for"
            && lexer.next(false).kind == TokenKind::Ident
    }

    fn object_item(&mut self) -> Parse<ObjectItem> {
        let key = self.object_key()?;
        if !self.at(TokenKind::Equal) && !self.at(TokenKind::Colon) {
            return Err(self.unexpected("`=` or `:` and a value"));
        }
        self.bump_as(Role::Assign);
        let value = self.expr()?;
        Ok(ObjectItem { key, value })
    }

    /// A bare word is the key itself; anything else is evaluated.
    fn object_key(&mut self) -> Parse<Expr> {
        let bare = self.at(TokenKind::Ident);
        let expr = self.expr()?;
        Ok(match expr.kind {
            ExprKind::Variable(name) if bare => Expr::new(expr.span, ExprKind::String(name)),
            ExprKind::Bool(value) if bare => self.bare_key(&expr, &value.to_string()),
            ExprKind::Null if bare => self.bare_key(&expr, "null"),
            _ => expr,
        })
    }

    fn bare_key(&mut self, expr: &Expr, text: &str) -> Expr {
        Expr::new(expr.span, ExprKind::String(self.intern(text)))
    }

    fn for_tuple(&mut self, open: Token, outside: bool) -> Parse<Expr> {
        let head = self.for_head()?;
        let value = self.expr()?;
        let condition = self.for_condition()?;
        self.close(TokenKind::CloseBracket, open, "`if` or `]`", outside)?;
        self.for_node(open, head, ForResult::Tuple(value), condition)
    }

    fn for_object(&mut self, open: Token, outside: bool) -> Parse<Expr> {
        let head = self.for_head()?;
        let key = self.expr()?;
        self.expect(TokenKind::FatArrow, "`=>` between key and value")?;
        let value = self.expr()?;
        let group = self.at(TokenKind::Ellipsis);
        if group {
            self.bump_as(Role::Postfix);
        }
        let condition = self.for_condition()?;
        self.close(TokenKind::CloseBrace, open, "`if` or `}`", outside)?;
        self.for_node(open, head, ForResult::Object { key, value, group }, condition)
    }

    fn for_node(
        &mut self,
        open: Token,
        head: ForHead,
        result: ForResult,
        condition: Option<Expr>,
    ) -> Parse<Expr> {
        let span = self.span_from(open.start);
        let ForHead { key, value, collection } = head;
        let each = For { key, value, collection, result, condition };
        self.node(span, ExprKind::For(Box::new(each)))
    }

    fn for_head(&mut self) -> Parse<ForHead> {
        self.bump();
        let (key, value) = self.for_names()?;
        let collection = self.for_collection()?;
        self.expect(TokenKind::Colon, "`:` and the result")?;
        Ok(ForHead { key, value, collection })
    }

    /// `value` or `key, value`.
    pub(super) fn for_names(&mut self) -> Parse<(Option<Ident>, Ident)> {
        let first = self.ident("a name for the element")?;
        if !self.eat(TokenKind::Comma) {
            return Ok((None, first));
        }
        let second = self.ident("a name for the element behind the name for the key")?;
        Ok((Some(first), second))
    }

    /// `in collection`.
    pub(super) fn for_collection(&mut self) -> Parse<Expr> {
        if !self.at_word("in") {
            return Err(self.unexpected("`in` and a collection"));
        }
        self.bump();
        self.expr()
    }

    fn for_condition(&mut self) -> Parse<Option<Expr>> {
        if !self.at_word("if") {
            return Ok(None);
        }
        self.bump();
        self.expr().map(Some)
    }
}
