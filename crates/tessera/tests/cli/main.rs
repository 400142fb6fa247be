//! The program from outside: what it answers and what it complains about.

mod common;
mod guest;
mod kernel;
mod plan;
mod run;
