//! `tessera plan`: needs no kernel, no KVM and no folder that exists.

use crate::common::{answer, complaint, one_sentence, tessera};

fn plan(args: &[&str]) -> String {
    let home = tempfile::tempdir().expect("a temporary folder");
    answer(home.path(), &[&["plan"], args].concat())
}

fn refusal(args: &[&str]) -> String {
    let home = tempfile::tempdir().expect("a temporary folder");
    complaint(home.path(), &[&["plan"], args].concat())
}

#[test]
fn default_plan_has_vsock_as_its_last_device_and_both_tokens() {
    let text = plan(&["/srv/root"]);
    let cmdline = text
        .lines()
        .find(|line| line.starts_with("cmdline"))
        .expect("the plan shows it");
    assert!(
        cmdline.ends_with("virtio_mmio.device=4K@0xd0004fa0:7 tsi_hijack tsi_hijack_unix"),
        "{cmdline}"
    );
}

/// The case that all this began with.
#[test]
fn net_and_several_shares_have_no_vsock_and_one_line_and_slot_less() {
    let args = ["--net", "tap=t0", "-v", "/a:/mnt/a", "-v", "/b:/mnt/b", "/srv/root"];
    let tokens = |text: &str| text.matches("virtio_mmio.device=").count();
    let without = plan(&args);
    let with = plan(&[&["--vsock", "on"], args.as_slice()].concat());
    assert!(
        !without.contains("virtio-vsock") && !without.contains("tsi_hijack"),
        "{without}"
    );
    assert!(with.contains("virtio-vsock") && !with.contains("tsi_hijack"), "{with}");
    assert_eq!((tokens(&without), tokens(&with)), (5, 6));
}

#[test]
fn plan_as_json_is_json_with_the_command_line_in_it() {
    let json: serde_json::Value = serde_json::from_str(&plan(&["--json", "/srv/root", "ls"])).expect("JSON");
    let cmdline = json["cmdline"].as_str().expect("a string");
    assert!(cmdline.contains("root=/dev/root"), "{cmdline}");
    assert_eq!(json["devices"].as_array().map(Vec::len), Some(3));
}

/// Arguments for so many shares beside a root folder; the default machine has two devices more, console and vsock.
fn shares(count: usize) -> Vec<String> {
    let shares = (0..count).map(|n| format!("-v/s{n}:/mnt/{n}"));
    shares.chain(["/srv/root".to_owned()]).collect()
}

fn with<'a>(first: &[&'a str], rest: &'a [String]) -> Vec<&'a str> {
    first.iter().copied().chain(rest.iter().map(String::as_str)).collect()
}

#[test]
fn more_devices_than_lines_names_the_holders() {
    let args = shares(17);
    let sentence = refusal(&with(&["--irqchip", "in-kernel"], &args));
    let expected = "the machine has too many devices for the in-kernel irqchip: 19 IRQ lines, 20 asked for, \
                    held by: console (5), root (6), ";
    assert!(sentence.starts_with(expected), "{sentence}");
    plan(&with(&["--irqchip", "in-kernel"], &args[1..]));
}

#[test]
fn more_devices_than_lines_of_the_split_irqchip_names_the_holders() {
    let args = shares(113);
    let expected = "the machine has too many devices for the split irqchip: 115 IRQ lines, 116 asked for, \
                    held by: console (5), root (6), ";
    for irqchip in ["auto", "split"] {
        let sentence = refusal(&with(&["--irqchip", irqchip], &args));
        assert!(sentence.starts_with(expected), "{sentence}");
    }
    plan(&with(&[], &args[1..]));
}

#[test]
fn plan_says_which_irqchip_and_why() {
    let cases: [(&[&str], usize, &str); 3] = [
        (&[], 0, "irqchip  split: its interrupts take a shorter way"),
        (&["--irqchip", "split"], 0, "irqchip  split: it is asked for"),
        (&["--irqchip", "in-kernel"], 0, "irqchip  in-kernel: it is asked for"),
    ];
    for (args, count, expected) in cases {
        let text = plan(&with(args, &shares(count)));
        assert!(text.lines().any(|line| line == expected), "{expected}: {text}");
    }
    let json: serde_json::Value = serde_json::from_str(&plan(&with(&["--json"], &shares(30)))).expect("JSON");
    assert_eq!(json["irqchip"]["kind"], "split");
    assert_eq!(json["irqchip"]["reason"], "shorter-way");
}

#[test]
fn words_of_the_command_line_can_be_added_and_left_out() {
    let text = plan(&[
        "--cmdline",
        "loglevel=7 a=\"b c\"",
        "--cmdline-omit",
        "initcall_blacklist=jent_mod_init",
        "--cmdline-omit",
        "security=none",
        "/r",
    ]);
    assert!(text.contains(" loglevel=7 a=\"b c\" virtio_mmio.device="), "{text}");
    assert!(
        !text.contains("initcall_blacklist") && !text.contains("security="),
        "{text}"
    );
    assert!(refusal(&["--cmdline-omit", "nothing", "/r"]).contains("`nothing`"));
}

#[test]
fn arguments_that_are_wrong_are_refused_in_one_sentence_that_names_them() {
    let cases: [(&[&str], &str); 18] = [
        (&["--irqchip", "sideways", "/r"], "sideways"),
        (&["-m", "much", "/r"], "much"),
        (&["-m", "63", "/r"], "63 MiB of memory are too little"),
        (&["-c", "65", "/r"], "65"),
        (&["-v", "/a", "/r"], "HOST:GUEST"),
        (&["-v", "/a:/", "/r"], "`/`"),
        (&["-p", "80", "/r"], "HOST:GUEST"),
        (&["-e", "=x", "/r"], "name of the environment variable is empty"),
        (&["-e", "NOT_SET", "/r"], "NOT_SET"),
        (&["--timeout", "5", "/r"], "30s"),
        (&["--net", "bridge=b", "/r"], "tap=NAME"),
        (&["--net", "tsi", "--net", "tap=t0", "/r"], "exclude each other"),
        (&["--vsock", "off", "-p", "80:80", "/r"], "exclude each other"),
        (&["--publish-unix", "run/app", "/r"], "not an absolute path"),
        (&["--publish-unix", "/run", "--net", "none", "/r"], "exclude each other"),
        (&["--tsi-allow", "nonsense", "/r"], "--tsi-allow nonsense"),
        (
            &["--tsi-deny", "10.0.0.0/8", "--net", "tap=t0", "/r"],
            "exclude each other",
        ),
        (&["--json"], "<ROOTFS>"),
    ];
    for (args, part) in cases {
        let sentence = refusal(args);
        assert!(sentence.contains(part), "{args:?}: {sentence}");
    }
}

#[test]
fn published_listeners_are_in_the_plan() {
    let text = plan(&[
        "--publish-unix",
        "/run/app",
        "--publish-unix",
        "/tmp/s",
        "-p",
        "8080:80",
        "/r",
    ]);
    let expected = ", host port 8080 for 80, listeners at /run/app, listeners at /tmp/s";
    assert!(text.contains(expected), "{text}");
}

#[test]
fn variable_that_is_not_utf8_is_refused_by_name() {
    use std::os::unix::ffi::OsStrExt;
    let home = tempfile::tempdir().expect("a temporary folder");
    let broken = std::ffi::OsStr::from_bytes(b"\xff");
    let output = tessera(home.path())
        .env("BROKEN", broken)
        .args(["plan", "-e", "BROKEN", "/r"])
        .output();
    let sentence = one_sentence(&output.expect("it can be run"));
    assert!(
        sentence.starts_with("-e BROKEN: the environment variable is not UTF-8"),
        "{sentence}"
    );
}
