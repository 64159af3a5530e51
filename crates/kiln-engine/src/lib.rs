//! The store of generations, the executor and the guard, over a target that is handed in.
