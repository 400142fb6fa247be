//! Defects that systems of this field really had, one test each.

use cmdline::{Cmdline, CmdlineError, KernelLimits, Tsi, kernel_view};

fn stock() -> Cmdline {
    Cmdline::new(KernelLimits::STOCK)
}

/// A tab in an environment value aborted the process of a monitor that did not check its input; a NUL would end the line.
#[test]
fn word_with_nul_newline_tab_or_non_ascii_is_refused_everywhere() {
    for text in ["a\0b", "a\nb", "a\tb", "a\u{7f}b", "\u{a0}", "a\u{e9}b"] {
        let refusals = [
            stock().word(text).map(|_| ()),
            stock().param("name", text).map(|_| ()),
            stock().param(text, "value").map(|_| ()),
            stock().init_arg(text).map(|_| ()),
            stock().user_words(text).map(|_| ()),
            stock().root(text, None, cmdline::Access::ReadWrite).map(|_| ()),
        ];
        for refusal in refusals {
            assert!(
                matches!(refusal, Err(CmdlineError::ForbiddenByte { .. })),
                "{text:?}: {refusal:?}"
            );
        }
    }
}

/// Two devices with one address or one line: the second driver fails in the guest, or both get the other's interrupts.
#[test]
fn duplicate_device_token_by_address_or_line_is_refused() {
    let mut line = stock();
    line.device(0xd000_0000, 5).expect("the first");
    for (base, irq) in [
        (0xd000_0000, 5),
        (0xd000_0000, 6),
        (0xd000_1000, 5),
        (0xd000_0800, 6),
        (0xcfff_f800, 6),
    ] {
        assert!(
            matches!(line.device(base, irq), Err(CmdlineError::DeviceCollision { .. })),
            "{base:#x}:{irq}"
        );
    }
    line.device(0xd000_1000, 6).expect("the second");
    let text = line.device(0xd000_1000, 7).expect_err("taken").to_string();
    assert_eq!(text, "device 4K@0xd0001000:7 collides with 4K@0xd0001000:6");
}

/// A line longer than the kernel takes was cut by it at the tail, where the root device stood.
#[test]
fn overflow_is_an_error_and_never_a_cut() {
    let mut line = stock();
    let mut taken = 0;
    while line
        .device(0xd000_0000 + taken * 0x1000, 5 + u32::try_from(taken).expect("small"))
        .is_ok()
    {
        taken += 1;
    }
    let seen = kernel_view::parse(line.build()).params;
    assert_eq!(seen.len() as u64, taken);
    assert!(line.build().len() < KernelLimits::STOCK.capacity);
}

/// 300 variables made the guest panic with "Too many boot env vars".
#[test]
fn three_hundred_variables_are_refused() {
    let mut line = Cmdline::new(KernelLimits::LIBKRUNFW);
    let refusal = (0..300).find_map(|n| line.param(&format!("V{n}"), "x").err());
    assert!(matches!(refusal, Some(CmdlineError::TooManyInitEnv { .. })));
}

/// Device tokens after ` -- ` went to init as arguments, and the root device was missing.
#[test]
fn device_and_tsi_tokens_added_after_init_arguments_stand_before_the_dashes() -> Result<(), CmdlineError> {
    let mut line = stock();
    line.init_arg("x")?
        .device(0xd000_0000, 5)?
        .tsi(Tsi::Inet)?
        .word("quiet")?;
    assert_eq!(line.build(), "virtio_mmio.device=4K@0xd0000000:5 tsi_hijack quiet -- x");
    Ok(())
}
