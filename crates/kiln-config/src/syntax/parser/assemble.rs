//! From the flat parts of a template to its tree: directives matched, literals joined.

use super::template::Piece;
use super::{MAX_NESTING, Parse, Parser};
use crate::diagnostic::Diagnostic;
use crate::syntax::ast::{Expr, ExprKind, Ident, Name, Template, TemplatePart};
use crate::syntax::span::Span;

/// A directive that is open, or the template itself.
struct Frame {
    opener: Opener,
    parts: Vec<TemplatePart>,
    /// Literal text that may still grow.
    pending: Option<(String, Span)>,
}

enum Opener {
    Template,
    If { condition: Expr, span: Span, then: Option<Template> },
    For { key: Option<Ident>, value: Ident, collection: Expr, span: Span },
}

impl Frame {
    const fn new(opener: Opener) -> Self {
        Self { opener, parts: Vec::new(), pending: None }
    }

    fn push_literal(&mut self, text: &str, span: Span) {
        match &mut self.pending {
            Some((pending, place)) => {
                pending.push_str(text);
                *place = place.to(span);
            }
            None => self.pending = Some((text.to_owned(), span)),
        }
    }

    fn push(&mut self, part: TemplatePart) {
        self.settle();
        self.parts.push(part);
    }

    /// Ends the literal at hand.
    fn settle(&mut self) {
        if let Some((text, span)) = self.pending.take().filter(|(text, _)| !text.is_empty()) {
            self.parts.push(TemplatePart::Literal(text.into(), span));
        }
    }

    fn take_template(&mut self) -> Template {
        self.settle();
        Template { parts: std::mem::take(&mut self.parts).into_boxed_slice() }
    }
}

impl Parser<'_, '_> {
    /// The tree of a template: a plain string if it has no sequences.
    pub(super) fn assemble(&mut self, span: Span, mut pieces: Vec<Piece<'_>>) -> Parse<Expr> {
        if pieces.len() <= 1
            && let Some(Piece::Literal { .. }) | None = pieces.first()
        {
            let name = match pieces.pop() {
                Some(Piece::Literal { text, .. }) => self.string(&text),
                _ => self.intern(""),
            };
            return Ok(Expr::new(span, ExprKind::String(name)));
        }
        let mut frames = vec![Frame::new(Opener::Template)];
        for piece in pieces {
            self.place(&mut frames, piece)?;
        }
        while frames.len() > 1 {
            self.unclosed_directive(&frames);
            close_frame(&mut frames, None);
        }
        let parts = frames.pop().map(|mut frame| frame.take_template().parts).unwrap_or_default();
        let kind = match &*parts {
            [] => ExprKind::String(self.intern("")),
            [TemplatePart::Literal(text, _)] => ExprKind::String(text.clone()),
            _ => ExprKind::Template(Box::new(Template { parts })),
        };
        self.node(span, kind)
    }

    /// Short strings repeat often and are shared; long ones are not worth the search.
    pub(super) fn string(&mut self, text: &str) -> Name {
        const LONGEST_SHARED_BYTES: usize = 32;
        if text.len() <= LONGEST_SHARED_BYTES { self.intern(text) } else { text.into() }
    }

    fn place(&mut self, frames: &mut Vec<Frame>, piece: Piece<'_>) -> Parse<()> {
        let depth = frames.len();
        let Some(top) = frames.last_mut() else { return Ok(()) };
        match piece {
            Piece::Literal { text, span } => top.push_literal(&text, span),
            Piece::Interpolation(expr) => top.push(TemplatePart::Interpolation(expr)),
            Piece::If { condition, span } => {
                self.bound_directives(depth, span)?;
                frames.push(Frame::new(Opener::If { condition, span, then: None }));
            }
            Piece::For { key, value, collection, span } => {
                self.bound_directives(depth, span)?;
                frames.push(Frame::new(Opener::For { key, value, collection, span }));
            }
            Piece::Else(span) => {
                if matches!(top.opener, Opener::If { then: None, .. }) {
                    let before = top.take_template();
                    if let Opener::If { then, .. } = &mut top.opener {
                        *then = Some(before);
                    }
                } else {
                    self.stray_directive(span, "else", "if");
                }
            }
            Piece::EndIf(span) => {
                if matches!(top.opener, Opener::If { .. }) {
                    close_frame(frames, Some(span));
                } else {
                    self.stray_directive(span, "endif", "if");
                }
            }
            Piece::EndFor(span) => {
                if matches!(top.opener, Opener::For { .. }) {
                    close_frame(frames, Some(span));
                } else {
                    self.stray_directive(span, "endfor", "for");
                }
            }
        }
        Ok(())
    }

    fn bound_directives(&mut self, depth: usize, span: Span) -> Parse<()> {
        if depth <= MAX_NESTING as usize {
            return Ok(());
        }
        let diagnostic = Diagnostic::error(span, "nested too deeply")
            .with_label(format!("more than {MAX_NESTING} directives in one another"));
        Err(self.report(diagnostic))
    }

    fn stray_directive(&mut self, span: Span, word: &str, opener: &str) {
        self.report(
            Diagnostic::error(span, format!("unexpected `{word}`"))
                .with_label(format!("there is no open `%{{ {opener} }}` here")),
        );
    }

    fn unclosed_directive(&mut self, frames: &[Frame]) {
        let (span, end) = match frames.last().map(|frame| &frame.opener) {
            Some(Opener::If { span, .. }) => (*span, "endif"),
            Some(Opener::For { span, .. }) => (*span, "endfor"),
            _ => return,
        };
        self.report(
            Diagnostic::error(span, "this directive is not closed")
                .with_label(format!("expected `%{{ {end} }}` before the end of the text")),
        );
    }
}

/// Makes the innermost open directive a part of what is around it.
fn close_frame(frames: &mut Vec<Frame>, end: Option<Span>) {
    let Some(mut frame) = frames.pop() else { return };
    let last = frame.take_template();
    let whole = |span: Span| end.map_or(span, |end| span.to(end));
    let part = match frame.opener {
        Opener::Template => return,
        Opener::If { condition, span, then } => {
            let nothing = Template { parts: Box::default() };
            let (then, otherwise) = match then {
                Some(then) => (then, last),
                None => (last, nothing),
            };
            TemplatePart::If { condition, then, otherwise, span: whole(span) }
        }
        Opener::For { key, value, collection, span } => {
            TemplatePart::For { key, value, collection, body: last, span: whole(span) }
        }
    };
    if let Some(outer) = frames.last_mut() {
        outer.push(part);
    }
}
