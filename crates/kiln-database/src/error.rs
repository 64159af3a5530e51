//! Why an engine did not do what it was asked for.

/// A question to an instance that was not answered, or not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// Nobody answers at its socket, or not any more.
    #[error("it does not answer: {0}")]
    Silent(String),
    /// It answers that it will not, or cannot yet.
    #[error("it says: {0}")]
    Refused(String),
    /// It answers something that was not to be expected.
    #[error("it gives an answer that makes no sense: {0}")]
    Senseless(String),
}
