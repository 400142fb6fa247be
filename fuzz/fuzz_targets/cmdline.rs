//! A line of any pieces reads as what was put in; any bytes can be read.
//!
//! The input is text: one piece on each line, its kind in the first byte. So seeds can be written and read by hand.

#![no_main]

use cmdline::kernel_view::{self, Param};
use cmdline::{Cmdline, KernelLimits, Tsi};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = kernel_view::parse(input).init(kernel_view::is_well_known);

    let text = String::from_utf8_lossy(input);
    let capacity = 64 * (1 + text.len() % 64);
    let mut line = Cmdline::new(KernelLimits {
        capacity,
        init_args: 32,
        init_env: 32,
    });
    let mut params: Vec<Param> = Vec::new();
    let mut init_args: Vec<String> = Vec::new();
    for piece in text.split('\n') {
        add(&mut line, &mut params, &mut init_args, piece);
    }

    let built = line.build();
    let seen = kernel_view::parse(&built);
    assert_eq!(seen.params, params);
    assert_eq!(seen.init_args(), init_args);
    assert!(!seen.lost);
    assert_eq!(line.usage().bytes, built.len() + 1);
    assert!(built.len() < capacity);
    assert_eq!(line.build_c_string().as_bytes(), built.as_bytes());
});

fn add(line: &mut Cmdline, params: &mut Vec<Param>, init_args: &mut Vec<String>, piece: &str) {
    let mut chars = piece.chars();
    let kind = chars.next();
    let rest = chars.as_str();
    match kind {
        Some('w') => {
            if line.word(rest).is_ok() {
                params.extend(kernel_view::parse(rest).params);
            }
        }
        Some('p') => {
            let (name, value) = rest.split_once('|').unwrap_or((rest, ""));
            if line.param(name, value).is_ok() {
                params.push(Param {
                    name: name.to_owned(),
                    value: Some(value.to_owned()),
                });
            }
        }
        Some('u') => {
            if line.user_words(rest).is_ok() {
                let seen = kernel_view::parse(rest);
                init_args.extend(seen.init_args());
                params.extend(seen.params);
            }
        }
        Some('d') => {
            let (base, irq) = rest.split_once(':').unwrap_or((rest, "5"));
            let (base, irq) = (base.parse().unwrap_or(0xd000_0000), irq.parse().unwrap_or(0));
            if line.device(base, irq).is_ok() {
                let value = format!("4K@{base:#010x}:{irq}");
                params.push(Param {
                    name: "virtio_mmio.device".to_owned(),
                    value: Some(value),
                });
            }
        }
        Some('t') => {
            let tsi = if rest == "u" { Tsi::Unix } else { Tsi::Inet };
            if line.tsi(tsi).is_ok() {
                params.push(Param {
                    name: tsi.token().to_owned(),
                    value: None,
                });
            }
        }
        Some('a') => {
            if line.init_arg(rest).is_ok() {
                init_args.push(rest.to_owned());
            }
        }
        Some('r') => {
            let place = line.words().iter().position(|word| word.text == rest);
            if line.remove(rest).is_ok() {
                params.remove(place.expect("what was removed was there"));
            }
        }
        _ => {}
    }
}
