//! Making the plan's devices and putting them on the bus.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use guest_init::contract::{CONFIG_PATH, INIT_PATH, SHARED_FILE};
use kvm_ioctls::VmFd;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, getrlimit};
use virtio_console::{Console, ConsoleConfig, Port, PortKind, TerminalSize};
use virtio_fs::overlay::{GuestReport, Overlay, VirtualEntry};
use virtio_fs::passthrough::{CachePolicy, Passthrough, PassthroughConfig};
use virtio_fs::{FileKind, FileSystem, Fs, FsConfig, SingleFile};
use virtio_transport::{Memory, MmioTransport, RegisterPage, VirtioDevice};
use virtio_vsock_tsi::{Cid, Route, TsiFlags, Vsock, VsockConfig};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use vsock_proto::policy::Policy;

use super::descriptors::ShareDescriptors;
use super::registers::RegisterPages;
use super::{BuildError, HostStdio};
use crate::bus::MmioBus;
use crate::exit::{NotStarted, Report, VcpuFault};
use crate::plan::{ConsolePort, DeviceKind, DevicePlan, MountPoints, Plan, PortRole, SharePlan, VsockPlan};
use crate::run::{Control, End, Wires};
use crate::spec::{Cache, Publish, ShareKind, VsockRoute};
use crate::worker::{Kick, KvmHost};

/// Permissions of the virtual files.
const INIT_MODE: u32 = 0o755;
const CONFIG_MODE: u32 = 0o400;

/// The devices of a machine.
pub(super) struct Devices {
    pub(super) bus: MmioBus,
    pub(super) wires: Wires,
    /// The host's end of the port `tessera-control`.
    pub(super) signals: Option<Arc<UnixStream>>,
}

/// Makes every device of the plan. None has a thread or a descriptor of KVM's yet.
pub(super) fn make(
    plan: &Plan,
    stdio: HostStdio,
    vm: &Arc<VmFd>,
    mem: &Memory,
    control: &Arc<Control>,
    registers: Option<&RegisterPages>,
) -> Result<Devices, BuildError> {
    let nowhere = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(BuildError::device("all devices"))?;
    let mut maker = Maker {
        plan,
        registers,
        nowhere: Arc::new(nowhere),
        stdio,
        vm,
        mem,
        control,
        bus: MmioBus::default(),
        wires: Wires::default(),
        signals: None,
    };
    for device in &plan.devices {
        maker.make(device)?;
    }
    Ok(Devices {
        bus: maker.bus,
        wires: maker.wires,
        signals: maker.signals,
    })
}

struct Maker<'a> {
    plan: &'a Plan,
    registers: Option<&'a RegisterPages>,
    /// Where acknowledgements end.
    nowhere: Arc<EventFd>,
    stdio: HostStdio,
    vm: &'a Arc<VmFd>,
    mem: &'a Memory,
    control: &'a Arc<Control>,
    bus: MmioBus,
    wires: Wires,
    signals: Option<Arc<UnixStream>>,
}

impl Maker<'_> {
    fn make(&mut self, at: &DevicePlan) -> Result<(), BuildError> {
        match &at.kind {
            DeviceKind::Console { ports } => self.console(at, ports),
            DeviceKind::Share(share) => self.share(at, share),
            DeviceKind::Vsock(vsock) => self.vsock(at, vsock),
            DeviceKind::Net(_) => Err(BuildError::NetDevice),
        }
    }

    /// Puts a device where the plan has it.
    fn attach<D: VirtioDevice + 'static>(&mut self, at: &DevicePlan, device: D) -> Result<Kick, BuildError> {
        let (control, name) = (Arc::clone(self.control), at.name.clone());
        let host = KvmHost::new(Arc::clone(self.vm), at.name.clone(), at.irq, at.mmio_base)
            .serve_by(at.kind.served_by())
            .on_panic(move || {
                let fault = VcpuFault::WorkerPanicked { device: name.clone() };
                control.end(End::Fault(fault));
            });
        let interrupt_registers = self.registers.map(|pages| pages.interrupt_registers(at)).transpose()?;
        let host = match interrupt_registers.flatten() {
            Some(page) => host.give_interrupt_registers(page),
            None => host.end_acknowledgements_in(Arc::clone(&self.nowhere)),
        };
        let (kick, doorbell) = (host.kick(), host.doorbell());
        let page = self
            .registers
            .map_or_else(|| Ok(RegisterPage::private()), |pages| pages.of(at))?;
        let transport = MmioTransport::on_page(device, host, Arc::clone(self.mem), page);
        self.bus
            .add_with_doorbell(at.mmio_base, at.mmio_len, Box::new(transport), doorbell);
        Ok(kick)
    }

    fn console(&mut self, at: &DevicePlan, ports: &[ConsolePort]) -> Result<(), BuildError> {
        let has = |role| ports.iter().any(|port| port.role == role);
        let (stdin_piped, stdout_piped) = (has(PortRole::Stdin), has(PortRole::Stdout));
        let ports = ports
            .iter()
            .map(|port| match port.role {
                PortRole::Terminal => self.terminal(stdin_piped, stdout_piped),
                PortRole::Stdin => Ok(pipe(port.name, self.stdio.stdin.take(), None)),
                PortRole::Stdout => Ok(pipe(port.name, None, self.stdio.stdout.take())),
                PortRole::Stderr => Ok(pipe(port.name, None, duplicate(self.stdio.stderr.as_ref())?)),
                PortRole::Control => self.control_port(port.name),
            })
            .collect::<Result<_, std::io::Error>>()
            .map_err(BuildError::device(&at.name))?;
        let console = Console::new(ConsoleConfig { ports }).map_err(BuildError::device(&at.name))?;
        let control = console.control();
        let kick = self.attach(at, console)?;
        self.wires.console = Some((control, kick));
        Ok(())
    }

    /// Input and output are the streams without a port of their own. The kernel's messages need a place in any case.
    fn terminal(&mut self, stdin_piped: bool, stdout_piped: bool) -> Result<Port, std::io::Error> {
        let output = if stdout_piped {
            duplicate(self.stdio.stderr.as_ref())?
        } else {
            self.stdio.stdout.take()
        };
        Ok(Port {
            name: String::new(),
            kind: PortKind::Terminal {
                size: TerminalSize::default(),
            },
            input: if stdin_piped { None } else { self.stdio.stdin.take() },
            output: output.map(Into::into),
        })
    }

    fn control_port(&mut self, name: &str) -> Result<Port, std::io::Error> {
        let (guest_end, host_end) = UnixStream::pair()?;
        let host_end = Arc::new(host_end);
        self.wires.signals = Arc::downgrade(&host_end);
        self.signals = Some(host_end);
        Ok(pipe(name, Some(guest_end.into()), None))
    }

    fn share(&mut self, at: &DevicePlan, share: &SharePlan) -> Result<(), BuildError> {
        let of_host = self.of_host(share)?;
        let back_end: Box<dyn FileSystem> = match share.kind {
            ShareKind::File => Box::new(SingleFile::new(of_host, SHARED_FILE).map_err(BuildError::device(&at.name))?),
            ShareKind::Folder => Box::new(self.overlay(at, share, of_host)?),
        };
        let config = FsConfig {
            request_queues: share.request_queues,
            ..FsConfig::new(&share.tag)
        };
        let device = Fs::new(config, back_end).map_err(BuildError::device(&at.name))?;
        self.attach(at, device)?;
        Ok(())
    }

    /// The host's folder or file, if it is what the plan takes it for.
    fn of_host(&self, share: &SharePlan) -> Result<Passthrough, BuildError> {
        let descriptors = self.descriptors_of_each_share();
        let config = PassthroughConfig {
            read_only: share.read_only,
            cache: match share.cache {
                Cache::None => CachePolicy::None,
                Cache::Auto => CachePolicy::Auto,
                Cache::Always => CachePolicy::Always,
            },
            device_nodes: false,
            max_nodes: PassthroughConfig::max_nodes_for_memory(self.plan.memory.iter().map(|ram| ram.len).sum()),
            max_open_files: descriptors.open_files,
            cached_descriptors: descriptors.cached,
            ..PassthroughConfig::default()
        };
        let of_host = Passthrough::new(&share.host, config).map_err(|source| BuildError::Share {
            path: share.host.clone(),
            source,
        })?;
        let mismatch = |wanted, found| BuildError::ShareKind {
            path: share.host.clone(),
            wanted,
            found,
        };
        match (share.kind, of_host.root_kind() == FileKind::Directory) {
            (ShareKind::Folder, false) => Err(mismatch("folder", "file")),
            (ShareKind::File, true) => Err(mismatch("file", "folder")),
            (ShareKind::Folder, true) | (ShareKind::File, false) => Ok(of_host),
        }
    }

    fn overlay(
        &self,
        at: &DevicePlan,
        share: &SharePlan,
        folder: Passthrough,
    ) -> Result<Overlay<Passthrough>, BuildError> {
        let overlay = Overlay::new(folder, self.virtual_entries(share)).map_err(BuildError::device(&at.name))?;
        if !share.root {
            return Ok(overlay);
        }
        let control = Arc::clone(self.control);
        Ok(overlay.on_report(move |report| control.report(read_report(report))))
    }

    fn descriptors_of_each_share(&self) -> ShareDescriptors {
        let process = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let is_share = |device: &&DevicePlan| matches!(device.kind, DeviceKind::Share(_));
        ShareDescriptors::of_each(process, self.plan.devices.iter().filter(is_share).count())
    }

    /// Mount points, and in the root the init with its configuration.
    fn virtual_entries(&self, share: &SharePlan) -> Vec<VirtualEntry> {
        let MountPoints { folders, files } = &share.mount_points;
        let folders = folders.iter().map(VirtualEntry::folder);
        let mut entries: Vec<_> = folders.chain(files.iter().map(VirtualEntry::empty_file)).collect();
        if let Some(config) = self.plan.init.as_ref().filter(|_| share.root) {
            entries.push(VirtualEntry::file(INIT_PATH, INIT_MODE, guest_init::init()));
            entries.push(VirtualEntry::file(CONFIG_PATH, CONFIG_MODE, config.to_json()));
        }
        entries
    }

    fn vsock(&mut self, at: &DevicePlan, vsock: &VsockPlan) -> Result<(), BuildError> {
        let config = VsockConfig {
            guest_cid: Cid::new(vsock.guest_cid).map_err(BuildError::device(&at.name))?,
            tsi: TsiFlags {
                inet: vsock.inet,
                unix: vsock.unix,
            },
            policy: Policy::new(vsock.allow.clone(), vsock.deny.clone()),
            unix_root: vsock.unix_root.as_deref().map(open_folder).transpose()?,
            port_map: vsock.publish.iter().map(published).collect(),
            publish_unix: vsock
                .publish_unix
                .iter()
                .map(|path| path.clone().into_bytes())
                .collect(),
            routes: vsock.routes.iter().map(route).collect(),
            ..VsockConfig::default()
        };
        let device = Vsock::new(config).map_err(BuildError::device(&at.name))?;
        self.wires.vsock = Some(device.stats());
        self.attach(at, device)?;
        Ok(())
    }
}

/// What the guest's init has to say, in this crate's words.
fn read_report(report: GuestReport) -> Report {
    match report {
        GuestReport::ExitCode(code) => Report::Code(code),
        GuestReport::NotFound => Report::NotStarted(NotStarted::NotFound),
        GuestReport::NotExecutable => Report::NotStarted(NotStarted::NotExecutable),
        GuestReport::SetUpFailed => Report::NotStarted(NotStarted::SetUp),
    }
}

fn open_folder(path: &Path) -> Result<OwnedFd, BuildError> {
    let opened = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    opened.map_err(|errno| BuildError::Share {
        path: path.to_owned(),
        source: errno.into(),
    })
}

/// The guest's port, and where the host listens for it: on its loopback unless the plan says otherwise.
fn published(publish: &Publish) -> (u16, SocketAddr) {
    let address = publish.bind.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    (publish.guest_port, SocketAddr::new(address, publish.host_port))
}

fn route(route: &VsockRoute) -> Route {
    let (port, path) = (route.port, route.path.clone());
    if route.listen {
        Route::Listen { port, path }
    } else {
        Route::Connect { port, path }
    }
}

fn pipe(name: &str, input: Option<OwnedFd>, output: Option<OwnedFd>) -> Port {
    Port {
        name: name.to_owned(),
        kind: PortKind::Pipe,
        input,
        output: output.map(Into::into),
    }
}

/// Stdin and stdout end up at one port; messages of the program and of the kernel may both go to stderr.
pub(super) fn duplicate(fd: Option<&OwnedFd>) -> Result<Option<OwnedFd>, std::io::Error> {
    fd.map(|fd| fd.as_fd().try_clone_to_owned()).transpose()
}
