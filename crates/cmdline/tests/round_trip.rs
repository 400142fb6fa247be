//! What the kernel would parse is what was put in.

use cmdline::{Cmdline, KernelLimits, Tsi, kernel_view};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Piece {
    Word(String),
    Param(String, String),
    UserWords(String),
    Device(u64, u32),
    Tsi(Tsi),
    InitArg(String),
    Remove(usize),
}

/// Short, and rich in what means something to the parser.
fn text() -> impl Strategy<Value = String> {
    let byte = prop_oneof![3 => Just("a"), 2 => Just(" "), 2 => Just("\""), 2 => Just("="), 2 => Just("-"), 1 => Just("."), 1 => Just("\t")];
    prop_oneof![8 => prop::collection::vec(byte, 0..9).prop_map(|parts| parts.concat()), 2 => "[ -~]{0,12}"]
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let one = prop_oneof![
        text().prop_map(Piece::Word),
        (text(), text()).prop_map(|(name, value)| Piece::Param(name, value)),
        text().prop_map(Piece::UserWords),
        (0..40u64, 0..30u32).prop_map(|(slot, irq)| Piece::Device(0xd000_0000 + slot * 0x800, irq)),
        prop_oneof![Just(Tsi::Inet), Just(Tsi::Unix)].prop_map(Piece::Tsi),
        text().prop_map(Piece::InitArg),
        (0..8usize).prop_map(Piece::Remove),
    ];
    prop::collection::vec(one, 0..24)
}

/// What the kernel shall see, kept beside the line.
#[derive(Default)]
struct Meant {
    params: Vec<(String, Option<String>)>,
    init_args: Vec<String>,
}

fn add(line: &mut Cmdline, meant: &mut Meant, piece: &Piece) {
    match piece {
        Piece::Word(text) => {
            if line.word(text).is_ok() {
                let seen = kernel_view::parse(text).params.remove(0);
                meant.params.push((seen.name, seen.value));
            }
        }
        Piece::Param(name, value) => {
            if line.param(name, value).is_ok() {
                meant.params.push((name.clone(), Some(value.clone())));
            }
        }
        Piece::UserWords(text) => {
            if line.user_words(text).is_ok() {
                let seen = kernel_view::parse(text);
                meant.init_args.extend(seen.init_args());
                meant
                    .params
                    .extend(seen.params.into_iter().map(|param| (param.name, param.value)));
            }
        }
        Piece::Device(base, irq) => {
            if line.device(*base, *irq).is_ok() {
                meant
                    .params
                    .push(("virtio_mmio.device".into(), Some(format!("4K@{base:#x}:{irq}"))));
            }
        }
        Piece::Tsi(tsi) => {
            if line.tsi(*tsi).is_ok() {
                meant.params.push((tsi.token().into(), None));
            }
        }
        Piece::InitArg(text) => {
            if line.init_arg(text).is_ok() {
                meant.init_args.push(text.clone());
            }
        }
        Piece::Remove(nth) => {
            let Some(text) = line.words().get(*nth).map(|word| word.text.clone()) else {
                return;
            };
            let first = line
                .words()
                .iter()
                .position(|word| word.text == text)
                .expect("it is there");
            if line.remove(&text).is_ok() {
                meant.params.remove(first);
            }
        }
    }
}

proptest! {
    #[test]
    fn line_of_any_pieces_reads_as_what_was_put_in(
        pieces in pieces(),
        capacity in prop_oneof![Just(2048usize), 0..200usize],
        most in prop_oneof![Just(32usize), 8..14usize],
    ) {
        let limits = KernelLimits { capacity, init_args: most, init_env: most };
        let mut line = Cmdline::new(limits);
        let mut meant = Meant::default();
        for piece in &pieces {
            let before = line.build();
            let words = line.words().len() + line.init_args().len();
            add(&mut line, &mut meant, piece);
            if words == line.words().len() + line.init_args().len() {
                prop_assert_eq!(before, line.build());
            }
        }
        let text = line.build();
        let seen = kernel_view::parse(&text);
        let params: Vec<_> = seen.params.iter().cloned().map(|param| (param.name, param.value)).collect();
        prop_assert_eq!(params, meant.params);
        prop_assert_eq!(seen.init_args(), meant.init_args);
        prop_assert!(!seen.lost);
        prop_assert_eq!(line.usage().bytes, text.len() + 1);
        if !text.is_empty() {
            prop_assert!(text.len() < capacity);
        }
        let init = seen.init(kernel_view::is_well_known);
        prop_assert!(init.args.len() <= line.usage().init_args && line.usage().init_args <= most - 8);
        prop_assert!(init.env.len() <= line.usage().init_env + 2 && line.usage().init_env <= most - 8);
    }

    #[test]
    fn argument_without_quotes_can_always_be_carried(text in "[ !#-~]{0,40}") {
        let mut line = Cmdline::new(KernelLimits::STOCK);
        prop_assert_eq!(line.init_arg(&text).is_ok(), text != "--");
    }

    #[test]
    fn parser_any_bytes_finds_no_white_space_outside_quotes(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let view = kernel_view::parse(&bytes);
        if !bytes.contains(&b'"') {
            for param in &view.params {
                prop_assert!(!param.joined().bytes().any(|byte| matches!(byte, b' ' | 9..=13 | 0)));
            }
        }
    }
}
