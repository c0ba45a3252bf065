//! The kernel half, loaded.

mod prog_test_root;
