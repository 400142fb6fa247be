use super::*;
use Choice::{Auto, Off, On};

/// A plain Linux machine with a net device and nothing else.
const NET_ONLY: VsockInputs = VsockInputs {
    vsock: Auto,
    tsi_inet: Auto,
    tsi_unix: Auto,
    nets: 1,
    shares: 0,
    has_root: false,
    routes: 0,
    published: 0,
    published_unix: 0,
    allow_rules: 0,
    deny_rules: 0,
    host_os: HostOs::Linux,
    confidential: false,
};

fn rooted(inputs: VsockInputs) -> VsockInputs {
    VsockInputs {
        shares: 1,
        has_root: true,
        ..inputs
    }
}

/// (attached, inet, unix), or `None` for a contradiction.
fn outcome(inputs: VsockInputs) -> Option<(bool, bool, bool)> {
    attachment(&inputs).ok().map(|d| (d.attached(), d.inet, d.unix))
}

/// Every combination of the inputs that the rule tells apart.
fn every_combination() -> Vec<VsockInputs> {
    let choices = [Auto, On, Off];
    let hosts = [HostOs::Linux, HostOs::MacOs, HostOs::Windows];
    let roots = [(0, false), (1, false), (1, true), (2, false), (2, true), (3, true)];
    let mut all = vec![];
    for vsock in choices {
        for tsi_inet in choices {
            for tsi_unix in choices {
                for host_os in hosts {
                    for bits in 0..256 {
                        for (shares, has_root) in roots {
                            all.push(VsockInputs {
                                vsock,
                                tsi_inet,
                                tsi_unix,
                                nets: usize::from(bits & 1 != 0) + usize::from(bits & 16 != 0),
                                routes: usize::from(bits & 2 != 0),
                                published: usize::from(bits & 4 != 0),
                                published_unix: usize::from(bits & 32 != 0),
                                allow_rules: usize::from(bits & 64 != 0),
                                deny_rules: usize::from(bits & 128 != 0),
                                confidential: bits & 8 != 0,
                                shares,
                                has_root,
                                host_os,
                            });
                        }
                    }
                }
            }
        }
    }
    all
}

#[test]
fn the_numbered_rows_of_the_rule() {
    let base = NET_ONLY;
    let no_net = VsockInputs { nets: 0, ..base };
    let mac = |i: VsockInputs| VsockInputs {
        host_os: HostOs::MacOs,
        ..i
    };
    let routed = |i: VsockInputs| VsockInputs { routes: 1, ..i };
    let set = |vsock, tsi_inet, tsi_unix, i: VsockInputs| VsockInputs {
        vsock,
        tsi_inet,
        tsi_unix,
        ..i
    };
    let rows = [
        ("1", no_net, Some((true, true, false))),
        ("2", rooted(no_net), Some((true, true, true))),
        ("3", mac(rooted(no_net)), Some((true, true, false))),
        ("4", base, Some((false, false, false))),
        ("5", rooted(base), Some((true, false, true))),
        ("6", mac(rooted(base)), Some((false, false, false))),
        ("7", set(On, Auto, Auto, base), Some((true, false, false))),
        ("8", routed(base), Some((true, false, false))),
        ("9", set(Auto, Off, Off, rooted(no_net)), Some((false, false, false))),
        ("10", set(On, Off, Off, routed(no_net)), Some((true, false, false))),
        ("11", set(Auto, Off, Off, routed(no_net)), Some((true, false, false))),
        ("12", set(Auto, On, Off, no_net), Some((true, true, false))),
        ("12a", set(Auto, Off, Auto, rooted(no_net)), Some((true, false, true))),
        ("12b", set(On, Auto, Auto, rooted(base)), Some((true, false, true))),
        ("13", set(Auto, On, Auto, base), None),
        ("14", set(Off, Auto, Auto, rooted(no_net)), Some((false, false, false))),
        ("15", set(Off, Auto, Auto, routed(base)), None),
    ];
    for (row, inputs, want) in rows {
        assert_eq!(outcome(inputs), want, "row {row}: {inputs:?}");
    }
}

/// The rule as it is written in the specification, over every combination.
#[test]
fn every_combination_follows_the_rule() {
    for i in every_combination() {
        let linux = i.host_os == HostOs::Linux && !i.confidential;
        let only_root = i.has_root && i.shares == 1;
        let inet = i.vsock != Off && (i.tsi_inet == On || (i.tsi_inet == Auto && i.nets == 0));
        let unix = i.vsock != Off && (i.tsi_unix == On || (i.tsi_unix == Auto && only_root && linux));
        let contradiction = (i.vsock == Off
            && (i.routes > 0 || i.tsi_inet == On || i.tsi_unix == On || i.published_unix > 0))
            || (i.tsi_inet == On && i.nets > 0)
            || (i.published + i.allow_rules + i.deny_rules > 0 && !inet)
            || (i.published_unix > 0 && !unix)
            || (i.tsi_unix == On && !(linux && i.has_root))
            || (i.host_os == HostOs::Windows && (inet || unix));
        let attach = i.vsock == On || i.routes > 0 || inet || unix;
        assert_eq!(outcome(i), (!contradiction).then_some((attach, inet, unix)), "{i:?}");
    }
}

#[test]
fn an_explicit_request_always_attaches() {
    for inputs in every_combination() {
        if let Ok(decision) = attachment(&VsockInputs { vsock: On, ..inputs }) {
            assert!(decision.attached());
            assert_eq!(decision.reasons[0], Reason::Requested);
        }
    }
}

#[test]
fn flags_come_only_with_the_device() {
    for decision in every_combination().iter().filter_map(|i| attachment(i).ok()) {
        assert!(decision.attached() || !(decision.inet || decision.unix));
        assert!(!decision.reasons.is_empty(), "every decision has a reason");
    }
}

#[test]
fn what_is_published_and_rules_attach_nothing() {
    for inputs in every_combination() {
        let without = VsockInputs {
            published: 0,
            published_unix: 0,
            allow_rules: 0,
            deny_rules: 0,
            ..inputs
        };
        if let (Ok(with), Ok(without)) = (attachment(&inputs), attachment(&without)) {
            assert_eq!(with, without);
        }
    }
}

#[test]
fn a_contradiction_names_both_settings() {
    let cases = [
        (
            VsockInputs {
                published: 1,
                ..NET_ONLY
            },
            "publish",
            "nets",
        ),
        (
            VsockInputs {
                published: 1,
                nets: 0,
                tsi_inet: Off,
                ..NET_ONLY
            },
            "publish",
            "tsi_inet = off",
        ),
        (
            VsockInputs {
                deny_rules: 1,
                ..NET_ONLY
            },
            "tsi_deny",
            "nets",
        ),
        (
            VsockInputs {
                allow_rules: 1,
                nets: 0,
                tsi_inet: Off,
                ..NET_ONLY
            },
            "tsi_allow",
            "tsi_inet = off",
        ),
        (
            VsockInputs {
                vsock: Off,
                deny_rules: 1,
                ..NET_ONLY
            },
            "vsock = off",
            "tsi_deny",
        ),
        (
            VsockInputs {
                published_unix: 1,
                tsi_unix: Off,
                ..rooted(NET_ONLY)
            },
            "publish_unix",
            "tsi_unix = off",
        ),
        (
            VsockInputs {
                published_unix: 1,
                shares: 2,
                ..rooted(NET_ONLY)
            },
            "publish_unix",
            "tsi_unix = auto with more shares than the root",
        ),
        (
            VsockInputs {
                vsock: Off,
                published_unix: 1,
                ..NET_ONLY
            },
            "vsock = off",
            "publish_unix",
        ),
        (
            VsockInputs {
                tsi_inet: On,
                ..NET_ONLY
            },
            "tsi_inet = on",
            "nets",
        ),
        (
            VsockInputs {
                vsock: Off,
                routes: 1,
                ..NET_ONLY
            },
            "vsock = off",
            "vsock_routes",
        ),
        (
            VsockInputs {
                vsock: Off,
                published: 1,
                ..NET_ONLY
            },
            "vsock = off",
            "publish",
        ),
        (
            VsockInputs {
                tsi_unix: On,
                ..NET_ONLY
            },
            "tsi_unix = on",
            "no root share",
        ),
    ];
    for (inputs, one, other) in cases {
        let message = attachment(&inputs).unwrap_err().to_string();
        assert!(message.contains(one) && message.contains(other), "{message}");
    }
}
