//! The program from outside: what it answers and what it complains about.

mod common;
mod kernel;
mod plan;
