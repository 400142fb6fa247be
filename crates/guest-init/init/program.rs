//! Finding the program and starting it.

use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::config::Config;
use crate::fault::Fault;
use crate::streams::Streams;
use crate::sys::{self, ChildSetUp, SetUpStep};

pub(crate) type Pid = i32;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const DEFAULT_HOME: &str = "/root";
const DEFAULT_TERM: &str = "linux";

/// Starts the program in a session of its own, so that it leads a process group that signals can be sent to.
pub(crate) fn start(config: &Config, streams: &Streams) -> Result<Pid, Fault> {
    let (program, arguments) = config
        .args
        .split_first()
        .ok_or_else(|| Fault::set_up("no program is named".to_owned()))?;
    let environment = environment(config);
    let mut refusal = None;
    for path in candidates(program, path_variable(&environment)) {
        if !path.is_file() {
            if path.is_dir() {
                refusal.get_or_insert_with(|| Fault::not_executable(format!("{path:?} is a folder, not a program")));
            }
            continue;
        }
        let mut command = Command::new(&path);
        command.arg0(program).args(arguments).env_clear();
        command.envs(environment.iter().map(|(name, value)| (name, value)));
        match spawn(command, config, streams)? {
            Ok(pid) => return Ok(pid),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                refusal = Some(Fault::not_executable(format!("{path:?} is not executable: {error}")));
            }
            Err(error) => return Err(not_started(&path, &error)),
        }
    }
    Err(refusal.unwrap_or_else(|| not_found(program)))
}

fn not_started(path: &std::path::Path, error: &io::Error) -> Fault {
    if error.kind() == io::ErrorKind::NotFound {
        // The file was there a moment ago: what is not there is what it wants to be run by.
        Fault::not_found(format!("{path:?} names an interpreter that is not in the guest"))
    } else {
        Fault::not_executable(format!("cannot execute {path:?}: {error}"))
    }
}

fn not_found(program: &str) -> Fault {
    if program.contains('/') {
        Fault::not_found(format!("the program {program:?} is not in the guest"))
    } else {
        Fault::not_found(format!("the program {program:?} is in no folder of PATH"))
    }
}

/// The outer result is about what was to be done before exec, the inner one about exec.
fn spawn(mut command: Command, config: &Config, streams: &Streams) -> Result<io::Result<Pid>, Fault> {
    let plumbing = |error| Fault::set_up(format!("cannot make the program's descriptors: {error}"));
    let stdio = |stream: &File| stream.try_clone().map(Stdio::from).map_err(plumbing);
    command
        .stdin(stdio(&streams.stdin)?)
        .stdout(stdio(&streams.stdout)?)
        .stderr(stdio(&streams.stderr)?);
    let (trouble, trouble_in_child) = io::pipe().map_err(plumbing)?;
    let terminal = streams
        .terminal
        .as_ref()
        .map(File::try_clone)
        .transpose()
        .map_err(plumbing)?;
    sys::set_up_child(
        &mut command,
        ChildSetUp {
            terminal,
            rlimits: config.rlimits.clone(),
            trouble: trouble_in_child,
        },
    );
    let spawned = command.spawn();
    drop(command);
    match spawned {
        Ok(child) => Ok(Ok(
            Pid::try_from(child.id()).map_err(|_| Fault::set_up("a process id is out of range".into()))?
        )),
        Err(error) => match step_that_failed(trouble) {
            Some(step) => Err(Fault::set_up(sentence(step, config, &error))),
            None => Ok(Err(error)),
        },
    }
}

fn step_that_failed(mut trouble: PipeReader) -> Option<SetUpStep> {
    let mut report = Vec::new();
    trouble.read_to_end(&mut report).ok()?;
    report.first().copied().map(SetUpStep::from_byte)
}

fn sentence(step: SetUpStep, config: &Config, error: &io::Error) -> String {
    match step {
        SetUpStep::Session => format!("cannot start a session: {error}"),
        SetUpStep::Terminal => format!("cannot make the console the program's terminal: {error}"),
        SetUpStep::Rlimit(index) => match config.rlimits.get(usize::from(index)) {
            Some(limit) => format!(
                "cannot limit resource {} to {} (at most {}): {error}",
                limit.resource, limit.soft, limit.hard
            ),
            None => format!("cannot set a limit: {error}"),
        },
    }
}

/// The variables of the configuration and what every program expects besides.
fn environment(config: &Config) -> Vec<(String, String)> {
    let mut environment = config.env.clone();
    let mut defaults = vec![("PATH", DEFAULT_PATH), ("HOME", DEFAULT_HOME)];
    if config.terminal {
        defaults.push(("TERM", DEFAULT_TERM));
    }
    for (name, value) in defaults {
        if !config.env.iter().any(|(given, _)| given == name) {
            environment.push((name.to_owned(), value.to_owned()));
        }
    }
    environment
}

fn path_variable(environment: &[(String, String)]) -> &str {
    // As with `envs`, of two with the same name the last counts.
    environment
        .iter()
        .rev()
        .find(|(name, _)| name == "PATH")
        .map_or(DEFAULT_PATH, |(_, value)| value)
}

/// Where the program may be, in the order of `execvp(3)`: an empty folder of `path` is the current one.
fn candidates(program: &str, path: &str) -> Vec<PathBuf> {
    if program.is_empty() {
        return Vec::new();
    }
    if program.contains('/') {
        return vec![PathBuf::from(program)];
    }
    path.split(':')
        .map(|folder| PathBuf::from(if folder.is_empty() { "." } else { folder }).join(program))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Failure;
    use std::os::unix::fs::PermissionsExt;

    fn streams() -> Streams {
        let nothing = || File::options().read(true).write(true).open("/dev/null").unwrap();
        Streams {
            stdin: nothing(),
            stdout: nothing(),
            stderr: nothing(),
            terminal: None,
            control: None,
        }
    }

    fn config(program: &str, path: &str) -> Config {
        Config {
            args: vec![program.into()],
            env: vec![("PATH".into(), path.into())],
            ..Config::default()
        }
    }

    fn folder_with(name: &str, content: &str, mode: u32) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        std::fs::write(&file, content).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).unwrap();
        folder
    }

    fn failure(program: &str, path: &str) -> Fault {
        start(&config(program, path), &streams()).unwrap_err()
    }

    #[test]
    fn candidates_follow_path_and_its_empty_folders() {
        let found = candidates("sh", "/bin::/usr/bin");
        assert_eq!(found, ["/bin/sh", "./sh", "/usr/bin/sh"].map(PathBuf::from));
        assert_eq!(candidates("./sh", "/bin"), [PathBuf::from("./sh")]);
        assert_eq!(candidates("", "/bin"), Vec::<PathBuf>::new());
    }

    #[test]
    fn environment_keeps_what_is_given_and_adds_what_is_missing() {
        let config = Config {
            env: vec![("HOME".into(), "/h".into())],
            terminal: true,
            ..Config::default()
        };
        let environment = environment(&config);
        assert_eq!(environment.iter().filter(|(name, _)| name == "HOME").count(), 1);
        assert_eq!(path_variable(&environment), DEFAULT_PATH);
        assert!(environment.iter().any(|(name, _)| name == "TERM"));
    }

    #[test]
    fn program_in_path_runs_with_its_arguments_and_only_its_environment() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out");
        let mut config = config("sh", "/usr/bin:/bin");
        config
            .args
            .extend(["-c", "echo $0 $1 $A ${CARGO:-none}", "zero", "one"].map(String::from));
        config.env.push(("A".into(), "a b".into()));
        let streams = Streams {
            stdout: File::create(&output).unwrap(),
            ..streams()
        };

        let pid = start(&config, &streams).unwrap();

        assert_eq!(sys::wait_for(pid).unwrap(), 0);
        assert_eq!(std::fs::read_to_string(output).unwrap(), "zero one a b none\n");
    }

    #[test]
    fn program_in_no_folder_of_path_is_not_found() {
        let fault = failure("no-such-program", "/usr/bin:/nonexistent");
        assert_eq!(fault.failure, Failure::NotFound);
        assert!(fault.message.contains("no-such-program"));
    }

    #[test]
    fn file_without_execute_permission_is_not_executable() {
        let folder = folder_with("tool", "#!/bin/sh\n", 0o644);
        assert_eq!(
            failure("tool", folder.path().to_str().unwrap()).failure,
            Failure::NotExecutable
        );
    }

    #[test]
    fn file_without_execute_permission_does_not_hide_a_later_one() {
        let hidden = folder_with("tool", "#!/bin/sh\n", 0o644);
        let good = folder_with("tool", "#!/bin/sh\nexit 3\n", 0o755);
        let path = format!("{}:{}", hidden.path().display(), good.path().display());
        let pid = start(&config("tool", &path), &streams()).unwrap();
        assert_eq!(sys::wait_for(pid).unwrap(), 3 << 8);
    }

    #[test]
    fn folder_in_place_of_the_program_is_not_executable() {
        assert_eq!(failure("/usr", "").failure, Failure::NotExecutable);
    }

    #[test]
    fn script_whose_interpreter_is_missing_is_not_found_and_says_so() {
        let folder = folder_with("script", "#!/nonexistent/interpreter\n", 0o755);
        let fault = failure("script", folder.path().to_str().unwrap());
        assert_eq!(fault.failure, Failure::NotFound);
        assert!(fault.message.contains("interpreter"), "{}", fault.message);
    }

    #[test]
    fn limit_that_the_kernel_refuses_is_a_set_up_failure_that_names_it() {
        let mut config = config("true", "/usr/bin:/bin");
        config.rlimits = vec![crate::config::Rlimit {
            resource: 99,
            soft: 1,
            hard: 1,
        }];
        let fault = start(&config, &streams()).unwrap_err();
        assert_eq!(fault.failure, Failure::SetUpFailed);
        assert!(fault.message.contains("resource 99"), "{}", fault.message);
    }

    #[test]
    fn limit_reaches_the_program() {
        let mut config = config("sh", "/usr/bin:/bin");
        config.args.extend(["-c", "exit $(ulimit -n)"].map(String::from));
        config.rlimits = vec![crate::config::Rlimit {
            resource: 7,
            soft: 77,
            hard: 77,
        }];
        let pid = start(&config, &streams()).unwrap();
        assert_eq!(sys::wait_for(pid).unwrap(), 77 << 8);
    }
}
