//! From recipes to locked, verified, read-only images, and the store that keeps them.
