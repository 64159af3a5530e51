//! HCL native syntax: places in the source, the tree, the lexer and the parser.

pub mod ast;
mod lexer;
mod parser;
pub mod span;
mod token;

pub use parser::{MAX_NESTING, parse_body, parse_expr, parse_template};

pub(crate) use parser::{Role, TraceToken, parse_body_traced};
pub(crate) use token::TokenKind;
