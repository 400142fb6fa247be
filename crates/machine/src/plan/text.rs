//! The plan as people read it, and as golden files keep it.

use std::fmt;

use super::irqchip::IrqchipDecision;
use super::vsock::VsockDecision;
use super::{DeviceKind, DevicePlan, Plan, SharePlan, VsockPlan};
use crate::limits::KernelKind;
use crate::spec::{Cache, Net, ShareKind};

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "vCPUs    {}", self.cpus)?;
        for (n, region) in self.memory.iter().enumerate() {
            let label = if n == 0 { "memory" } else { "" };
            writeln!(
                f,
                "{label:<8} {:#011x}..{:#011x}  {} MiB",
                region.start,
                region.end(),
                region.len >> 20
            )?;
        }
        writeln!(
            f,
            "kernel   {}{}",
            self.kernel.kind,
            if self.initramfs { " with an initramfs" } else { "" }
        )?;
        writeln!(f, "irqchip  {}", self.irqchip)?;
        writeln!(
            f,
            "devices  {} on an IO-APIC of {} pins",
            self.devices.len(),
            self.io_apic_pins
        )?;
        for device in &self.devices {
            writeln!(f, "  {device}")?;
        }
        writeln!(f, "vsock    {}", self.vsock)?;
        writeln!(f, "cmdline  {}", self.cmdline)?;
        if let Some(init) = &self.init {
            writeln!(f, "program  {}", Words(&init.args))?;
        }
        Ok(())
    }
}

impl fmt::Display for DevicePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<8} IRQ {:>2}  MMIO {:#010x}  {}",
            self.name, self.irq, self.mmio_base, self.kind
        )
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Console { ports } => {
                f.write_str("virtio-console hvc0")?;
                ports.iter().skip(1).try_for_each(|port| write!(f, ", {}", port.name))
            }
            Self::Share(share) => share.fmt(f),
            Self::Net(Net::Tap(name)) => write!(f, "virtio-net on tap {name}"),
            Self::Net(Net::Passt(socket)) => write!(f, "virtio-net on passt {}", socket.display()),
            Self::Vsock(vsock) => vsock.fmt(f),
        }
    }
}

impl fmt::Display for SharePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.read_only { "read-only" } else { "read-write" };
        let kind = match self.kind {
            ShareKind::Folder => "",
            ShareKind::File => "file ",
        };
        write!(f, "virtio-fs {} {access} {kind}{}", self.tag, self.host.display())?;
        f.write_str(match self.cache {
            Cache::None => ", never cached",
            Cache::Auto => "",
            Cache::Always => ", always cached",
        })?;
        match self.request_queues {
            1 => Ok(()),
            queues => write!(f, ", {queues} request queues"),
        }
    }
}

impl fmt::Display for VsockPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "virtio-vsock CID {}", self.guest_cid)?;
        if self.inet {
            f.write_str(", INET TSI")?;
        }
        if self.unix {
            f.write_str(", UNIX TSI")?;
        }
        self.routes
            .iter()
            .try_for_each(|route| write!(f, ", port {} on {}", route.port, route.path.display()))?;
        self.publish
            .iter()
            .try_for_each(|publish| write!(f, ", host port {} for {}", publish.host_port, publish.guest_port))?;
        self.publish_unix
            .iter()
            .try_for_each(|path| write!(f, ", listeners at {path}"))
    }
}

impl fmt::Display for IrqchipDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.reason)
    }
}

impl fmt::Display for VsockDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.attached() {
            "attached: "
        } else {
            "not attached: "
        })?;
        self.reasons
            .iter()
            .enumerate()
            .try_for_each(|(n, reason)| write!(f, "{}{reason}", if n > 0 { "; " } else { "" }))
    }
}

impl fmt::Display for KernelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bundle => "libkrunfw bundle",
            Self::BzImage => "bzImage",
            Self::Elf => "ELF, 64-bit entry",
            Self::Pvh => "ELF, PVH entry",
        })
    }
}

/// Words with the unprintable escaped, so that a plan stays one line for each thing.
struct Words<'a>(&'a [String]);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = self.0.iter().map(|word| word.escape_debug());
        words.next().map_or(Ok(()), |first| write!(f, "{first}"))?;
        words.try_for_each(|word| write!(f, " {word}"))
    }
}
