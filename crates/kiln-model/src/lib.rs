//! The words of Kiln as types, and the one function that decides: plan. No input, no output.
