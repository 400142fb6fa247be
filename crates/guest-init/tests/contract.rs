//! What the host may rely on.

use guest_init::contract::Failure;
use guest_init::{Config, Mount, MountKind, Ports, Rlimit};

#[test]
fn failure_numbers_are_the_contract() {
    for (failure, number, status) in [
        (Failure::NotFound, 1, 127),
        (Failure::NotExecutable, 2, 126),
        (Failure::SetUpFailed, 3, 125),
    ] {
        assert_eq!(failure.number(), number);
        assert_eq!(failure.shell_status(), status);
        assert_eq!(Failure::from_number(number), Some(failure));
    }
    assert_eq!(Failure::from_number(0), None);
    assert_eq!(Failure::from_number(4), None);
}

#[test]
fn config_has_the_form_that_the_init_reads() {
    let config = Config {
        args: vec!["sh".into(), "-c".into()],
        env: vec![("A".into(), "b=c".into())],
        cwd: "/".into(),
        mounts: vec![
            Mount {
                kind: MountKind::Virtiofs,
                tag: "data".into(),
                target: "/d".into(),
                read_only: true,
            },
            Mount {
                kind: MountKind::File,
                tag: "one".into(),
                target: "/etc/one".into(),
                read_only: false,
            },
        ],
        rlimits: vec![Rlimit {
            resource: 7,
            soft: 1024,
            hard: u64::MAX,
        }],
        hostname: "h".into(),
        tsi_inet: true,
        terminal: false,
        ports: Ports {
            stdin: true,
            ..Ports::default()
        },
    };
    let expected = concat!(
        r#"{"args":["sh","-c"],"env":[["A","b=c"]],"cwd":"/","#,
        r#""mounts":[{"kind":"virtiofs","tag":"data","target":"/d","read_only":true},"#,
        r#"{"kind":"file","tag":"one","target":"/etc/one","read_only":false}],"#,
        r#""rlimits":[{"resource":7,"soft":1024,"hard":18446744073709551615}],"hostname":"h","tsi_inet":true,"#,
        r#""terminal":false,"ports":{"stdin":true,"stdout":false,"stderr":false,"control":false}}"#,
    );
    assert_eq!(String::from_utf8(config.to_json()).unwrap(), expected);
}
