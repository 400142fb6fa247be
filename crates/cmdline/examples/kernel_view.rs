//! Shows what a kernel reads from a command line.
//!
//!     cargo run -p tessera-cmdline --example kernel_view -- 'quiet init=/sbin/x A="b c" -- "d e"'

use cmdline::kernel_view;

fn main() {
    let given = std::env::args().nth(1);
    let line = given.unwrap_or_else(|| r#"quiet init=/sbin/x A="b c" -- "d e" f"#.to_owned());
    let view = kernel_view::parse(&line);
    println!("{line}");
    for param in &view.params {
        println!(
            "  parameter {:<24} {}",
            param.name,
            param.value.as_deref().unwrap_or("-")
        );
    }
    let init = view.init(kernel_view::is_well_known);
    println!(
        "  init      {}",
        init.program.as_deref().unwrap_or("(the kernel's own choice)")
    );
    for arg in &init.args {
        println!("  argument  {arg:?}");
    }
    for entry in &init.env {
        println!("  variable  {entry:?}");
    }
    if view.lost {
        println!("  a second `--` hides the rest");
    }
}
