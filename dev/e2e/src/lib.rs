//! Whole-system tests: the binary, kubectl and curl, as a user drives them.
