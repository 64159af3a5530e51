//! What the files of a stack declare, before anything is evaluated.

use std::collections::BTreeMap;

use kiln_model::name::{Kind, is_label};
use rustc_hash::FxHashMap;

use super::schema::{OUTPUT, STACK, Schema, TOP_LEVEL, VARIABLE, attribute, check_nested};
use crate::diagnostic::{Diagnostic, Diagnostics, nearest};
use crate::syntax::ast::{Attribute, Block, Body, Expr, Ident, Name};

/// All declarations of a stack.
#[derive(Debug, Default)]
pub(super) struct Program {
    /// `variable` blocks by name.
    pub(super) variables: BTreeMap<Name, Block>,
    /// Attributes of `locals` blocks, in the order of the files.
    pub(super) locals: Vec<Attribute>,
    /// Where each local stands in `locals`.
    pub(super) local_index: FxHashMap<Name, usize>,
    /// `output` blocks by name.
    pub(super) outputs: BTreeMap<Name, Block>,
    /// The `stack` block.
    pub(super) stack: Option<Block>,
    /// Components, in the order of the files.
    pub(super) components: Vec<Declaration>,
    /// Where each component stands in `components`.
    component_index: FxHashMap<Kind, FxHashMap<Name, usize>>,
    /// Whether a block could not be read: names that are not there may be in it.
    pub(super) incomplete: bool,
}

/// A component block, which `count` and `for_each` may multiply.
#[derive(Debug)]
pub(super) struct Declaration {
    pub(super) kind: Kind,
    pub(super) name: Ident,
    pub(super) block: Block,
}

impl Declaration {
    /// The expression of the attribute of this name.
    pub(super) fn expr(&self, name: &str) -> Option<&Expr> {
        attribute(&self.block.body, name).map(|attribute| &attribute.expr)
    }
}

impl Program {
    /// Takes the declarations out of the bodies of files.
    pub(super) fn new(bodies: Vec<Body>, diagnostics: &mut Diagnostics) -> Self {
        let mut program = Self::default();
        for body in bodies {
            let broken = body.broken || body.blocks.iter().any(|block| block.body.broken);
            program.incomplete |= broken;
            for attribute in &body.attributes {
                diagnostics.push(stray_attribute(attribute));
            }
            for block in body.blocks {
                program.declare(block, diagnostics);
            }
        }
        program
    }

    /// The index of the component `kind.name`.
    pub(super) fn find(&self, kind: Kind, name: &str) -> Option<usize> {
        self.component_index.get(&kind)?.get(name).copied()
    }

    /// The names of all components of a kind, in no order.
    pub(super) fn names(&self, kind: Kind) -> impl Iterator<Item = &str> {
        self.component_index.get(&kind).into_iter().flatten().map(|(name, _)| &**name)
    }

    fn declare(&mut self, block: Block, diagnostics: &mut Diagnostics) {
        let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == &*block.kind.name);
        match (&*block.kind.name, kind) {
            (_, Some(kind)) => self.declare_component(kind, block, diagnostics),
            ("variable", _) => {
                VARIABLE.check(block.span, &block.body, false, diagnostics);
                declare_named(&mut self.variables, block, diagnostics);
            }
            ("output", _) => {
                OUTPUT.check(block.span, &block.body, false, diagnostics);
                declare_named(&mut self.outputs, block, diagnostics);
            }
            ("locals", _) => self.declare_locals(block, diagnostics),
            ("stack", _) => self.declare_stack(block, diagnostics),
            _ => diagnostics.push(unknown_block(&block)),
        }
    }

    fn declare_component(&mut self, kind: Kind, block: Block, diagnostics: &mut Diagnostics) {
        let Some(name) = single_label(&block, diagnostics) else { return };
        Schema::of(kind).check(block.span, &block.body, true, diagnostics);
        block.body.blocks.iter().for_each(|inner| check_nested(inner, diagnostics));
        if let (Some(count), Some(each)) =
            (attribute(&block.body, "count"), attribute(&block.body, "for_each"))
        {
            diagnostics.push(
                Diagnostic::error(each.name.span, "`count` and `for_each` exclude each other")
                    .with_related(count.name.span, "`count` is set here"),
            );
        }
        let names = self.component_index.entry(kind).or_default();
        if let Some(first) = names.get(&name.name) {
            let first = self.components.get(*first).map(|first| first.name.span);
            diagnostics.push(declared_twice(kind.as_str(), &name, first));
            return;
        }
        names.insert(name.name.clone(), self.components.len());
        self.components.push(Declaration { kind, name, block });
    }

    fn declare_locals(&mut self, block: Block, diagnostics: &mut Diagnostics) {
        no_labels(&block, diagnostics);
        for inner in &block.body.blocks {
            diagnostics.push(
                Diagnostic::error(inner.span, "a `locals` block holds no blocks")
                    .with_help(format!("write `{} = {{ … }}`", inner.kind.name)),
            );
        }
        for local in block.body.attributes {
            if let Some(first) = self.local_index.get(&local.name.name) {
                let first = self.locals[*first].name.span;
                diagnostics.push(declared_twice("local", &local.name, Some(first)));
                continue;
            }
            self.local_index.insert(local.name.name.clone(), self.locals.len());
            self.locals.push(local);
        }
    }

    fn declare_stack(&mut self, block: Block, diagnostics: &mut Diagnostics) {
        no_labels(&block, diagnostics);
        STACK.check(block.span, &block.body, false, diagnostics);
        if let Some(first) = &self.stack {
            diagnostics.push(
                Diagnostic::error(block.span, "a stack has one `stack` block")
                    .with_related(first.span, "the first one is here"),
            );
            return;
        }
        self.stack = Some(block);
    }
}

fn declare_named(names: &mut BTreeMap<Name, Block>, block: Block, diagnostics: &mut Diagnostics) {
    let Some(name) = single_label(&block, diagnostics) else { return };
    if let Some(first) = names.get(&name.name) {
        let first = first.labels.first().map(|label| label.span);
        diagnostics.push(declared_twice(&block.kind.name, &name, first));
        return;
    }
    names.insert(name.name, block);
}

/// The name of a block that has exactly one label, which is a name.
fn single_label(block: &Block, diagnostics: &mut Diagnostics) -> Option<Ident> {
    let kind = &block.kind.name;
    let Some((name, rest)) = block.labels.split_first() else {
        diagnostics.push(
            Diagnostic::error(block.span, format!("this `{kind}` block has no name"))
                .with_label(format!("expected `{kind} \"name\" {{`")),
        );
        return None;
    };
    if let Some(more) = rest.first() {
        let summary = format!("a `{kind}` block has one label, its name");
        let mut diagnostic = Diagnostic::error(more.span, summary).with_label("one too many");
        if name.name.contains('_') {
            diagnostic = diagnostic.with_help(format!("write `{kind} \"{}\" {{`", more.name));
        }
        diagnostics.push(diagnostic);
        return None;
    }
    if !is_label(&name.name) {
        diagnostics.push(
            Diagnostic::error(name.span, format!("`{}` is not a valid name", name.name))
                .with_label(
                    "expected a letter, then letters, digits, `-` or `_`, at most 63, \
                 the last no `-` or `_`",
                ),
        );
        return None;
    }
    Some(name.clone())
}

fn no_labels(block: &Block, diagnostics: &mut Diagnostics) {
    if let Some(label) = block.labels.first() {
        let summary = format!("a `{}` block has no label", block.kind.name);
        diagnostics.push(Diagnostic::error(label.span, summary));
    }
}

fn declared_twice(
    what: &str,
    name: &Ident,
    first: Option<crate::syntax::span::Span>,
) -> Diagnostic {
    let summary = format!("{what} `{}` is declared twice", name.name);
    let diagnostic = Diagnostic::error(name.span, summary).with_label("declared again here");
    match first {
        Some(first) => diagnostic.with_related(first, "first declared here"),
        None => diagnostic,
    }
}

fn stray_attribute(attribute: &Attribute) -> Diagnostic {
    let name = &attribute.name.name;
    Diagnostic::error(attribute.name.span, format!("`{name}` stands outside of any block"))
        .with_label("a stack's file holds blocks only")
        .with_help("for a named value, put it into a `locals` block; for a variable's value, into kiln.kilnvars")
}

fn unknown_block(block: &Block) -> Diagnostic {
    let kind = &block.kind;
    let diagnostic = Diagnostic::error(kind.span, format!("unknown block `{}`", kind.name))
        .with_label("a stack has no such block");
    let known = TOP_LEVEL.iter().copied();
    match &*kind.name {
        "resource" | "data" | "provider" | "terraform" | "module" => diagnostic.with_help(
            "a component is written `server \"name\" {`, `network \"name\" {` and so on",
        ),
        "service" | "container" | "job" | "task" => diagnostic.with_help("did you mean `server`?"),
        name => match nearest(name, known) {
            Some(near) => diagnostic.with_help(format!("did you mean `{near}`?")),
            None => diagnostic.with_help(format!("the blocks are {}", TOP_LEVEL.join(", "))),
        },
    }
}
