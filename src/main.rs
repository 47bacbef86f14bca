//! The `forestall` command: everything is in the library.

fn main() {}
