//! HCL native syntax: places in the source, the tree, the lexer and the parser.

pub mod ast;
pub mod span;
