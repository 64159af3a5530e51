//! The data plane: listens, balances, drains.
