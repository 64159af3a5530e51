//! Expressions: operators by precedence, and what follows a term.

use super::{Parse, Parser, Role};
use crate::diagnostic::Diagnostic;
use crate::syntax::ast::{
    Binary, BinaryOp, Call, Conditional, Expr, ExprKind, GetAttr, Ident, Index, Splat, UnaryOp,
};
use crate::syntax::token::{Token, TokenKind};

impl Parser<'_, '_> {
    pub(super) fn expr(&mut self) -> Parse<Expr> {
        self.nested(Self::conditional)
    }

    /// `condition ? then : otherwise`, or what is below it.
    fn conditional(&mut self) -> Parse<Expr> {
        let condition = self.binary(0)?;
        if !self.eat(TokenKind::Question) {
            return Ok(condition);
        }
        let then = self.expr()?;
        self.expect(TokenKind::Colon, "`:` and the value for false")?;
        let otherwise = self.expr()?;
        let span = condition.span.to(otherwise.span);
        let conditional = Conditional { condition, then, otherwise };
        self.node(span, ExprKind::Conditional(Box::new(conditional)))
    }

    /// Operators that bind at least as tightly as `least`; equal ones group to the left.
    fn binary(&mut self, least: u8) -> Parse<Expr> {
        let mut left = self.unary()?;
        while let Some((op, tightness)) = binary_op(self.token.kind) {
            if tightness < least {
                break;
            }
            let op_token = self.bump();
            let right = self.binary(tightness + 1)?;
            let span = left.span.to(right.span);
            let op_span = self.span_of(op_token);
            let binary = Binary { left, op, op_span, right };
            left = self.node(span, ExprKind::Binary(Box::new(binary)))?;
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parse<Expr> {
        let op = match self.token.kind {
            TokenKind::Minus => UnaryOp::Negate,
            TokenKind::Not => UnaryOp::Not,
            _ => return self.postfix(),
        };
        let start = self.bump_as(Role::Prefix).start;
        let operand = self.nested(Self::unary)?;
        let span = self.span_from(start);
        self.node(span, ExprKind::Unary(op, Box::new(operand)))
    }

    /// A term and what follows it: attributes, indexes, splats.
    fn postfix(&mut self) -> Parse<Expr> {
        let term = self.term()?;
        self.traversals(term)
    }

    pub(super) fn traversals(&mut self, mut source: Expr) -> Parse<Expr> {
        loop {
            source = match self.token.kind {
                TokenKind::Dot => {
                    let dot = self.bump();
                    match self.token.kind {
                        TokenKind::Star => self.attribute_splat(source, dot)?,
                        TokenKind::Number => self.legacy_index(source)?,
                        _ => self.get_attr(source)?,
                    }
                }
                TokenKind::OpenBracket => self.index(source)?,
                _ => return Ok(source),
            };
        }
    }

    fn get_attr(&mut self, source: Expr) -> Parse<Expr> {
        let name = self.ident("the name of an attribute")?;
        let span = source.span.to(name.span);
        self.node(span, ExprKind::GetAttr(Box::new(GetAttr { source, name })))
    }

    /// `.0`, and `.0.1`, which reads as one number.
    fn legacy_index(&mut self, mut source: Expr) -> Parse<Expr> {
        let token = self.bump();
        let mut start = token.start;
        for digits in self.slice(token).split('.') {
            let key_span = self.span(start, start + u32::try_from(digits.len()).unwrap_or(0));
            if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                let diagnostic = Diagnostic::error(key_span, "this is no position in a list")
                    .with_label("expected digits only");
                return Err(self.report(diagnostic));
            }
            let key = Expr::new(key_span, ExprKind::Number(self.intern(digits)));
            let span = source.span.to(key_span);
            source = self.node(span, ExprKind::Index(Box::new(Index { source, key })))?;
            start = key_span.end + 1;
        }
        Ok(source)
    }

    /// `[key]` or `[*]`.
    fn index(&mut self, source: Expr) -> Parse<Expr> {
        let outside = std::mem::replace(&mut self.newlines, false);
        let open = self.bump_as(Role::Postfix);
        if self.at(TokenKind::Star) {
            self.bump_as(Role::Postfix);
            let close = self.close(TokenKind::CloseBracket, open, "`]`", outside)?;
            let item = self.splat_item(open, close);
            let each = self.nested(|parser| parser.traversals(item))?;
            return self.splat(source, each, open, close);
        }
        let key = self.expr()?;
        let close = self.close(TokenKind::CloseBracket, open, "`]`", outside)?;
        let span = source.span.to(self.span_of(close));
        self.node(span, ExprKind::Index(Box::new(Index { source, key })))
    }

    /// `.*` and the attributes and positions that follow; an index behind them takes from the
    /// resulting list.
    fn attribute_splat(&mut self, source: Expr, dot: Token) -> Parse<Expr> {
        let star = self.bump_as(Role::Postfix);
        let mut each = self.splat_item(dot, star);
        while self.at(TokenKind::Dot) {
            self.bump();
            each = match self.token.kind {
                TokenKind::Number => self.legacy_index(each)?,
                _ => self.get_attr(each)?,
            };
        }
        self.splat(source, each, dot, star)
    }

    fn splat_item(&self, first: Token, last: Token) -> Expr {
        Expr::new(self.span(first.start, last.end), ExprKind::SplatItem)
    }

    fn splat(&mut self, source: Expr, each: Expr, first: Token, last: Token) -> Parse<Expr> {
        let span = source.span.to(each.span);
        let mark = self.span(first.start, last.end);
        self.node(span, ExprKind::Splat(Box::new(Splat { source, each, mark })))
    }

    fn term(&mut self) -> Parse<Expr> {
        let token = self.token;
        match token.kind {
            TokenKind::Number => {
                self.bump();
                let text = self.intern(self.slice(token));
                Ok(Expr::new(self.span_of(token), ExprKind::Number(text)))
            }
            TokenKind::Ident => self.word(),
            TokenKind::Quote => self.nested(Self::quoted_template),
            TokenKind::Heredoc => self.nested(Self::heredoc),
            TokenKind::OpenParen => self.parenthesized(),
            TokenKind::OpenBracket => self.tuple_or_for(),
            TokenKind::OpenBrace => self.object_or_for(),
            _ => Err(self.missing_value()),
        }
    }

    fn missing_value(&mut self) -> super::Failed {
        let mut diagnostic = self.unexpected_diagnostic("a value");
        if self.at(TokenKind::Equal) {
            diagnostic = diagnostic.with_help("to compare, write `==`");
        }
        self.report(diagnostic)
    }

    /// A name: a constant, a call or the start of a reference.
    fn word(&mut self) -> Parse<Expr> {
        let name = self.ident("a name")?;
        if self.at(TokenKind::OpenParen) {
            return self.call(name);
        }
        let kind = match &*name.name {
            "true" => ExprKind::Bool(true),
            "false" => ExprKind::Bool(false),
            "null" => ExprKind::Null,
            _ => ExprKind::Variable(name.name),
        };
        Ok(Expr::new(name.span, kind))
    }

    fn call(&mut self, name: Ident) -> Parse<Expr> {
        let outside = std::mem::replace(&mut self.newlines, false);
        let open = self.bump_as(Role::Postfix);
        let mut args = Vec::new();
        let mut expand_last = false;
        while !self.at(TokenKind::CloseParen) {
            args.push(self.expr()?);
            if self.eat(TokenKind::Ellipsis) {
                expand_last = true;
                self.eat(TokenKind::Comma);
                break;
            }
            if !self.eat(TokenKind::Comma) {
                break;
            }
        }
        let wanted = if expand_last { "`)` behind `...`" } else { "`,` or `)`" };
        self.close(TokenKind::CloseParen, open, wanted, outside)?;
        let span = self.span_from(name.span.start);
        let call = Call { name, args: args.into_boxed_slice(), expand_last };
        self.node(span, ExprKind::Call(Box::new(call)))
    }

    fn parenthesized(&mut self) -> Parse<Expr> {
        let outside = std::mem::replace(&mut self.newlines, false);
        let open = self.bump();
        let mut inner = self.expr()?;
        self.close(TokenKind::CloseParen, open, "an operator or `)`", outside)?;
        inner.span = self.span_from(open.start);
        Ok(inner)
    }
}

/// The operator of a token and how tightly it binds.
const fn binary_op(kind: TokenKind) -> Option<(BinaryOp, u8)> {
    Some(match kind {
        TokenKind::Or => (BinaryOp::Or, 1),
        TokenKind::And => (BinaryOp::And, 2),
        TokenKind::EqualEqual => (BinaryOp::Equal, 3),
        TokenKind::NotEqual => (BinaryOp::NotEqual, 3),
        TokenKind::Less => (BinaryOp::Less, 4),
        TokenKind::LessOrEqual => (BinaryOp::LessOrEqual, 4),
        TokenKind::Greater => (BinaryOp::Greater, 4),
        TokenKind::GreaterOrEqual => (BinaryOp::GreaterOrEqual, 4),
        TokenKind::Plus => (BinaryOp::Add, 5),
        TokenKind::Minus => (BinaryOp::Subtract, 5),
        TokenKind::Star => (BinaryOp::Multiply, 6),
        TokenKind::Slash => (BinaryOp::Divide, 6),
        TokenKind::Percent => (BinaryOp::Remainder, 6),
        _ => return None,
    })
}
