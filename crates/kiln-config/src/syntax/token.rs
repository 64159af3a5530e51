//! The tokens of the grammar.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TokenKind {
    Ident,
    Number,
    /// The `"` that opens a quoted template; what follows is read by the template scanner.
    Quote,
    /// `<<NAME` or `<<-NAME` with its line break; what follows is read by the template scanner.
    Heredoc,
    OpenBrace,
    CloseBrace,
    OpenBracket,
    CloseBracket,
    OpenParen,
    CloseParen,
    Comma,
    Dot,
    Ellipsis,
    Equal,
    EqualEqual,
    NotEqual,
    Not,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    FatArrow,
    Colon,
    Question,
    Plus,
    Minus,
    Star,
    Slash,
    Percent,
    And,
    Or,
    /// `~}`, which ends a template sequence and trims what follows.
    TrimClose,
    Newline,
    EndOfFile,
    /// A character that starts no token.
    Invalid,
}

impl TokenKind {
    /// The kind as messages call it; names and numbers are better shown as they stand.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Ident => "name",
            Self::Number => "number",
            Self::Quote => "string",
            Self::Heredoc => "heredoc",
            Self::OpenBrace => "`{`",
            Self::CloseBrace => "`}`",
            Self::OpenBracket => "`[`",
            Self::CloseBracket => "`]`",
            Self::OpenParen => "`(`",
            Self::CloseParen => "`)`",
            Self::Comma => "`,`",
            Self::Dot => "`.`",
            Self::Ellipsis => "`...`",
            Self::Equal => "`=`",
            Self::EqualEqual => "`==`",
            Self::NotEqual => "`!=`",
            Self::Not => "`!`",
            Self::Less => "`<`",
            Self::LessOrEqual => "`<=`",
            Self::Greater => "`>`",
            Self::GreaterOrEqual => "`>=`",
            Self::FatArrow => "`=>`",
            Self::Colon => "`:`",
            Self::Question => "`?`",
            Self::Plus => "`+`",
            Self::Minus => "`-`",
            Self::Star => "`*`",
            Self::Slash => "`/`",
            Self::Percent => "`%`",
            Self::And => "`&&`",
            Self::Or => "`||`",
            Self::TrimClose => "`~}`",
            Self::Newline => "end of the line",
            Self::EndOfFile => "end of the file",
            Self::Invalid => "character",
        }
    }

    /// Whether the token opens a pair of brackets.
    pub(crate) const fn opens(self) -> bool {
        matches!(self, Self::OpenBrace | Self::OpenBracket | Self::OpenParen)
    }

    /// Whether the token closes a pair of brackets.
    pub(crate) const fn closes(self) -> bool {
        matches!(self, Self::CloseBrace | Self::CloseBracket | Self::CloseParen)
    }
}

/// A token and its place in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) start: u32,
    pub(crate) end: u32,
}
