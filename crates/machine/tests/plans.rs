//! Plans of typical machines, kept as golden files, and the laws that every plan obeys.
//!
//! Addresses, IRQ lines and the command line are what a guest sees: a changed golden file is a line in the CHANGELOG.

use guest_init::MountKind;
use machine::plan::{DeviceKind, DevicePlan, Irqchip};
use machine::{
    Cache, Choice, IrqchipChoice, KernelKind, KernelTraits, Limits, Net, Plan, PlanError, Publish, Share, ShareKind,
    Spec, plan,
};
use proptest::prelude::*;

/// Lines of the in-kernel irqchip that devices may have.
const LINES: usize = 19;
/// Lines of the split irqchip.
const SPLIT_LINES: usize = 115;

fn smallest() -> Spec {
    Spec {
        mem_mib: 64,
        initramfs: true,
        tsi_inet: Choice::Off,
        ..Spec::default()
    }
}

fn default() -> Spec {
    Spec {
        root: Some(Share::root("/srv/root")),
        ..Spec::default()
    }
}

fn with_shares(n: usize) -> Spec {
    let shares = (0..n)
        .map(|i| Share::new(format!("/srv/{i}"), format!("/mnt/{i}")))
        .collect();
    Spec { shares, ..default() }
}

fn net_and_shares() -> Spec {
    Spec {
        nets: vec![Net::Tap("tap0".into())],
        ..with_shares(2)
    }
}

fn planned(spec: &Spec) -> Plan {
    plan(spec, &Limits::bundle()).unwrap()
}

fn tsi_tokens(plan: &Plan) -> Vec<&str> {
    let kernel_words = plan.cmdline.split(' ').take_while(|word| *word != "--");
    kernel_words.filter(|word| word.starts_with("tsi_hijack")).collect()
}

#[test]
fn smallest_machine() {
    insta::assert_snapshot!(planned(&smallest()));
}

#[test]
fn default_machine_has_inet_and_unix_tsi() {
    let plan = planned(&default());
    assert_eq!(tsi_tokens(&plan), ["tsi_hijack", "tsi_hijack_unix"]);
    insta::assert_snapshot!(plan);
}

#[test]
fn net_and_several_shares_have_no_vsock() {
    let plan = planned(&net_and_shares());
    assert!(!plan.vsock.attached());
    assert_eq!(tsi_tokens(&plan), [""; 0]);
    insta::assert_snapshot!(plan);
}

#[test]
fn net_and_several_shares_have_vsock_when_asked_for() {
    let plan = planned(&Spec {
        vsock: Choice::On,
        ..net_and_shares()
    });
    assert!(plan.vsock.attached());
    assert_eq!(tsi_tokens(&plan), [""; 0]);
    insta::assert_snapshot!(plan);
}

#[test]
fn net_and_root_only_have_unix_tsi() {
    let plan = planned(&Spec {
        nets: vec![Net::Tap("tap0".into())],
        ..default()
    });
    assert_eq!(tsi_tokens(&plan), ["tsi_hijack_unix"]);
    insta::assert_snapshot!(plan);
}

#[test]
fn no_net_and_several_shares_have_inet_tsi() {
    let plan = planned(&with_shares(2));
    assert_eq!(tsi_tokens(&plan), ["tsi_hijack"]);
    insta::assert_snapshot!(plan);
}

#[test]
fn as_many_shares_as_fit() {
    let plan = planned(&with_shares(LINES - 3));
    assert_eq!(plan.devices.len(), LINES);
    assert_eq!(plan.devices.last().unwrap().irq, 8, "the RTC's line comes last");
    insta::assert_snapshot!(plan);
}

#[test]
fn one_share_more_than_fits_in_the_kernel() {
    let plan = planned(&with_shares(LINES - 2));
    assert_eq!((plan.devices.len(), plan.irqchip.kind), (LINES + 1, Irqchip::Split));
    let lines = |plan: &Plan| plan.devices.iter().map(|device| device.irq).collect::<Vec<_>>();
    let before = lines(&planned(&with_shares(LINES - 3)));
    assert_eq!(lines(&plan)[..LINES], before, "nobody moves for the change of irqchip");
    insta::assert_snapshot!(plan);
}

#[test]
fn drivers_come_before_init_where_the_bundles_kernel_has_one() {
    let of = |spec: &Spec, kernel| plan(spec, &Limits::new(kernel)).unwrap().drivers_before_init();
    let other = KernelTraits {
        kind: KernelKind::BzImage,
        ..KernelTraits::bundle()
    };
    assert!(of(&default(), KernelTraits::bundle()));
    assert!(!of(&default(), other));
    assert!(!of(&smallest(), KernelTraits::bundle()), "there is no init of ours");
}

#[test]
fn share_has_a_request_queue_for_each_vcpu_up_to_eight() {
    for (cpus, queues) in [(1, 1), (2, 2), (8, 8), (9, 8), (64, 8)] {
        let spec = Spec { cpus, ..with_shares(1) };
        let plan = plan(&spec, &Limits::bundle()).unwrap();
        let counts: Vec<u16> = plan
            .devices
            .iter()
            .filter_map(|device| match &device.kind {
                DeviceKind::Share(share) => Some(share.request_queues),
                _ => None,
            })
            .collect();
        assert_eq!(counts, [queues, queues], "{cpus} vCPUs");
    }
}

#[test]
fn thirty_shares_have_the_split_irqchip() {
    let plan = planned(&with_shares(30));
    assert_eq!((plan.devices.len(), plan.irqchip.kind), (33, Irqchip::Split));
    insta::assert_snapshot!(plan);
}

#[test]
fn as_many_shares_as_fit_the_split_irqchip_and_one_more() {
    let plan = planned(&with_shares(SPLIT_LINES - 3));
    assert_eq!((plan.devices.last().unwrap().irq, plan.io_apic_pins), (119, 120));
    let too_many = with_shares(SPLIT_LINES - 2);
    let text = refusal(&too_many);
    for word in [
        "split",
        "115 IRQ lines",
        "116 asked for",
        "console (5)",
        "share112 (119)",
        "vsock",
    ] {
        assert!(text.contains(word), "{word} is missing in: {text}");
    }
    let asked_for = Spec {
        irqchip: IrqchipChoice::Split,
        ..too_many
    };
    assert_eq!(refusal(&asked_for), text);
}

#[test]
fn one_share_more_than_fits_the_irqchip_asked_for_names_lines_and_holders() {
    let spec = Spec {
        irqchip: IrqchipChoice::InKernel,
        ..with_shares(LINES - 2)
    };
    let text = refusal(&spec);
    for word in ["in-kernel", "19", "20", "console", "root", "share15", "vsock"] {
        assert!(text.contains(word), "{word} is missing in: {text}");
    }
}

#[test]
fn more_memory_slots_than_there_are_is_refused_with_who_needs_them() {
    let spec = Spec {
        mem_mib: 8192,
        ..with_shares(3)
    };
    let enough = Limits::bundle();
    let plan_of_all = plan(&spec, &enough).unwrap();
    let (memory, devices) = (plan_of_all.memory.len(), plan_of_all.devices.len());
    assert_eq!((memory, devices), (2, 6));
    let with_slots = |max_memslots| Limits {
        max_memslots,
        ..enough.clone()
    };
    assert_eq!(plan(&spec, &with_slots(8)).unwrap(), plan_of_all);
    let error = plan(&spec, &with_slots(7)).unwrap_err();
    let needed = PlanError::MemorySlots {
        memory,
        devices,
        max: 7,
    };
    assert_eq!(error, needed);
    assert_eq!(
        error.to_string(),
        "the machine needs 2 memory slots for its memory and 6 for its devices, and may have 7: ask for fewer devices"
    );
}

/// What is said about too many devices, and what is behind it.
fn refusal(spec: &Spec) -> String {
    let error = plan(spec, &Limits::bundle()).unwrap_err();
    let PlanError::Devices { source, .. } = &error else {
        panic!("{error}")
    };
    format!("{error}: {source}")
}

fn irqs_and_addresses(devices: &[DevicePlan]) -> Vec<(&str, u32, u64)> {
    devices
        .iter()
        .map(|device| (device.name.as_str(), device.irq, device.mmio_base))
        .collect()
}

fn choice() -> impl Strategy<Value = Choice> {
    prop_oneof![Just(Choice::Auto), Just(Choice::On), Just(Choice::Off)]
}

fn irqchip() -> impl Strategy<Value = IrqchipChoice> {
    use IrqchipChoice::{Auto, InKernel, Split};
    prop_oneof![Just(Auto), Just(InKernel), Just(Split)]
}

prop_compose! {
    fn any_spec()(
        cpus in 1..=64u32, mem_mib in 64..8192u64, shares in 0..40usize, nets in 0..3usize, read_only: bool,
        irqchip in irqchip(), vsock in choice(), tsi_inet in choice(), tsi_unix in choice(),
        command in prop::collection::vec("[ -~]{1,20}", 0..4),
    ) -> Spec {
        let nets = (0..nets).map(|n| Net::Tap(format!("tap{n}"))).collect();
        let root = Some(Share { read_only, ..Share::root("/srv/root") });
        Spec { cpus, mem_mib, irqchip, nets, root, vsock, tsi_inet, tsi_unix, command, ..with_shares(shares) }
    }
}

proptest! {
    #[test]
    fn same_spec_same_plan(spec in any_spec()) {
        prop_assert_eq!(plan(&spec, &Limits::bundle()), plan(&spec, &Limits::bundle()));
    }

    /// The absent device is one line, one slot and its tokens less, and nothing else.
    #[test]
    fn removing_vsock_moves_nothing(spec in any_spec()) {
        let off = Choice::Off;
        let without = Spec { vsock: off, tsi_inet: off, tsi_unix: off, ..spec.clone() };
        if let (Ok(with), Ok(without)) = (plan(&spec, &Limits::bundle()), plan(&without, &Limits::bundle())) {
            let attached = usize::from(with.vsock.attached());
            prop_assert_eq!(with.devices.len() - attached, without.devices.len());
            prop_assert_eq!(&with.devices[..without.devices.len()], &without.devices[..]);
            let vsock_token = with.devices.get(without.devices.len())
                .map(|vsock| format!("virtio_mmio.device=4K@{:#010x}:{}", vsock.mmio_base, vsock.irq));
            let its_own = |word: &&str| word.starts_with("tsi_hijack") || Some(*word) == vsock_token.as_deref();
            let left: Vec<&str> = with.cmdline.split(' ').filter(|word| !its_own(word)).collect();
            prop_assert_eq!(left, without.cmdline.split(' ').collect::<Vec<_>>());
        }
    }

    /// A net device more: console and shares stay where they are.
    #[test]
    fn adding_a_device_moves_only_later_kinds(spec in any_spec()) {
        let mut more = spec.clone();
        more.nets.push(Net::Tap("another".into()));
        if let (Ok(before), Ok(after)) = (plan(&spec, &Limits::bundle()), plan(&more, &Limits::bundle())) {
            let earlier = 2 + spec.shares.len() + spec.nets.len();
            prop_assert_eq!(irqs_and_addresses(&before.devices[..earlier]), irqs_and_addresses(&after.devices[..earlier]));
        }
    }

    /// A guest is told the same with either.
    #[test]
    fn changing_the_irqchip_moves_nothing(spec in any_spec()) {
        let of = |irqchip| plan(&Spec { irqchip, ..spec.clone() }, &Limits::bundle());
        let split = of(IrqchipChoice::Split);
        if let (Ok(in_kernel), Ok(split)) = (of(IrqchipChoice::InKernel), &split) {
            prop_assert_eq!((in_kernel.io_apic_pins, split.io_apic_pins), (24, 24));
            prop_assert_eq!(&in_kernel.devices, &split.devices);
            prop_assert_eq!(&in_kernel.cmdline, &split.cmdline);
        }
        for kvm_clock in [true, false] {
            let kernel = KernelTraits { kvm_clock, ..KernelTraits::bundle() };
            let auto = plan(&Spec { irqchip: IrqchipChoice::Auto, ..spec.clone() }, &Limits::new(kernel));
            if let (Ok(auto), Ok(split)) = (auto, &split) {
                prop_assert_eq!(auto.irqchip.kind == Irqchip::Split, kvm_clock || auto.devices.len() > LINES);
                prop_assert!(auto.devices.iter().all(|device| device.irq < auto.io_apic_pins));
                prop_assert_eq!(&auto.devices, &split.devices);
            }
        }
    }

    #[test]
    fn tokens_are_there_exactly_with_the_flags(spec in any_spec()) {
        if let Ok(plan) = plan(&spec, &Limits::bundle()) {
            let mut want = vec![];
            if plan.vsock.inet { want.push("tsi_hijack"); }
            if plan.vsock.unix { want.push("tsi_hijack_unix"); }
            prop_assert_eq!(tsi_tokens(&plan), want);
            let devices = plan.devices.iter().filter(|d| matches!(d.kind, DeviceKind::Vsock(_))).count();
            prop_assert_eq!(devices, usize::from(plan.vsock.attached()));
        }
    }

    /// No two devices share a line or an address, and RAM is as much as was asked for.
    #[test]
    fn nothing_is_given_twice(spec in any_spec()) {
        if let Ok(plan) = plan(&spec, &Limits::bundle()) {
            let mut irqs: Vec<u32> = plan.devices.iter().map(|d| d.irq).collect();
            let mut bases: Vec<u64> = plan.devices.iter().map(|d| d.mmio_base).collect();
            irqs.sort_unstable();
            irqs.dedup();
            bases.dedup();
            prop_assert_eq!(irqs.len(), plan.devices.len());
            prop_assert_eq!(bases.len(), plan.devices.len());
            prop_assert_eq!(plan.memory.iter().map(|region| region.len).sum::<u64>(), spec.mem_mib << 20);
        }
    }
}

#[test]
fn what_cannot_be_planned_is_refused_by_name() {
    let share = |guest: &str| Spec {
        shares: vec![Share::new("/srv", guest)],
        ..default()
    };
    let cases: Vec<(Spec, &str)> = vec![
        (Spec { cpus: 0, ..default() }, "1 to 64"),
        (Spec { cpus: 65, ..default() }, "1 to 64"),
        (
            Spec {
                mem_mib: 63,
                ..default()
            },
            "needs 64 MiB",
        ),
        (
            Spec {
                mem_mib: u64::MAX,
                ..default()
            },
            "more than",
        ),
        (
            Spec {
                initramfs: false,
                ..smallest()
            },
            "neither a root",
        ),
        (
            Spec {
                command: vec!["/bin/true".into()],
                ..smallest()
            },
            "needs a root",
        ),
        (share("/"), "root folder is there"),
        (share("relative"), "absolute"),
        (share("/a/../b"), "absolute"),
        (share("/proc/x"), "own file systems"),
        (
            Spec {
                root: Some(Share {
                    kind: ShareKind::File,
                    ..Share::root("/srv/root")
                }),
                ..default()
            },
            "a guest starts from a folder",
        ),
        (
            Spec {
                shares: vec![Share::new("/a", "/x/y/z"), Share::file("/b", "/x")],
                ..default()
            },
            "`/x/y/z` in the guest: what is above it is the share of a file",
        ),
        (share("/.tessera"), "own file systems"),
        (
            Spec {
                shares: vec![Share::new("/a", "/x"), Share::new("/b", "/x")],
                ..default()
            },
            "another share",
        ),
        (
            Spec {
                env: vec![(String::new(), "x".into())],
                ..default()
            },
            "name is empty",
        ),
        (
            Spec {
                env: vec![("A=B".into(), "x".into())],
                ..default()
            },
            "`=`",
        ),
        (
            Spec {
                env: vec![("A".into(), "x\0".into())],
                ..default()
            },
            "NUL",
        ),
        (
            Spec {
                command: vec!["a\0b".into()],
                ..default()
            },
            "NUL",
        ),
        (
            Spec {
                command: vec![String::new()],
                ..default()
            },
            "name is empty",
        ),
        (
            Spec {
                cwd: "here".into(),
                ..default()
            },
            "absolute",
        ),
        (
            Spec {
                name: "a b".into(),
                ..default()
            },
            "host name",
        ),
        (
            Spec {
                nets: vec![Net::Tap("t".into())],
                tsi_inet: Choice::On,
                ..default()
            },
            "exclude each other",
        ),
    ];
    for (spec, want) in cases {
        let message = plan(&spec, &Limits::bundle()).unwrap_err().to_string();
        assert!(message.contains(want), "`{want}` is missing in: {message}");
    }
}

/// The second one stayed in the guest, and nobody was told.
#[test]
fn two_ports_of_the_guest_at_one_of_the_host_are_refused() {
    let published = |binds: [Option<&str>; 2]| {
        let publish = [(binds[0], 80), (binds[1], 81)].map(|(bind, guest_port)| Publish {
            bind: bind.map(|address| address.parse().unwrap()),
            host_port: 8080,
            guest_port,
        });
        let spec = Spec {
            publish: publish.to_vec(),
            ..default()
        };
        plan(&spec, &Limits::bundle())
    };
    for overlapping in [
        [None, None],
        [None, Some("127.0.0.1")],
        [Some("0.0.0.0"), None],
        [Some("127.0.0.1"), Some("0.0.0.0")],
        [Some("::"), Some("::1")],
    ] {
        let refused = published(overlapping).unwrap_err().to_string();
        assert!(
            refused.contains("another port of the guest"),
            "{overlapping:?}: {refused}"
        );
    }
    for apart in [
        [None, Some("127.0.0.2")],
        [None, Some("::1")],
        [Some("0.0.0.0"), Some("::")],
    ] {
        published(apart).unwrap();
    }
}

#[test]
fn a_mount_point_inside_another_share_is_a_folder_of_that_share() {
    let shares = vec![Share::new("/srv/b", "/data/b"), Share::new("/srv/data", "/data")];
    let plan = planned(&Spec { shares, ..default() });
    let folders: Vec<_> = plan
        .devices
        .iter()
        .filter_map(|device| match &device.kind {
            DeviceKind::Share(share) => Some((device.name.as_str(), share.mount_points.folders.join(" "))),
            _ => None,
        })
        .collect();
    assert_eq!(
        folders,
        [
            ("root", "/dev /proc /sys /data".into()),
            ("share0", String::new()),
            ("share1", "/b".into())
        ]
    );
    let targets: Vec<_> = plan
        .init
        .unwrap()
        .mounts
        .into_iter()
        .map(|mount| mount.target)
        .collect();
    assert_eq!(targets, ["/data", "/data/b"], "the outer one is mounted first");
}

/// A file, a file within a folder that is shared too, and both with settings of their own.
fn with_files() -> Spec {
    let shares = vec![
        Share {
            read_only: true,
            ..Share::file("/srv/hosts", "/etc/hosts")
        },
        Share {
            cache: Cache::Always,
            ..Share::new("/srv/data", "/data")
        },
        Share {
            cache: Cache::None,
            ..Share::file("/srv/conf", "/data/app/conf")
        },
    ];
    Spec { shares, ..default() }
}

#[test]
fn files_are_shares_of_their_own() {
    insta::assert_snapshot!(planned(&with_files()));
}

#[test]
fn mount_point_of_a_file_is_a_file_of_what_is_beneath() {
    let plan = planned(&with_files());
    let files: Vec<_> = plan
        .devices
        .iter()
        .filter_map(|device| match &device.kind {
            DeviceKind::Share(share) => Some((device.name.as_str(), share.mount_points.files.join(" "))),
            _ => None,
        })
        .collect();
    let wanted = [
        ("root", "/etc/hosts"),
        ("share0", ""),
        ("share1", "/app/conf"),
        ("share2", ""),
    ];
    assert_eq!(files, wanted.map(|(name, files)| (name, files.to_owned())));
    let mounts = plan.init.unwrap().mounts;
    let mounts: Vec<_> = mounts.iter().map(|mount| (mount.kind, mount.target.as_str())).collect();
    let (folder, file) = (MountKind::Virtiofs, MountKind::File);
    assert_eq!(
        mounts,
        [(folder, "/data"), (file, "/data/app/conf"), (file, "/etc/hosts")]
    );
}

#[test]
fn a_spec_survives_json() {
    let spec = Spec {
        nets: vec![Net::Passt("/run/passt".into())],
        tsi_allow: vec!["127.0.0.1:8080".parse().unwrap()],
        env: vec![("A".into(), "1".into())],
        irqchip: IrqchipChoice::InKernel,
        ..with_files()
    };
    let json = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), spec);
    assert_eq!(serde_json::from_str::<Spec>("{}").unwrap(), Spec::default());
    assert!(
        serde_json::from_str::<Spec>(r#"{"memory": 1}"#).is_err(),
        "an unknown setting is not ignored"
    );
}
