//! The public face of the builder.

use cmdline::{Access, Cmdline, CmdlineError, KernelLimits, Origin, Tsi, Usage, kernel_view};

fn stock() -> Cmdline {
    Cmdline::new(KernelLimits::STOCK)
}

fn with_capacity(capacity: usize) -> Cmdline {
    Cmdline::new(KernelLimits {
        capacity,
        ..KernelLimits::STOCK
    })
}

#[test]
fn whole_line_all_kinds_of_pieces_stand_in_order_of_their_adding() -> Result<(), CmdlineError> {
    let mut line = Cmdline::new(KernelLimits::LIBKRUNFW);
    line.word("reboot=k")?.word("panic=-1")?.word("console=hvc0")?;
    line.root("/dev/root", Some("virtiofs"), Access::ReadWrite)?;
    line.param("init", "/.tessera/init")?;
    line.user_words("debug  loglevel=8")?;
    line.device(0xd000_0000, 5)?.device(0xd000_1000, 6)?;
    line.tsi(Tsi::Inet)?.tsi(Tsi::Unix)?;
    line.init_arg("a b")?.init_arg("")?;
    let expected = "reboot=k panic=-1 console=hvc0 root=/dev/root rootfstype=virtiofs rw init=/.tessera/init debug \
                    loglevel=8 virtio_mmio.device=4K@0xd0000000:5 virtio_mmio.device=4K@0xd0001000:6 tsi_hijack \
                    tsi_hijack_unix -- \"a b\" \"\"";
    assert_eq!(line.build(), expected);
    assert_eq!(
        line.usage(),
        Usage {
            bytes: expected.len() + 1,
            init_args: 2,
            init_env: 0
        }
    );
    assert_eq!(line.build_c_string().as_bytes_with_nul().len(), line.usage().bytes);
    Ok(())
}

#[test]
fn words_tell_what_they_are_there_for() -> Result<(), CmdlineError> {
    let mut line = stock();
    line.word("quiet")?
        .root("/dev/vda", None, Access::ReadOnly)?
        .user_words("debug")?
        .device(0xd000_0000, 5)?;
    let origins: Vec<Origin> = line.words().iter().map(|word| word.origin).collect();
    assert_eq!(
        origins,
        [Origin::Kernel, Origin::Root, Origin::Root, Origin::User, Origin::Device]
    );
    Ok(())
}

#[test]
fn line_of_just_the_capacity_is_taken_and_one_byte_more_is_not() {
    for capacity in [KernelLimits::STOCK.capacity, KernelLimits::LIBKRUNFW.capacity] {
        let longest = "x".repeat(capacity - 1);
        let mut line = with_capacity(capacity);
        line.word(&longest).expect("just fits");
        assert_eq!(line.build().len(), capacity - 1);
        let error = with_capacity(capacity)
            .word(&format!("{longest}x"))
            .expect_err("too long")
            .to_string();
        let fits = format!(
            "the command line would have {} of at most {capacity} bytes",
            capacity + 1
        );
        assert!(error.ends_with(&fits), "{error}");
    }
}

#[test]
fn overflow_names_the_piece_and_leaves_the_line_as_it_was() {
    let mut line = with_capacity(20);
    line.word("console=hvc0").expect("fits");
    let text = line.device(0xd000_0000, 5).expect_err("too long").to_string();
    assert!(
        text.starts_with("`virtio_mmio.device=4K@0xd0000000:5` does not fit"),
        "{text}"
    );
    assert!(line.init_arg("abcd").is_err());
    assert_eq!(line.build(), "console=hvc0");
    assert!(line.devices().is_empty());
    line.init_arg("abc").expect("12 + 4 + 3 + 1 bytes");
}

#[test]
fn init_arguments_above_the_limit_less_the_spare_are_refused() {
    let mut line = stock();
    for n in 0..12 {
        line.word(&format!("word{n}")).expect("counts as an argument");
        line.init_arg(&format!("arg{n}")).expect("counts too");
    }
    let error = line.init_arg("last").expect_err("24 are taken");
    assert_eq!(
        error,
        CmdlineError::TooManyInitArgs {
            word: "last".into(),
            most: 24
        }
    );
    assert!(line.word("another").is_err());
    line.word("quiet").expect("the kernel claims it");
    line.word("mod.flag").expect("a module's parameter never reaches init");
}

#[test]
fn init_variables_above_the_limit_less_the_spare_are_refused() {
    let mut line = Cmdline::new(KernelLimits::LIBKRUNFW);
    for n in 0..248 {
        line.param(&format!("V{n}"), "x").expect("below the limit");
    }
    let error = line.param("LAST", "x").expect_err("248 are taken");
    assert_eq!(
        error,
        CmdlineError::TooManyInitEnv {
            word: "LAST=x".into(),
            most: 248
        }
    );
    line.remove("V7=x").expect("it is there");
    line.param("LAST", "x").expect("one is free again");
}

#[test]
fn init_arguments_with_spaces_quotes_and_nothing_come_back() {
    let arguments = [
        "\"a\"",
        "a \"b\" c",
        "",
        " ",
        "a b",
        "a=b c",
        "=a b",
        "a=",
        "x\"y z\"w",
        "k=\"v",
        "it's",
        "---",
        "-- x",
        "a\\b",
    ];
    for argument in arguments {
        let mut line = stock();
        match line.init_arg(argument) {
            Ok(line) => {
                line.init_arg("next").expect("fits");
                assert_eq!(kernel_view::parse(line.build()).init_args(), [argument, "next"]);
            }
            Err(error) => {
                assert_eq!(
                    (argument, error),
                    ("k=\"v", CmdlineError::CannotCarry { word: argument.into() })
                );
            }
        }
    }
}

#[test]
fn init_arguments_with_open_quotes_are_refused() {
    for argument in ["\"", "a\"b", "a \"b c\" d", "a=\"b\""] {
        let error = stock().init_arg(argument).map(|_| ()).expect_err(argument);
        assert_eq!(error, CmdlineError::CannotCarry { word: argument.into() });
    }
}

#[test]
fn parameters_that_need_quotes_get_them() -> Result<(), CmdlineError> {
    let mut line = stock();
    line.param("a", "b c")?
        .param("d", "")?
        .param("two words", "x")?
        .param("q", "x\"y z\"w")?;
    assert_eq!(line.build(), r#"a="b c" d= "two words=x" q=x"y z"w"#);
    for (name, value) in [("", "x y"), ("a=b", "c"), ("\"a", "b"), ("a", "\"b")] {
        assert!(stock().param(name, value).is_err(), "{name}={value}");
    }
    Ok(())
}

#[test]
fn words_that_are_none_or_several_are_refused() {
    for text in ["", " ", "a b", " a", "a ", "\"a", "a\"b"] {
        let error = stock().word(text).map(|_| ()).expect_err(text);
        assert_eq!(error, CmdlineError::NotOneWord { word: text.into() });
    }
}

#[test]
fn dashes_are_refused_wherever_the_kernel_would_stop_at_them() {
    for text in ["--", "\"--\""] {
        assert_eq!(stock().word(text).map(|_| ()), Err(CmdlineError::Separator));
    }
    assert_eq!(stock().init_arg("--").map(|_| ()), Err(CmdlineError::Separator));
    assert_eq!(
        stock().user_words("a -- b -- c").map(|_| ()),
        Err(CmdlineError::Separator)
    );
}

#[test]
fn words_that_stand_for_devices_are_refused_in_any_spelling() {
    for text in [
        "virtio_mmio.device=4K@0x0:5",
        "virtio-mmio.device=4K@0x0:5",
        "tsi_hijack",
        "tsi-hijack=1",
        "\"tsi_hijack_unix\"",
    ] {
        for error in [stock().word(text).map(|_| ()), stock().user_words(text).map(|_| ())] {
            assert_eq!(error, Err(CmdlineError::Owned { word: text.into() }));
        }
    }
}

#[test]
fn tsi_token_twice_is_refused() {
    let mut line = stock();
    line.tsi(Tsi::Inet).expect("fits");
    assert_eq!(
        line.tsi(Tsi::Inet).map(|_| ()),
        Err(CmdlineError::Repeated {
            word: "tsi_hijack".into()
        })
    );
    line.tsi(Tsi::Unix).expect("another token");
}

#[test]
fn root_twice_or_too_long_changes_nothing() {
    let mut line = with_capacity(24);
    assert!(line.root("/dev/root", Some("virtiofs"), Access::ReadWrite).is_err());
    assert_eq!(line.build(), "");
    line.root("/dev/vda", None, Access::ReadWrite).expect("fits");
    assert!(matches!(
        line.root("/dev/vdb", None, Access::ReadWrite),
        Err(CmdlineError::Repeated { .. })
    ));
    assert_eq!(line.build(), "root=/dev/vda rw");
}

#[test]
fn user_words_are_parted_as_the_kernel_parts_them() -> Result<(), CmdlineError> {
    let mut line = stock();
    line.user_words("  quiet dyndbg=\"file a.c +p\" -- one \"two 2\"")?;
    assert_eq!(line.build(), "quiet dyndbg=\"file a.c +p\" -- one \"two 2\"");
    line.user_words("")?.user_words("debug -- three")?;
    assert_eq!(kernel_view::parse(line.build()).init_args(), ["one", "two 2", "three"]);
    Ok(())
}

#[test]
fn user_words_with_one_bad_word_add_nothing() {
    let mut line = stock();
    assert!(line.user_words("quiet tsi_hijack").is_err());
    assert!(line.user_words("quiet x=\"open").is_err());
    assert_eq!((line.build().as_str(), line.usage().bytes), ("", 1));
}

#[test]
fn default_word_can_be_taken_out() -> Result<(), CmdlineError> {
    let mut line = stock();
    line.word("initcall_blacklist=jent_mod_init")?
        .word("quiet")?
        .word("bare")?;
    line.remove("initcall_blacklist=jent_mod_init")?.remove("bare")?;
    assert_eq!(line.build(), "quiet");
    assert_eq!(
        line.usage(),
        Usage {
            bytes: 6,
            init_args: 0,
            init_env: 0
        }
    );
    let absent = CmdlineError::NotThere { word: "bare".into() };
    assert_eq!(line.remove("bare").map(|_| ()), Err(absent));
    Ok(())
}

#[test]
fn device_and_tsi_words_cannot_be_taken_out() -> Result<(), CmdlineError> {
    let mut line = stock();
    line.device(0xd000_0000, 5)?.tsi(Tsi::Inet)?;
    assert!(line.remove("tsi_hijack").is_err());
    assert!(line.remove("virtio_mmio.device=4K@0xd0000000:5").is_err());
    Ok(())
}

#[test]
fn device_that_the_kernel_refuses_is_refused_here() {
    for (base, irq) in [(0xd000_0000, 0), (u64::MAX, 5), (1 << 63, 5)] {
        assert!(
            matches!(stock().device(base, irq), Err(CmdlineError::BadDevice(_))),
            "{base:#x}:{irq}"
        );
    }
}

#[test]
fn limits_of_a_bzimage_count_the_nul() {
    assert_eq!(KernelLimits::of_setup_header(2047), KernelLimits::STOCK);
    assert!(KernelLimits::of_setup_header(u32::MAX).capacity >= 0xffff_ffff);
}

#[test]
fn error_shows_a_long_word_in_part_and_unprintable_bytes_escaped() {
    let text = stock().word("say \"hi").expect_err("open quote").to_string();
    assert_eq!(text, "`say \"hi` is not one word to the kernel");
    let text = stock()
        .word(&format!("a\n{}", "x".repeat(100)))
        .expect_err("a newline")
        .to_string();
    assert!(
        text.starts_with("`a\\nxxx") && text.contains("xxx...` (102 bytes) has the byte 0x0a at 1"),
        "{text}"
    );
}
