//! Bodies: attributes and blocks, and where reading goes on behind a mistake.

use std::collections::HashSet;
use std::sync::Arc;

use super::{Failed, Parse, Parser, Role};
use crate::diagnostic::Diagnostic;
use crate::syntax::ast::{Attribute, Block, Body, Expr, ExprKind, Ident};
use crate::syntax::span::Span;
use crate::syntax::token::TokenKind;

/// Where an item starts: what recovery needs to find its end.
#[derive(Clone, Copy)]
struct ItemStart {
    offset: u32,
    brackets: u32,
    nesting: u32,
}

impl Parser<'_, '_> {
    pub(super) fn file_body(&mut self) -> Body {
        self.advance();
        let start = self.token.start;
        let mut body = self.empty_body(start);
        loop {
            self.items(&mut body);
            if self.at(TokenKind::EndOfFile) {
                break;
            }
            let diagnostic = Diagnostic::error(self.span_of(self.token), "unexpected `}`")
                .with_label("there is no open block to close");
            self.report(diagnostic);
            self.bump();
        }
        body.span = self.span_from(start);
        self.refuse_repeated(&mut body);
        body
    }

    fn empty_body(&self, start: u32) -> Body {
        Body {
            attributes: Vec::new(),
            blocks: Vec::new(),
            span: self.span(start, start),
            broken: false,
        }
    }

    /// Reads items up to a closing brace or the end of the file.
    fn items(&mut self, body: &mut Body) {
        loop {
            match self.token.kind {
                TokenKind::Newline => {
                    self.bump();
                }
                TokenKind::CloseBrace | TokenKind::EndOfFile => return,
                _ => {
                    let start = self.item_start(self.token.start);
                    if self.item(body).and_then(|()| self.item_end()).is_err() {
                        body.broken = true;
                        self.recover(start);
                    }
                }
            }
        }
    }

    fn item_start(&self, offset: u32) -> ItemStart {
        ItemStart { offset, brackets: self.brackets, nesting: self.nesting }
    }

    fn item_end(&mut self) -> Parse<()> {
        if self.at_item_end() { Ok(()) } else { Err(self.unexpected_after_item()) }
    }

    /// Whether an item may end here: recovery may already stand at the start of the next line.
    fn at_item_end(&self) -> bool {
        match self.token.kind {
            TokenKind::Newline | TokenKind::EndOfFile | TokenKind::CloseBrace => true,
            TokenKind::Ident => self.line_start_column(self.token.start).is_some(),
            _ => false,
        }
    }

    fn unexpected_after_item(&mut self) -> Failed {
        let mut diagnostic = self.unexpected_diagnostic("the end of the line");
        if self.at(TokenKind::Comma) {
            diagnostic =
                diagnostic.with_help("items of a block end with the line, without a comma");
        }
        self.report(diagnostic)
    }

    fn item(&mut self, body: &mut Body) -> Parse<()> {
        if self.at(TokenKind::Quote) {
            return Err(self.quoted_name());
        }
        let name = self.ident("an attribute (`name = value`) or a block (`kind \"name\" {`)")?;
        match self.token.kind {
            TokenKind::Equal => {
                let attribute = self.attribute(name);
                body.attributes.push(attribute);
            }
            TokenKind::OpenBrace | TokenKind::Quote | TokenKind::Ident => {
                let block = self.nested(|parser| parser.block(name))?;
                body.blocks.push(block);
            }
            TokenKind::Colon => {
                let diagnostic = self
                    .unexpected_diagnostic("`=`")
                    .with_help(format!("write `{} = value`", name.name));
                return Err(self.report(diagnostic));
            }
            _ => {
                let wanted = format!("`=` and a value, or the `{{` of a block `{}`", name.name);
                return Err(self.unexpected(&wanted));
            }
        }
        Ok(())
    }

    fn quoted_name(&mut self) -> Failed {
        let diagnostic = self
            .unexpected_diagnostic("a name")
            .with_help("names of attributes and blocks are written without quotes");
        self.report(diagnostic)
    }

    /// `name = value`; a value that cannot be read stays in the tree as an error, so that the
    /// attribute does not count as missing.
    fn attribute(&mut self, name: Ident) -> Attribute {
        let start = self.item_start(name.span.start);
        self.bump_as(Role::Assign);
        let value_start = self.token.start;
        let expr = self.expr().unwrap_or_else(|Failed| {
            self.recover(start);
            Expr::new(self.span_from(value_start), ExprKind::Error)
        });
        Attribute { name, expr }
    }

    fn block(&mut self, kind: Ident) -> Parse<Block> {
        let mut labels = Vec::new();
        loop {
            match self.token.kind {
                TokenKind::Ident => labels.push(self.ident("a label")?),
                TokenKind::Quote => labels.push(self.quoted_label()?),
                _ => break,
            }
        }
        let header = self.span_from(kind.span.start);
        if self.at(TokenKind::Newline) {
            self.brace_on_next_line(&kind)?;
        } else if !self.at(TokenKind::OpenBrace) {
            return Err(self.unexpected("`{`"));
        }
        let body = self.braced_body(header)?;
        Ok(Block { kind, labels, body, span: header })
    }

    /// Reports a header without `{` on its line, and goes on if it stands on the next one.
    fn brace_on_next_line(&mut self, kind: &Ident) -> Parse<()> {
        let follows = self.lexer.clone().next(false).kind == TokenKind::OpenBrace;
        let help = if follows {
            "the `{` of a block stands on the same line as its name".to_owned()
        } else {
            format!("an attribute is written `{} = value`", kind.name)
        };
        let diagnostic = self.unexpected_diagnostic("`{`").with_help(help);
        let failed = self.report(diagnostic);
        if !follows {
            return Err(failed);
        }
        while self.at(TokenKind::Newline) {
            self.bump();
        }
        Ok(())
    }

    fn quoted_label(&mut self) -> Parse<Ident> {
        let expr = self.quoted_template()?;
        if let ExprKind::String(name) = expr.kind {
            return Ok(Ident { name, span: expr.span });
        }
        let diagnostic = Diagnostic::error(expr.span, "a label must be plain text")
            .with_label("holds an interpolation")
            .with_help("use `for_each` for blocks whose names are computed");
        Err(self.report(diagnostic))
    }

    fn braced_body(&mut self, header: Span) -> Parse<Body> {
        let open = self.bump_as(Role::Block);
        let mut body = self.empty_body(open.end);
        if self.at(TokenKind::Newline) || self.at(TokenKind::EndOfFile) {
            self.items(&mut body);
        } else {
            self.one_line_body(&mut body)?;
        }
        body.span = self.span(open.end, self.token.start.max(open.end));
        if self.at(TokenKind::EndOfFile) {
            let diagnostic = Diagnostic::error(header, "this block is not closed")
                .with_label("its `}` is missing");
            body.broken = true;
            if !std::mem::replace(&mut self.unclosed, true) {
                self.report(diagnostic);
            }
        } else {
            self.bump_as(Role::Block);
        }
        self.refuse_repeated(&mut body);
        Ok(body)
    }

    /// `{ name = value }`: by the grammar at most one attribute.
    fn one_line_body(&mut self, body: &mut Body) -> Parse<()> {
        if self.at(TokenKind::CloseBrace) {
            return Ok(());
        }
        let name = self.ident("an attribute or `}`")?;
        if !self.at(TokenKind::Equal) {
            let diagnostic = self
                .unexpected_diagnostic("`=`")
                .with_help("a block with blocks inside takes several lines");
            return Err(self.report(diagnostic));
        }
        let attribute = self.attribute(name);
        let broken = matches!(attribute.expr.kind, ExprKind::Error);
        body.attributes.push(attribute);
        if broken && !self.at(TokenKind::CloseBrace) {
            return Err(Failed);
        }
        if !self.at(TokenKind::CloseBrace) {
            let diagnostic = self
                .unexpected_diagnostic("`}`")
                .with_help("a block on one line holds one attribute; use one line for each");
            return Err(self.report(diagnostic));
        }
        Ok(())
    }

    /// Reports attributes that are set twice and leaves out the later ones.
    fn refuse_repeated(&mut self, body: &mut Body) {
        const FEW: usize = 16;
        // Names are interned: equal ones are one allocation.
        let twice = |(index, attribute): (usize, &Attribute)| {
            let later = &body.attributes[index + 1..];
            later.iter().any(|other| Arc::ptr_eq(&attribute.name.name, &other.name.name))
        };
        if body.attributes.len() <= FEW && !body.attributes.iter().enumerate().any(twice) {
            return;
        }
        let mut order: Vec<usize> = (0..body.attributes.len()).collect();
        order.sort_by_key(|index| (&*body.attributes[*index].name.name, *index));
        let mut repeated = HashSet::new();
        for group in
            order.chunk_by(|a, b| body.attributes[*a].name.name == body.attributes[*b].name.name)
        {
            let first = &body.attributes[group[0]].name;
            for again in &group[1..] {
                let span = body.attributes[*again].name.span;
                let summary = format!("`{}` is set twice", first.name);
                self.diagnostics.push(
                    Diagnostic::error(span, summary)
                        .with_label("set again here")
                        .with_related(first.span, "first set here"),
                );
                repeated.insert(span);
            }
        }
        if !repeated.is_empty() {
            body.attributes.retain(|attribute| !repeated.contains(&attribute.name.span));
        }
    }

    /// Skips what is left of a broken item.
    ///
    /// The item ends with its line once its brackets are closed. Where they are not, the layout
    /// tells: a line that starts with a name no further in than the item, or with a brace further
    /// out, belongs to what follows.
    fn recover(&mut self, start: ItemStart) {
        self.newlines = true;
        self.nesting = start.nesting;
        let indent = self.indent(start.offset);
        if let Some(name) = self.name_before_equal(indent).filter(|name| *name > start.offset) {
            self.lexer.set_pos(name);
            self.advance();
            self.brackets = start.brackets;
            return;
        }
        loop {
            let token = self.token;
            let column = self.line_start_column(token.start).filter(|_| token.start > start.offset);
            let next_item = match token.kind {
                TokenKind::EndOfFile => true,
                TokenKind::Ident => column.is_some_and(|column| column <= indent),
                TokenKind::CloseBrace if column.is_some_and(|column| column < indent) => true,
                TokenKind::CloseBrace | TokenKind::Newline => self.brackets <= start.brackets,
                _ => false,
            };
            if next_item {
                self.brackets = start.brackets;
                return;
            }
            self.skip_token();
        }
    }

    /// If `=` is at hand and only a name before it on its line, no further in than `indent`: the
    /// start of that name. It was taken for a part of the item before, which was not closed.
    fn name_before_equal(&self, indent: usize) -> Option<u32> {
        if !self.at(TokenKind::Equal) {
            return None;
        }
        let before = self.text[..self.token.start as usize].trim_end_matches([' ', '\t']);
        let word = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '-');
        let name = before.trim_end_matches(word);
        let start = u32::try_from(name.len()).ok().filter(|_| name.len() < before.len())?;
        self.line_start_column(start).filter(|column| *column <= indent).map(|_| start)
    }

    /// Consumes the token at hand without reading it; a string as a whole.
    fn skip_token(&mut self) {
        match self.token.kind {
            TokenKind::Quote | TokenKind::Heredoc => self.skip_template(),
            _ => {
                self.bump();
            }
        }
    }

    /// How far in `offset` stands, if only blanks stand before it on its line.
    fn line_start_column(&self, offset: u32) -> Option<usize> {
        let before = &self.text.as_bytes()[..offset as usize];
        let blanks = before.iter().rev().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        matches!(before.iter().rev().nth(blanks), None | Some(b'\n')).then_some(blanks)
    }

    /// The indentation of the line of `offset`; of a line longer than the bound, none.
    fn indent(&self, offset: u32) -> usize {
        const FARTHEST_BYTES: usize = 1000;
        let before = &self.text.as_bytes()[..offset as usize];
        let near = &before[before.len().saturating_sub(FARTHEST_BYTES)..];
        let Some(line) = near.rsplit(|byte| *byte == b'\n').next() else { return 0 };
        line.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()
    }
}
