//! The tree of a parsed source: bodies, blocks, attributes, expressions and templates of HCL2.
//!
//! The grammar is that of the HCL native syntax specification. What the parser has already
//! decided is not in the tree: parentheses, comments, indentation of `<<-` heredocs, escape
//! sequences and the `~` trim marks of templates.
//!
//! The tree is bounded: no expression is higher than [`MAX_EXPR_HEIGHT`], so functions may walk
//! it by recursion.

use std::sync::Arc;

use super::span::Span;

/// A piece of text that the tree shares: identifiers are interned per file, so that equal ones of
/// one file are one allocation.
pub type Name = Arc<str>;

/// The greatest height of an expression, counted in nodes from root to leaf. The parser reports
/// what is higher and puts [`ExprKind::Error`] in its place.
pub const MAX_EXPR_HEIGHT: u16 = 256;

/// An identifier and its place.
#[derive(Clone, Debug)]
pub struct Ident {
    /// The text.
    pub name: Name,
    /// Its place.
    pub span: Span,
}

/// The inside of a file or a block. Attributes and blocks each stand in source order.
#[derive(Clone, Debug)]
pub struct Body {
    /// `name = expression` lines. Names are unique: a second one is an error of the parser and is
    /// left out.
    pub attributes: Vec<Attribute>,
    /// Nested blocks.
    pub blocks: Vec<Block>,
    /// From behind the opening brace to the closing one, or the whole file.
    pub span: Span,
    /// Whether an item could not be read, has been reported, and was left out.
    pub broken: bool,
}

/// `name = expression`.
#[derive(Clone, Debug)]
pub struct Attribute {
    /// What stands left of `=`.
    pub name: Ident,
    /// What stands right of it.
    pub expr: Expr,
}

/// `kind "label" … { body }`.
#[derive(Clone, Debug)]
pub struct Block {
    /// The kind of block, such as `server`.
    pub kind: Ident,
    /// The labels, quoted or bare.
    pub labels: Vec<Ident>,
    /// What stands between the braces.
    pub body: Body,
    /// The header: from the kind to the last label. Errors about the whole block point here.
    pub span: Span,
}

/// An expression and its place.
#[derive(Clone, Debug)]
pub struct Expr {
    /// Its place, parentheses included.
    pub span: Span,
    height: u16,
    /// What it is.
    pub kind: ExprKind,
}

/// What an expression is.
#[derive(Clone, Debug)]
pub enum ExprKind {
    /// Something that could not be parsed and has been reported; evaluates to unknown without
    /// a further word.
    Error,
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number as written: digits, optional fraction, optional exponent; never signed.
    Number(Name),
    /// Text without any interpolation, quoted or heredoc; also an object key that is a bare word.
    String(Name),
    /// Text with at least one interpolation or directive.
    Template(Box<Template>),
    /// The first name of a reference, such as `var` in `var.region`.
    Variable(Name),
    /// The item at hand inside [`Splat::each`]; of nested splats the innermost one's.
    SplatItem,
    /// `source.name`.
    GetAttr(Box<GetAttr>),
    /// `source[key]` and the legacy `source.0`.
    Index(Box<Index>),
    /// `source[*]…` or `source.*…`.
    Splat(Box<Splat>),
    /// `name(args)`.
    Call(Box<Call>),
    /// `[a, b]`.
    Tuple(Box<[Expr]>),
    /// `{ a = b, (c) = d }`.
    Object(Box<[ObjectItem]>),
    /// `[for …]` or `{for …}`.
    For(Box<For>),
    /// `condition ? then : otherwise`.
    Conditional(Box<Conditional>),
    /// `-a` or `!a`.
    Unary(UnaryOp, Box<Expr>),
    /// `a + b` and the like.
    Binary(Box<Binary>),
}

/// `source.name`.
#[derive(Clone, Debug)]
pub struct GetAttr {
    /// What is looked into.
    pub source: Expr,
    /// The attribute; its span leaves out the dot.
    pub name: Ident,
}

/// `source[key]`.
#[derive(Clone, Debug)]
pub struct Index {
    /// What is looked into.
    pub source: Expr,
    /// The key or position.
    pub key: Expr,
}

/// A splat: `each`, evaluated for each item of `source`.
#[derive(Clone, Debug)]
pub struct Splat {
    /// The list; a value that is no list counts as a list of one, null as an empty one.
    pub source: Expr,
    /// What is taken of each item, rooted in [`ExprKind::SplatItem`].
    pub each: Expr,
    /// The place of `[*]` or `.*`.
    pub mark: Span,
}

/// `name(args)`.
#[derive(Clone, Debug)]
pub struct Call {
    /// The function.
    pub name: Ident,
    /// The arguments, left to right.
    pub args: Box<[Expr]>,
    /// Whether the last argument is followed by `...` and so stands for its elements.
    pub expand_last: bool,
}

/// One entry of an object constructor.
#[derive(Clone, Debug)]
pub struct ObjectItem {
    /// The key: [`ExprKind::String`] where it was a bare word.
    pub key: Expr,
    /// The value.
    pub value: Expr,
}

/// `[for key, value in collection : result if condition]` or the same with braces.
#[derive(Clone, Debug)]
pub struct For {
    /// The name given to the key or position, where there are two names.
    pub key: Option<Ident>,
    /// The name given to the element.
    pub value: Ident,
    /// What is walked.
    pub collection: Expr,
    /// What each element yields.
    pub result: ForResult,
    /// The filter behind `if`.
    pub condition: Option<Expr>,
}

/// What a `for` expression makes of each element.
#[derive(Clone, Debug)]
pub enum ForResult {
    /// `[for … : value]`: one element of a tuple.
    Tuple(Expr),
    /// `{for … : key => value}`: one attribute of an object.
    Object {
        /// The attribute's name.
        key: Expr,
        /// The attribute's value.
        value: Expr,
        /// Whether `...` follows, so that values of equal keys are gathered in lists.
        group: bool,
    },
}

/// `condition ? then : otherwise`.
#[derive(Clone, Debug)]
pub struct Conditional {
    /// What decides.
    pub condition: Expr,
    /// The value if true.
    pub then: Expr,
    /// The value if false.
    pub otherwise: Expr,
}

/// `left op right`.
#[derive(Clone, Debug)]
pub struct Binary {
    /// Left operand.
    pub left: Expr,
    /// Operator.
    pub op: BinaryOp,
    /// Where the operator stands.
    pub op_span: Span,
    /// Right operand.
    pub right: Expr,
}

/// An operator with one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnaryOp {
    /// `-`
    Negate,
    /// `!`
    Not,
}

/// An operator with two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BinaryOp {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Remainder,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `&&`
    And,
    /// `||`
    Or,
}

/// Text with holes.
///
/// A template that is exactly one [`TemplatePart::Interpolation`] stands for that value itself,
/// whatever its type; any other yields a string.
#[derive(Clone, Debug)]
pub struct Template {
    /// The parts, in order; literal neighbours are already joined and trimmed.
    pub parts: Box<[TemplatePart]>,
}

/// One part of a template.
#[derive(Clone, Debug)]
pub enum TemplatePart {
    /// Text as it stands, escapes resolved.
    Literal(Name, Span),
    /// `${expression}`.
    Interpolation(Expr),
    /// `%{ if condition }then%{ else }otherwise%{ endif }`.
    If {
        /// What decides.
        condition: Expr,
        /// The text if true.
        then: Template,
        /// The text if false; without `else` it has no parts.
        otherwise: Template,
        /// From `%{ if` to the end of `%{ endif }`.
        span: Span,
    },
    /// `%{ for key, value in collection }body%{ endfor }`.
    For {
        /// The name given to the key or position, where there are two names.
        key: Option<Ident>,
        /// The name given to the element.
        value: Ident,
        /// What is walked.
        collection: Expr,
        /// The text of each element.
        body: Template,
        /// From `%{ for` to the end of `%{ endfor }`.
        span: Span,
    },
}

impl Expr {
    /// An expression of this kind at this place.
    #[inline]
    pub fn new(span: Span, kind: ExprKind) -> Self {
        let height = 1 + kind.child_height();
        Self { span, height, kind }
    }

    /// The number of nodes from this one to its deepest leaf; a leaf has 1.
    pub const fn height(&self) -> u16 {
        self.height
    }

    /// The word itself if the expression is a single name, such as a type in a variable block.
    pub fn as_variable(&self) -> Option<&Name> {
        match &self.kind {
            ExprKind::Variable(name) => Some(name),
            _ => None,
        }
    }
}

impl ExprKind {
    fn child_height(&self) -> u16 {
        match self {
            Self::Error
            | Self::Null
            | Self::Bool(_)
            | Self::Number(_)
            | Self::String(_)
            | Self::Variable(_)
            | Self::SplatItem => 0,
            Self::Template(template) => template.height(),
            Self::GetAttr(get) => get.source.height,
            Self::Index(index) => index.source.height.max(index.key.height),
            Self::Splat(splat) => splat.source.height.max(splat.each.height),
            Self::Call(call) => highest(call.args.iter()),
            Self::Tuple(items) => highest(items.iter()),
            Self::Object(items) => highest(items.iter().flat_map(|item| [&item.key, &item.value])),
            Self::For(each) => each.child_height(),
            Self::Conditional(cond) => highest([&cond.condition, &cond.then, &cond.otherwise]),
            Self::Unary(_, operand) => operand.height,
            Self::Binary(binary) => binary.left.height.max(binary.right.height),
        }
    }
}

impl For {
    fn child_height(&self) -> u16 {
        let result = match &self.result {
            ForResult::Tuple(value) => value.height,
            ForResult::Object { key, value, .. } => key.height.max(value.height),
        };
        result.max(self.collection.height).max(highest(&self.condition))
    }
}

impl Template {
    /// The height of the highest expression inside, one more for each directive around it.
    pub fn height(&self) -> u16 {
        let of = |part: &TemplatePart| match part {
            TemplatePart::Literal(..) => 0,
            TemplatePart::Interpolation(expr) => expr.height,
            TemplatePart::If { condition, then, otherwise, .. } => {
                1 + condition.height.max(then.height()).max(otherwise.height())
            }
            TemplatePart::For { collection, body, .. } => 1 + collection.height.max(body.height()),
        };
        self.parts.iter().map(of).max().unwrap_or(0)
    }
}

fn highest<'a>(exprs: impl IntoIterator<Item = &'a Expr>) -> u16 {
    exprs.into_iter().map(Expr::height).max().unwrap_or(0)
}
