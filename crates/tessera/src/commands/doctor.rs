//! `tessera doctor`: what this computer can do, and what to do about what it cannot.
//!
//! [`Facts`] are gathered from the host; [`findings`] says what they mean, and knows nothing of the host.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::process::ExitCode;

use crate::{OUR_FAILURE, bundle, output};

/// What a machine has by default, and the guest kernel needs at least.
const DEFAULT_MEMORY_MIB: u64 = 1024;
const LEAST_MEMORY_MIB: u64 = 64;

pub(crate) fn doctor() -> anyhow::Result<ExitCode> {
    let findings = findings(&Facts::gather());
    let text: String = findings.iter().map(Finding::to_string).collect();
    output::print(&text)?;
    let healthy = findings.iter().all(|finding| finding.verdict != Verdict::Bad);
    Ok(if healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(OUR_FAILURE)
    })
}

/// Whether `/dev/kvm` can be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KvmAccess {
    Open,
    Missing,
    Denied,
    Other(ErrorKind),
}

/// What can be said of the guest kernel's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KernelFile {
    Known(String),
    Altered(String),
    Missing,
}

/// What was found out about the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    pub kvm: KvmAccess,
    /// What KVM does not have and our machines need, by its own names.
    pub missing: Vec<&'static str>,
    /// `vmx` or `svm`, if the processor shows one.
    pub virtualisation: Option<&'static str>,
    pub available_mib: Option<u64>,
    pub kernel: KernelFile,
}

impl Facts {
    fn gather() -> Self {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        Self {
            kvm: kvm_access(),
            missing: machine::missing_capabilities(),
            virtualisation: virtualisation(),
            available_mib: available_mib(&meminfo),
            kernel: kernel_file(),
        }
    }
}

/// `vmx` or `svm`, if the processor of this computer shows one: then its KVM can boot Linux.
pub(crate) fn virtualisation() -> Option<&'static str> {
    virtualisation_flag(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

fn kvm_access() -> KvmAccess {
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => KvmAccess::Open,
        Err(error) => match error.kind() {
            ErrorKind::NotFound => KvmAccess::Missing,
            ErrorKind::PermissionDenied => KvmAccess::Denied,
            kind => KvmAccess::Other(kind),
        },
    }
}

fn virtualisation_flag(cpuinfo: &str) -> Option<&'static str> {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"))?;
    ["vmx", "svm"]
        .into_iter()
        .find(|flag| flags.split_whitespace().any(|word| word == *flag))
}

fn available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

fn kernel_file() -> KernelFile {
    let Ok(path) = bundle::path() else {
        return KernelFile::Missing;
    };
    let shown = path.display().to_string();
    match bundle::sha256_of_file(&path) {
        Ok(hash) if hash == bundle::SHA256 => KernelFile::Known(shown),
        Ok(_) => KernelFile::Altered(shown),
        Err(_) => KernelFile::Missing,
    }
}

/// How a finding bears on running a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    Poor,
    Bad,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    verdict: Verdict,
    subject: &'static str,
    text: String,
    advice: Option<&'static str>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.verdict {
            Verdict::Good => "ok  ",
            Verdict::Poor => "poor",
            Verdict::Bad => "BAD ",
        };
        writeln!(f, "{mark}  {:<8} {}", self.subject, self.text)?;
        self.advice
            .map_or(Ok(()), |advice| writeln!(f, "      {:<8} -> {advice}", ""))
    }
}

fn findings(facts: &Facts) -> Vec<Finding> {
    vec![kvm(facts), grade(facts), kernel(facts), memory(facts)]
}

fn kvm(facts: &Facts) -> Finding {
    let (verdict, text, advice) = match facts.kvm {
        KvmAccess::Open if facts.missing.is_empty() => (Verdict::Good, "/dev/kvm can be opened".to_owned(), None),
        KvmAccess::Open => (
            Verdict::Bad,
            format!("this KVM lacks {}", facts.missing.join(", ")),
            Some(
                "use Linux 4.4 or newer; without KVM_CAP_SPLIT_IRQCHIP alone, `tessera run --irqchip in-kernel` is enough",
            ),
        ),
        KvmAccess::Missing => (
            Verdict::Bad,
            "there is no /dev/kvm".to_owned(),
            Some(
                "turn virtualisation on in the firmware and load kvm_intel or kvm_amd; in a container pass --device /dev/kvm",
            ),
        ),
        KvmAccess::Denied => (
            Verdict::Bad,
            "/dev/kvm may not be opened".to_owned(),
            Some("add yourself to the group kvm (usermod -aG kvm USER) and log in again"),
        ),
        KvmAccess::Other(kind) => (Verdict::Bad, format!("/dev/kvm cannot be opened: {kind}"), None),
    };
    Finding {
        verdict,
        subject: "kvm",
        text,
        advice,
    }
}

fn grade(facts: &Facts) -> Finding {
    let (verdict, text, advice) = match (facts.kvm, facts.virtualisation) {
        (KvmAccess::Open, Some(flag)) => (
            Verdict::Good,
            format!("kvm-boot: Linux can be booted (the processor has {flag})"),
            None,
        ),
        (KvmAccess::Open, None) => (
            Verdict::Poor,
            "kvm-ioctl: machines can be built, but Linux does not boot (the processor shows neither vmx nor svm)"
                .to_owned(),
            Some(
                "use a computer with hardware virtualisation, or `cargo xtask demo`, which nests the machine in an emulated one",
            ),
        ),
        _ => (
            Verdict::Bad,
            "none: no machine can be built, only planned".to_owned(),
            None,
        ),
    };
    Finding {
        verdict,
        subject: "grade",
        text,
        advice,
    }
}

fn kernel(facts: &Facts) -> Finding {
    let (verdict, text, advice) = match &facts.kernel {
        KernelFile::Known(path) => (Verdict::Good, format!("{path} is {}", bundle::CONTENT), None),
        KernelFile::Altered(path) => (
            Verdict::Bad,
            format!("{path} is not the kernel that is known"),
            Some("remove it and run `tessera kernel fetch`"),
        ),
        KernelFile::Missing => (
            Verdict::Bad,
            "there is no guest kernel yet".to_owned(),
            Some("run `tessera kernel fetch`, or give one with --kernel"),
        ),
    };
    Finding {
        verdict,
        subject: "kernel",
        text,
        advice,
    }
}

fn memory(facts: &Facts) -> Finding {
    let (verdict, text, advice) = match facts.available_mib {
        Some(mib) if mib >= DEFAULT_MEMORY_MIB => (Verdict::Good, format!("{mib} MiB are available"), None),
        Some(mib) if mib >= LEAST_MEMORY_MIB => (
            Verdict::Poor,
            format!("{mib} MiB are available, less than the {DEFAULT_MEMORY_MIB} of a machine by default"),
            Some("give the machine less with -m"),
        ),
        Some(mib) => (
            Verdict::Bad,
            format!("only {mib} MiB are available"),
            Some("end other programs"),
        ),
        None => (Verdict::Poor, "how much is available is not known".to_owned(), None),
    };
    Finding {
        verdict,
        subject: "memory",
        text,
        advice,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> Facts {
        Facts {
            kvm: KvmAccess::Open,
            missing: Vec::new(),
            virtualisation: Some("vmx"),
            available_mib: Some(4096),
            kernel: KernelFile::Known("/k".into()),
        }
    }

    fn verdicts(facts: &Facts) -> Vec<Verdict> {
        findings(facts).iter().map(|finding| finding.verdict).collect()
    }

    #[test]
    fn healthy_host_has_good_findings_without_advice() {
        assert_eq!(verdicts(&healthy()), [Verdict::Good; 4]);
        assert!(findings(&healthy()).iter().all(|finding| finding.advice.is_none()));
    }

    #[test]
    fn kvm_without_hardware_virtualisation_is_of_the_grade_kvm_ioctl() {
        let facts = Facts {
            virtualisation: None,
            ..healthy()
        };
        assert_eq!(
            verdicts(&facts),
            [Verdict::Good, Verdict::Poor, Verdict::Good, Verdict::Good]
        );
        assert!(findings(&facts)[1].text.starts_with("kvm-ioctl: "));
    }

    #[test]
    fn each_lack_is_bad_and_has_advice() {
        let lacks = [
            (
                0,
                Facts {
                    kvm: KvmAccess::Missing,
                    ..healthy()
                },
            ),
            (
                0,
                Facts {
                    missing: vec!["KVM_CAP_SPLIT_IRQCHIP"],
                    ..healthy()
                },
            ),
            (
                0,
                Facts {
                    kvm: KvmAccess::Denied,
                    ..healthy()
                },
            ),
            (
                2,
                Facts {
                    kernel: KernelFile::Missing,
                    ..healthy()
                },
            ),
            (
                2,
                Facts {
                    kernel: KernelFile::Altered("/k".into()),
                    ..healthy()
                },
            ),
            (
                3,
                Facts {
                    available_mib: Some(63),
                    ..healthy()
                },
            ),
        ];
        for (place, facts) in lacks {
            let finding = findings(&facts).swap_remove(place);
            assert_eq!(finding.verdict, Verdict::Bad, "{facts:?}");
            assert!(finding.advice.is_some(), "{facts:?}");
        }
    }

    #[test]
    fn processor_flags_are_whole_words() {
        assert_eq!(
            virtualisation_flag("processor : 0\nflags\t\t: fpu vmx sse\n"),
            Some("vmx")
        );
        assert_eq!(virtualisation_flag("flags : fpu svm\n"), Some("svm"));
        assert_eq!(virtualisation_flag("flags : fpu svm_lock nvmx\n"), None);
        assert_eq!(virtualisation_flag(""), None);
    }

    #[test]
    fn available_memory_is_read_from_meminfo() {
        assert_eq!(
            available_mib("MemTotal: 8 kB\nMemAvailable:    2097152 kB\n"),
            Some(2048)
        );
        assert_eq!(available_mib("MemTotal: 8 kB\n"), None);
        assert_eq!(available_mib("MemAvailable: much\n"), None);
    }
}
