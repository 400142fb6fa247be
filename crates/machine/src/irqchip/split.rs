//! The split irqchip: local APICs in the kernel, the IO-APIC here. This is the part that talks to KVM.
//!
//! KVM has a route for each unmasked pin, and for a masked one until its last interrupt ends: the message that an irqfd of
//! that line becomes. So an interrupt of a device goes to the guest within the kernel, as with the in-kernel irqchip; this
//! process is called only when the guest programs a pin (one `KVM_SET_GSI_ROUTING` for each change of what a pin sends) and at
//! the end of a level-triggered interrupt (`KVM_EXIT_IOAPIC_EOI`), of which virtio devices have none.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kvm_bindings::{
    KVM_CAP_SPLIT_IRQCHIP, KVM_IRQ_ROUTING_MSI, KvmIrqRouting, kvm_enable_cap, kvm_irq_routing_entry,
    kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_msi, kvm_msi,
};
use kvm_ioctls::VmFd;

use super::io_apic::{IoApic, Message};
use crate::bus::Registers;

/// The IO-APIC of a machine and its way into KVM.
pub(crate) struct SplitIrqchip {
    vm: Arc<VmFd>,
    state: Mutex<State>,
}

struct State {
    io_apic: IoApic,
    counts: Counts,
    /// Whether it was said that KVM has refused something.
    complained: bool,
}

/// How often this process has had to act for the guest's interrupts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Accesses to the IO-APIC's registers: an exit each.
    pub(crate) accesses: u64,
    /// Of these, those of no register or of the wrong width.
    pub(crate) refused: u64,
    /// Changes of the routes: a `KVM_SET_GSI_ROUTING` each.
    pub(crate) route_updates: u64,
    /// Interrupts of lines without an irqfd: a `KVM_SIGNAL_MSI` each.
    pub(crate) messages: u64,
    /// Ends of level-triggered interrupts: an exit each.
    pub(crate) ends_of_interrupts: u64,
}

impl SplitIrqchip {
    /// Makes the VM's local APICs, without a controller beside them in the kernel; to be called before the first vCPU is
    /// made.
    pub(super) fn create(vm: Arc<VmFd>, pins: u32) -> Result<Self, kvm_ioctls::Error> {
        let mut capability = kvm_enable_cap {
            cap: KVM_CAP_SPLIT_IRQCHIP,
            ..Default::default()
        };
        // The GSIs of which KVM reports the end of a level-triggered interrupt.
        capability.args[0] = u64::from(pins);
        vm.enable_cap(&capability)?;
        let state = Mutex::new(State {
            io_apic: IoApic::new(pins),
            counts: Counts::default(),
            complained: false,
        });
        Ok(Self { vm, state })
    }

    /// Raises a line and lowers it again.
    pub(super) fn pulse(&self, line: u32) -> io::Result<()> {
        let mut state = self.state();
        state.io_apic.set_line(line, true);
        let sent = self.carry_out(&mut state);
        state.io_apic.set_line(line, false);
        sent.and(self.carry_out(&mut state))
    }

    pub(super) fn end_of_interrupt(&self, vector: u8) {
        let mut state = self.state();
        state.counts.ends_of_interrupts += 1;
        state.io_apic.end_of_interrupt(vector);
        self.carry_out_or_complain(&mut state);
    }

    pub(super) fn has_unmasked(&self, first: usize) -> bool {
        self.state().io_apic.has_unmasked(first)
    }

    pub(super) fn counts(&self) -> Counts {
        let state = self.state();
        Counts {
            refused: state.io_apic.refused(),
            ..state.counts
        }
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut state = self.state();
        state.counts.accesses += 1;
        state.io_apic.read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let mut state = self.state();
        state.counts.accesses += 1;
        state.io_apic.write(offset, data);
        self.carry_out_or_complain(&mut state);
    }

    /// Drains the model after an input. The lock is held meanwhile, so that KVM has the routes in the order of the changes.
    fn carry_out(&self, state: &mut State) -> io::Result<()> {
        if state.io_apic.take_routes_changed() {
            state.counts.route_updates += 1;
            set_routes(&self.vm, state.io_apic.routes())?;
        }
        while let Some(message) = state.io_apic.next_message() {
            state.counts.messages += 1;
            send(&self.vm, message)?;
        }
        Ok(())
    }

    /// KVM refuses for lack of memory alone. The guest cannot be told; its device will not answer.
    fn carry_out_or_complain(&self, state: &mut State) {
        if let Err(error) = self.carry_out(state)
            && !state.complained
        {
            state.complained = true;
            tracing::error!(%error, "KVM refuses the guest's interrupt routes");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The IO-APIC's registers on the bus.
pub(super) struct Window(pub(super) Arc<SplitIrqchip>);

impl Registers for Window {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        self.0.read(offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.0.write(offset, data);
    }

    fn shutdown(&mut self, _patience: Duration) {}
}

/// Replaces all routes of the VM.
fn set_routes(vm: &VmFd, routes: impl Iterator<Item = (u32, Message)>) -> io::Result<()> {
    let entries: Vec<_> = routes.map(|(pin, message)| route(pin, message)).collect();
    let table = KvmIrqRouting::from_entries(&entries).map_err(|_| io::ErrorKind::OutOfMemory)?;
    vm.set_gsi_routing(&table).map_err(os_error)
}

fn route(gsi: u32, message: Message) -> kvm_irq_routing_entry {
    let msi = kvm_irq_routing_msi {
        address_lo: message.address,
        data: message.data,
        ..Default::default()
    };
    kvm_irq_routing_entry {
        gsi,
        type_: KVM_IRQ_ROUTING_MSI,
        u: kvm_irq_routing_entry__bindgen_ty_1 { msi },
        ..Default::default()
    }
}

fn send(vm: &VmFd, message: Message) -> io::Result<()> {
    let msi = kvm_msi {
        address_lo: message.address,
        data: message.data,
        ..Default::default()
    };
    // How many local APICs took it is their guest's affair.
    vm.signal_msi(msi).map(drop).map_err(os_error)
}

fn os_error(error: kvm_ioctls::Error) -> io::Error {
    io::Error::from_raw_os_error(error.errno())
}

#[cfg(test)]
mod tests {
    use kvm_bindings::kvm_lapic_state;
    use kvm_ioctls::{Kvm, VcpuFd};
    use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

    use super::*;

    const PINS: u32 = 120;
    const MASKED: u32 = 1 << 16;
    /// Registers of the local APIC.
    const SPURIOUS: usize = 0xf0;
    const REQUESTED: usize = 0x200;

    /// A VM with a vCPU that never runs: what reaches its local APIC stays there to be looked at.
    struct Machine {
        irqchip: Arc<SplitIrqchip>,
        vcpu: VcpuFd,
    }

    impl Machine {
        fn new() -> Option<Self> {
            let Ok(kvm) = Kvm::new() else {
                eprintln!("skipped: this test needs /dev/kvm");
                return None;
            };
            let vm = Arc::new(kvm.create_vm().unwrap());
            let irqchip = Arc::new(SplitIrqchip::create(vm, PINS).unwrap());
            let vcpu = irqchip.vm.create_vcpu(0).unwrap();
            let mut lapic = vcpu.get_lapic().unwrap();
            put(&mut lapic, SPURIOUS, 0x1ff);
            vcpu.set_lapic(&lapic).unwrap();
            Some(Self { irqchip, vcpu })
        }

        /// Writes the low half of a pin's entry.
        fn program(&self, pin: u32, low: u32) {
            self.irqchip.write(0x00, &(0x10 + 2 * pin).to_le_bytes());
            self.irqchip.write(0x10, &low.to_le_bytes());
        }

        fn irqfd(&self, gsi: u32) -> EventFd {
            let irqfd = EventFd::new(EFD_NONBLOCK).unwrap();
            self.irqchip.vm.register_irqfd(&irqfd, gsi).unwrap();
            irqfd
        }

        /// The vectors that were requested of the processor since this was last asked.
        fn take_requested(&self) -> Vec<u32> {
            let mut lapic = self.vcpu.get_lapic().unwrap();
            let requested = (0..256)
                .filter(|vector| get(&lapic, REQUESTED + vector / 32 * 0x10) >> (vector % 32) & 1 == 1)
                .map(|vector| u32::try_from(vector).unwrap())
                .collect();
            (0..8).for_each(|word| put(&mut lapic, REQUESTED + word * 0x10, 0));
            self.vcpu.set_lapic(&lapic).unwrap();
            requested
        }
    }

    fn get(lapic: &kvm_lapic_state, at: usize) -> u32 {
        u32::from_le_bytes(std::array::from_fn(|i| lapic.regs[at + i].to_ne_bytes()[0]))
    }

    fn put(lapic: &mut kvm_lapic_state, at: usize, value: u32) {
        for (place, byte) in lapic.regs[at..].iter_mut().zip(value.to_le_bytes()) {
            *place = std::ffi::c_char::from_ne_bytes([byte]);
        }
    }

    #[test]
    fn irqfd_reaches_the_vector_that_its_pin_is_programmed_to() {
        let Some(machine) = Machine::new() else { return };
        for pin in [5, 23, 24, 119] {
            let irqfd = machine.irqfd(pin);
            machine.program(pin, 0x41);
            irqfd.write(1).unwrap();
            assert_eq!(machine.take_requested(), [0x41], "pin {pin}");
            machine.program(pin, 0x52);
            irqfd.write(1).unwrap();
            assert_eq!(machine.take_requested(), [0x52], "pin {pin}");
            machine.program(pin, MASKED | 0x52);
            irqfd.write(1).unwrap();
            assert!(machine.take_requested().is_empty(), "pin {pin} is masked");
        }
    }

    #[test]
    fn interrupts_of_an_irqfd_cost_no_call_of_ours() {
        let Some(machine) = Machine::new() else { return };
        let irqfd = machine.irqfd(24);
        machine.program(24, 0x41);
        let before = machine.irqchip.counts();
        for _ in 0..100 {
            irqfd.write(1).unwrap();
            assert_eq!(machine.take_requested(), [0x41]);
        }
        assert_eq!(machine.irqchip.counts(), before);
        assert_eq!((before.accesses, before.route_updates, before.messages), (2, 1, 0));
    }

    #[test]
    fn every_pin_at_once_has_its_route() {
        let Some(machine) = Machine::new() else { return };
        let irqfds: Vec<_> = (0..PINS).map(|pin| machine.irqfd(pin)).collect();
        (0..PINS).for_each(|pin| machine.program(pin, 0x40 + pin));
        irqfds.iter().for_each(|irqfd| irqfd.write(1).unwrap());
        assert_eq!(machine.take_requested(), (0x40..0x40 + PINS).collect::<Vec<_>>());
        assert_eq!(machine.irqchip.counts().route_updates, u64::from(PINS));
    }

    #[test]
    fn pulse_of_a_legacy_line_is_one_message_where_the_pin_is_unmasked() {
        let Some(machine) = Machine::new() else { return };
        machine.irqchip.pulse(4).unwrap();
        assert!(machine.take_requested().is_empty(), "masked");
        machine.program(4, 0x44);
        machine.irqchip.pulse(4).unwrap();
        assert_eq!(machine.take_requested(), [0x44]);
        machine.irqchip.pulse(PINS).unwrap();
        assert!(machine.take_requested().is_empty(), "no such pin");
        assert_eq!(machine.irqchip.counts().messages, 1);
    }

    #[test]
    fn level_of_a_legacy_line_waits_for_its_end() {
        const LEVEL: u32 = 1 << 15;
        const REMOTE_IRR: u32 = 1 << 14;
        let Some(machine) = Machine::new() else { return };
        machine.program(4, LEVEL | 0x44);
        machine.irqchip.pulse(4).unwrap();
        assert_eq!(machine.take_requested(), [0x44]);
        let mut low = [0; 4];
        machine.irqchip.read(0x10, &mut low);
        assert_eq!(u32::from_le_bytes(low), LEVEL | REMOTE_IRR | 0x44);
        machine.irqchip.pulse(4).unwrap();
        assert!(machine.take_requested().is_empty(), "its end has not come");
        machine.irqchip.end_of_interrupt(0x44);
        machine.irqchip.pulse(4).unwrap();
        assert_eq!(machine.take_requested(), [0x44]);
    }

    #[test]
    fn device_pins_count_as_live_while_one_is_unmasked() {
        let Some(machine) = Machine::new() else { return };
        machine.program(4, 0x44);
        assert!(!machine.irqchip.has_unmasked(5));
        machine.program(119, 0x45);
        assert!(machine.irqchip.has_unmasked(5));
        machine.program(119, MASKED);
        assert!(!machine.irqchip.has_unmasked(5));
    }
}
