//! The configuration from its file.

use crate::config::{Config, Mount, MountKind, Ports, Rlimit};
use crate::fault::Fault;
use crate::json::{self, Value};

pub(crate) fn read(path: &str) -> Result<Config, Fault> {
    let text = std::fs::read_to_string(path).map_err(|error| Fault::set_up(format!("cannot read {path}: {error}")))?;
    let value = json::parse(&text).map_err(|json::NotJson { offset, expected }| {
        Fault::set_up(format!("{path} is not JSON: {expected} is missing at byte {offset}"))
    })?;
    config(&value).map_err(|Unexpected(what)| Fault::set_up(format!("{path} lacks {what}, or has it in another form")))
}

/// The name of what is missing or of another type.
#[derive(Debug, PartialEq, Eq)]
struct Unexpected(&'static str);

fn config(value: &Value) -> Result<Config, Unexpected> {
    let config = Config {
        args: list(value, "args", |item| text_of(item, "args"))?,
        env: list(value, "env", variable)?,
        cwd: text(value, "cwd")?,
        mounts: list(value, "mounts", mount)?,
        rlimits: list(value, "rlimits", rlimit)?,
        hostname: text(value, "hostname")?,
        tsi_inet: flag(value, "tsi_inet")?,
        terminal: flag(value, "terminal")?,
        ports: ports(field(value, "ports")?)?,
    };
    if config.args.is_empty() {
        Err(Unexpected("a program in args"))
    } else {
        Ok(config)
    }
}

fn variable(value: &Value) -> Result<(String, String), Unexpected> {
    match value {
        Value::List(pair) => match pair.as_slice() {
            [name, value] => Ok((text_of(name, "env")?, text_of(value, "env")?)),
            _ => Err(Unexpected("env")),
        },
        _ => Err(Unexpected("env")),
    }
}

fn mount(value: &Value) -> Result<Mount, Unexpected> {
    let kind = match text(value, "kind")?.as_str() {
        "virtiofs" => MountKind::Virtiofs,
        "file" => MountKind::File,
        "tmpfs" => MountKind::Tmpfs,
        _ => return Err(Unexpected("kind")),
    };
    Ok(Mount {
        kind,
        tag: text(value, "tag")?,
        target: text(value, "target")?,
        read_only: flag(value, "read_only")?,
    })
}

fn rlimit(value: &Value) -> Result<Rlimit, Unexpected> {
    let resource = u32::try_from(number(value, "resource")?).map_err(|_| Unexpected("resource"))?;
    Ok(Rlimit {
        resource,
        soft: number(value, "soft")?,
        hard: number(value, "hard")?,
    })
}

fn ports(value: &Value) -> Result<Ports, Unexpected> {
    Ok(Ports {
        stdin: flag(value, "stdin")?,
        stdout: flag(value, "stdout")?,
        stderr: flag(value, "stderr")?,
        control: flag(value, "control")?,
    })
}

fn field<'a>(value: &'a Value, name: &'static str) -> Result<&'a Value, Unexpected> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
            .ok_or(Unexpected(name)),
        _ => Err(Unexpected(name)),
    }
}

fn list<T>(
    value: &Value,
    name: &'static str,
    item: impl Fn(&Value) -> Result<T, Unexpected>,
) -> Result<Vec<T>, Unexpected> {
    match field(value, name)? {
        Value::List(items) => items.iter().map(item).collect(),
        _ => Err(Unexpected(name)),
    }
}

fn text(value: &Value, name: &'static str) -> Result<String, Unexpected> {
    text_of(field(value, name)?, name)
}

fn text_of(value: &Value, name: &'static str) -> Result<String, Unexpected> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        _ => Err(Unexpected(name)),
    }
}

fn number(value: &Value, name: &'static str) -> Result<u64, Unexpected> {
    match field(value, name)? {
        Value::Number(number) => Ok(*number),
        _ => Err(Unexpected(name)),
    }
}

fn flag(value: &Value, name: &'static str) -> Result<bool, Unexpected> {
    match field(value, name)? {
        Value::Bool(flag) => Ok(*flag),
        _ => Err(Unexpected(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Failure;
    use proptest::prelude::*;

    fn any_mount() -> impl Strategy<Value = Mount> {
        let kind = prop_oneof![Just(MountKind::Virtiofs), Just(MountKind::File), Just(MountKind::Tmpfs)];
        (kind, any::<String>(), any::<String>(), any::<bool>()).prop_map(|(kind, tag, target, read_only)| Mount {
            kind,
            tag,
            target,
            read_only,
        })
    }

    fn any_config() -> impl Strategy<Value = Config> {
        let texts = (
            proptest::collection::vec(any::<String>(), 1..5),
            proptest::collection::vec(any::<(String, String)>(), 0..5),
            any::<String>(),
            any::<String>(),
        );
        let lists = (
            proptest::collection::vec(any_mount(), 0..4),
            proptest::collection::vec(any::<(u32, u64, u64)>(), 0..4),
        );
        (texts, lists, any::<[bool; 6]>()).prop_map(|((args, env, cwd, hostname), (mounts, limits), flags)| {
            let [tsi_inet, terminal, stdin, stdout, stderr, control] = flags;
            let rlimits = limits
                .into_iter()
                .map(|(resource, soft, hard)| Rlimit { resource, soft, hard })
                .collect();
            let ports = Ports {
                stdin,
                stdout,
                stderr,
                control,
            };
            Config {
                args,
                env,
                cwd,
                mounts,
                rlimits,
                hostname,
                tsi_inet,
                terminal,
                ports,
            }
        })
    }

    proptest! {
        #[test]
        fn config_written_by_the_host_is_read_back(config in any_config()) {
            let file = serde_json::to_string(&config).unwrap();
            prop_assert_eq!(super::config(&json::parse(&file).unwrap()), Ok(config));
        }
    }

    #[test]
    fn config_without_one_field_names_it() {
        let full = serde_json::to_value(Config {
            args: vec!["sh".into()],
            ..Config::default()
        })
        .unwrap();
        for name in [
            "args", "env", "cwd", "mounts", "rlimits", "hostname", "tsi_inet", "terminal", "ports",
        ] {
            let mut lacking = full.clone();
            lacking.as_object_mut().unwrap().remove(name);
            assert_eq!(
                config(&json::parse(&lacking.to_string()).unwrap()),
                Err(Unexpected(name))
            );
        }
    }

    #[test]
    fn config_without_program_is_refused() {
        let file = serde_json::to_string(&Config::default()).unwrap();
        assert_eq!(
            config(&json::parse(&file).unwrap()),
            Err(Unexpected("a program in args"))
        );
    }

    #[test]
    fn missing_file_is_a_set_up_failure_that_names_it() {
        let fault = read("/nonexistent/config.json").unwrap_err();
        assert_eq!(fault.failure, Failure::SetUpFailed);
        assert!(fault.message.contains("/nonexistent/config.json"));
    }
}
