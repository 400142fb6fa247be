//! From arguments to a `Spec`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use machine::{Choice, KernelWords, Net, Share, ShareKind, Spec, Stdio, VsockRoute};

use crate::cli::{MachineArgs, Toggle};
use crate::values::{NetArg, NetMode};

/// Why arguments make no spec.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(crate) enum SpecError {
    #[error("-e {0}: the name of the environment variable is empty")]
    EmptyName(String),
    #[error("-e {0}: there is no such environment variable to pass: set it, or give a value with -e {0}=VALUE")]
    Unset(String),
    #[error("-e {0}: the environment variable is not UTF-8, and the guest can be given nothing else")]
    NotUtf8(String),
    #[error("{option} {text}: {why}")]
    Rule {
        option: &'static str,
        text: String,
        why: String,
    },
    #[error("--net is given twice with different modes: say auto, none or tsi once")]
    NetModes,
    #[error("{} has no absolute path: {why}", path.display())]
    NoAbsolutePath { path: PathBuf, why: String },
}

/// Makes a spec. `host_env` is asked for the value of a variable that is to be passed on.
pub(crate) fn spec(
    args: &MachineArgs,
    net: &[NetArg],
    stdio: Stdio,
    host_env: impl Fn(&OsStr) -> Option<OsString>,
) -> Result<Spec, SpecError> {
    let mode = net_mode(net)?;
    Ok(Spec {
        name: args.name.clone(),
        cpus: args.cpus,
        mem_mib: args.memory,
        irqchip: args.irqchip.into(),
        kernel_words: KernelWords {
            add: args.cmdline.clone(),
            omit: args.cmdline_omit.clone(),
        },
        root: Some(Share::root(absolute(&args.rootfs)?)),
        shares: args.volume.iter().map(as_on_host).collect::<Result<_, _>>()?,
        command: args.command.clone(),
        env: args
            .env
            .iter()
            .map(|word| variable(word, &host_env))
            .collect::<Result<_, _>>()?,
        cwd: args.workdir.clone(),
        stdio,
        nets: net.iter().filter_map(device).collect(),
        vsock: args.vsock.into(),
        tsi_inet: tsi_inet(mode),
        tsi_unix: tsi_unix(mode, args.tsi_unix),
        tsi_allow: rules("--tsi-allow", &args.tsi_allow)?,
        tsi_deny: rules("--tsi-deny", &args.tsi_deny)?,
        publish: args.publish.clone(),
        publish_unix: args.publish_unix.clone(),
        vsock_routes: args
            .vsock_port
            .iter()
            .map(with_absolute_path)
            .collect::<Result<_, _>>()?,
        ..Spec::default()
    })
}

/// `auto` when no mode is said, be there net devices or not.
fn net_mode(nets: &[NetArg]) -> Result<NetMode, SpecError> {
    let mut modes = nets.iter().filter_map(|net| match net {
        NetArg::Mode(mode) => Some(*mode),
        NetArg::Device(_) => None,
    });
    let first = modes.next().unwrap_or(NetMode::Auto);
    if modes.any(|mode| mode != first) {
        Err(SpecError::NetModes)
    } else {
        Ok(first)
    }
}

fn device(net: &NetArg) -> Option<Net> {
    match net {
        NetArg::Device(device) => Some(device.clone()),
        NetArg::Mode(_) => None,
    }
}

fn tsi_inet(mode: NetMode) -> Choice {
    match mode {
        NetMode::Auto => Choice::Auto,
        NetMode::None => Choice::Off,
        NetMode::Tsi => Choice::On,
    }
}

/// "No network" means the host's UNIX sockets too, unless they are asked for.
fn tsi_unix(mode: NetMode, toggle: Toggle) -> Choice {
    match (mode, toggle) {
        (NetMode::None, Toggle::Auto) => Choice::Off,
        _ => toggle.into(),
    }
}

fn variable(word: &OsStr, host_env: impl Fn(&OsStr) -> Option<OsString>) -> Result<(String, String), SpecError> {
    let Some(text) = word.to_str() else {
        return Err(SpecError::NotUtf8(word.to_string_lossy().into_owned()));
    };
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    if name.is_empty() {
        return Err(SpecError::EmptyName(text.to_owned()));
    }
    let value = match value {
        Some(value) => value,
        None => host_env(OsStr::new(name))
            .ok_or_else(|| SpecError::Unset(name.to_owned()))?
            .into_string()
            .map_err(|_| SpecError::NotUtf8(name.to_owned()))?,
    };
    Ok((name.to_owned(), value))
}

fn rules<R: FromStr<Err: std::error::Error>>(option: &'static str, texts: &[String]) -> Result<Vec<R>, SpecError> {
    let rule = |text: &String| {
        text.parse().map_err(|error: R::Err| SpecError::Rule {
            option,
            text: text.clone(),
            why: error.to_string(),
        })
    };
    texts.iter().map(rule).collect()
}

/// What is not there is planned as a folder, and found wanting when it is to be run.
fn as_on_host(share: &Share) -> Result<Share, SpecError> {
    let host = absolute(&share.host)?;
    let kind = if host.is_file() {
        ShareKind::File
    } else {
        ShareKind::Folder
    };
    Ok(Share {
        host,
        kind,
        ..share.clone()
    })
}

fn with_absolute_path(route: &VsockRoute) -> Result<VsockRoute, SpecError> {
    Ok(VsockRoute {
        path: absolute(&route.path)?,
        ..route.clone()
    })
}

/// A machine outlives a change of folder, and a plan should mean the same wherever it is read.
fn absolute(path: &Path) -> Result<PathBuf, SpecError> {
    std::path::absolute(path).map_err(|error| SpecError::NoAbsolutePath {
        path: path.to_owned(),
        why: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use clap::Parser;
    use machine::Limits;

    use super::*;
    use crate::cli::{Cli, Command};

    fn spec_of(args: &[&str]) -> Result<Spec, SpecError> {
        let cli = Cli::try_parse_from(["tessera", "plan"].iter().chain(args).chain(&["/r"])).expect("well formed");
        let Command::Plan(args) = cli.command else {
            panic!("not a plan")
        };
        spec(&args.machine, &args.net, Stdio::default(), |name| match name.to_str() {
            Some("PASSED") => Some("from the host".into()),
            Some("BROKEN") => Some(OsString::from_vec(vec![0xff])),
            _ => None,
        })
    }

    #[test]
    fn spec_without_arguments_is_the_default_with_a_root() {
        let expected = Spec {
            root: Some(Share::root("/r")),
            ..Spec::default()
        };
        assert_eq!(spec_of(&[]), Ok(expected));
    }

    #[test]
    fn variables_are_set_or_passed() {
        let spec = spec_of(&["-e", "A=b=c", "-e", "EMPTY=", "-e", "PASSED"]).expect("all can be carried");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            spec.env,
            [pair("A", "b=c"), pair("EMPTY", ""), pair("PASSED", "from the host")]
        );
    }

    #[test]
    fn variables_that_cannot_be_carried_are_refused_by_name() {
        assert_eq!(spec_of(&["-e", "=x"]), Err(SpecError::EmptyName("=x".into())));
        assert_eq!(spec_of(&["-e", ""]), Err(SpecError::EmptyName(String::new())));
        assert_eq!(spec_of(&["-e", "UNSET"]), Err(SpecError::Unset("UNSET".into())));
        assert_eq!(spec_of(&["-e", "BROKEN"]), Err(SpecError::NotUtf8("BROKEN".into())));
        let raw = OsString::from_vec(b"A=\xff".to_vec());
        assert_eq!(variable(&raw, |_| None), Err(SpecError::NotUtf8("A=\u{fffd}".into())));
    }

    #[test]
    fn net_none_turns_inet_and_unix_off_unless_unix_is_asked_for() {
        let choices = |args: &[&str]| spec_of(args).map(|spec| (spec.tsi_inet, spec.tsi_unix, spec.nets.len()));
        assert_eq!(choices(&["--net", "auto"]), Ok((Choice::Auto, Choice::Auto, 0)));
        assert_eq!(choices(&["--net", "none"]), Ok((Choice::Off, Choice::Off, 0)));
        assert_eq!(
            choices(&["--net", "none", "--tsi-unix", "on"]),
            Ok((Choice::Off, Choice::On, 0))
        );
        assert_eq!(
            choices(&["--net", "tsi", "--tsi-unix", "off"]),
            Ok((Choice::On, Choice::Off, 0))
        );
        assert_eq!(
            choices(&["--net", "tap=a", "--net", "passt=b"]),
            Ok((Choice::Auto, Choice::Auto, 2))
        );
        assert_eq!(choices(&["--net", "none", "--net", "tsi"]), Err(SpecError::NetModes));
    }

    #[test]
    fn net_device_root_and_two_shares_have_no_vsock_and_one_line_less_than_when_it_is_asked_for() {
        let args = ["--net", "tap=t0", "-v", "/a:/mnt/a", "-v", "/b:/mnt/b:ro"];
        let plan = |more: &[&str]| {
            let spec = spec_of(&[&args, more].concat()).expect("well formed");
            machine::plan(&spec, &Limits::bundle()).expect("possible")
        };
        let (without, with) = (plan(&[]), plan(&["--vsock", "on"]));
        assert!(!without.vsock.attached() && with.vsock.attached());
        assert_eq!(without.devices.len() + 1, with.devices.len());
        assert!(!without.cmdline.contains("tsi_hijack"));
    }

    #[test]
    fn rule_that_is_none_names_its_option() {
        let error = spec_of(&["--tsi-allow", "nonsense"]).expect_err("no rule").to_string();
        assert!(error.starts_with("--tsi-allow nonsense: "), "{error}");
        assert_eq!(
            spec_of(&["--tsi-allow", "127.0.0.1:80"])
                .expect("a rule")
                .tsi_allow
                .len(),
            1
        );
    }

    #[test]
    fn shared_file_is_told_from_a_folder_by_a_look_at_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("a temporary folder");
        for (path, kind) in [
            (file.as_path(), ShareKind::File),
            (folder.path(), ShareKind::Folder),
            (Path::new("/nowhere"), ShareKind::Folder),
        ] {
            let spec = spec_of(&["-v", &format!("{}:/mnt", path.display())]).expect("well formed");
            assert_eq!(spec.shares[0].kind, kind, "{}", path.display());
        }
    }

    #[test]
    fn relative_folders_become_absolute() {
        let spec = spec_of(&["-v", "x:/mnt"]).expect("well formed");
        assert!(spec.shares[0].host.is_absolute());
    }
}
