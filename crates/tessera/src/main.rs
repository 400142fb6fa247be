//! Runs a program from a folder in a microVM.

fn main() {}
