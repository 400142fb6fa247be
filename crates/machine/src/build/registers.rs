//! The devices' registers as memory that the guest reads, and of some devices writes, without an exit.

use std::io;
use std::sync::Arc;

use boot_params::layout::PAGE_SIZE;
use kvm_ioctls::{Cap, Kvm, VmFd};
use virtio_transport::{FIRST_INTERRUPT_REGISTER, RegisterPage};
use vm_memory::MmapRegion;

use super::BuildError;
use crate::plan::{DevicePlan, InterruptRegisters};
use crate::sys::{Access, AtomicWords, RegisterSlot};

/// The register blocks of all devices, one after another as in the guest.
pub(super) struct RegisterPages {
    /// Where the first one's page starts in the guest.
    base: u64,
    memory: Arc<MmapRegion>,
    /// Where each device's start in the guest. Each device has a memory slot.
    starts: Vec<u64>,
    /// The number of the first one's slot.
    first_slot: usize,
}

impl RegisterPages {
    /// Room for the registers of `devices`; `None` when there are none. Memory slots from `first_slot` on are free.
    pub(super) fn reserve(devices: &[DevicePlan], first_slot: usize) -> Result<Option<Self>, BuildError> {
        let Some(first) = devices.iter().map(|device| device.mmio_base).min() else {
            return Ok(None);
        };
        let base = first - first % PAGE_SIZE;
        let end = devices.iter().map(|device| device.mmio_base + device.mmio_len).max();
        let len = end.unwrap_or(base).next_multiple_of(PAGE_SIZE) - base;
        let memory = MmapRegion::new(usize::try_from(len).map_err(failed)?).map_err(failed)?;
        Ok(Some(Self {
            base,
            memory: Arc::new(memory),
            starts: devices.iter().map(|device| device.mmio_base).collect(),
            first_slot,
        }))
    }

    /// The page that shows the registers of `device`, which is one of those that room was reserved for.
    pub(super) fn of(&self, device: &DevicePlan) -> Result<RegisterPage, BuildError> {
        let at = device.mmio_base.checked_sub(self.base);
        let place = at.and_then(|at| Some((usize::try_from(at).ok()?, usize::try_from(device.mmio_len).ok()?)));
        let words = place.and_then(|(at, len)| AtomicWords::new(&self.memory, at, len));
        words
            .map(RegisterPage::new)
            .ok_or_else(|| failed("a device is not among those that room was reserved for"))
    }

    /// The page of a device whose interrupt registers become the guest's memory.
    pub(super) fn interrupt_registers(&self, device: &DevicePlan) -> Result<Option<RegisterSlot>, BuildError> {
        match device.interrupt_registers {
            InterruptRegisters::Readable => Ok(None),
            InterruptRegisters::Memory => self.slot(device).map(Some),
        }
    }

    /// Lets the guest read the interrupt registers that it does not get as memory later, where KVM can. Where it cannot, each
    /// read exits and is answered the same.
    pub(super) fn register(&self, kvm: &Kvm, vm: &VmFd, devices: &[DevicePlan]) -> Result<(), BuildError> {
        let readable = |device: &&DevicePlan| device.interrupt_registers == InterruptRegisters::Readable;
        if !kvm.check_extension(Cap::ReadonlyMem) {
            return Ok(());
        }
        for device in devices.iter().filter(readable) {
            self.slot(device)?
                .map(vm, Access::Read)
                .map_err(BuildError::kvm("show the devices' registers to the guest"))?;
        }
        Ok(())
    }

    /// The page that begins with the interrupt registers of `device`.
    fn slot(&self, device: &DevicePlan) -> Result<RegisterSlot, BuildError> {
        let address = device.mmio_base + FIRST_INTERRUPT_REGISTER;
        let at = address.checked_sub(self.base).and_then(|at| usize::try_from(at).ok());
        let index = self.starts.iter().position(|&start| start == device.mmio_base);
        let number = index.and_then(|index| u32::try_from(self.first_slot + index).ok());
        number
            .zip(at)
            .and_then(|(number, at)| RegisterSlot::new(number, address, &self.memory, at))
            .ok_or_else(|| failed("the registers do not have a page of their own"))
    }
}

fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BuildError {
    BuildError::Registers {
        source: io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use kvm_ioctls::{VcpuExit, VcpuFd};
    use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

    use super::*;
    use crate::plan::DeviceKind;
    use crate::sys;

    /// At the end of a page: the next one begins with the interrupt registers.
    const REGISTERS: u64 = 0x3fa0;
    const ENTRY: u64 = 0x1000;
    /// 16-bit code: `mov al, [0x4010]; out 0x10, al; mov [0x4004], al; mov [0x3ff0], al`
    const CODE: [u8; 11] = [0xa0, 0x10, 0x40, 0xe6, 0x10, 0xa2, 0x04, 0x40, 0xa2, 0xf0, 0x3f];
    /// 16-bit code: `mov al, 0x5a; mov [0x4004], al; mov [0x3ff0], al; mov [0x4004], al`
    const INTERRUPT_CODE: [u8; 11] = [0xb0, 0x5a, 0xa2, 0x04, 0x40, 0xa2, 0xf0, 0x3f, 0xa2, 0x04, 0x40];

    /// A machine with a guest of this code, and a device's registers.
    struct Rig {
        vcpu: VcpuFd,
        vm: VmFd,
        pages: RegisterPages,
        words: AtomicWords,
        _mem: GuestMemoryMmap,
    }

    /// `None` where there is no KVM.
    fn rig(code: &[u8], device: &DevicePlan) -> Option<Rig> {
        let Ok(kvm) = Kvm::new() else {
            eprintln!("skipped: this test needs /dev/kvm");
            return None;
        };
        let vm = kvm.create_vm().unwrap();
        let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x2000)]).unwrap();
        mem.write_slice(code, GuestAddress(ENTRY)).unwrap();
        sys::register_memory(&vm, &mem).unwrap();
        let devices = std::slice::from_ref(device);
        let pages = RegisterPages::reserve(devices, 1).unwrap().unwrap();
        pages.register(&kvm, &vm, devices).unwrap();
        Some(Rig {
            vcpu: in_real_mode(&vm),
            words: AtomicWords::new(&pages.memory, 0xfa0, 0x1000).unwrap(),
            vm,
            pages,
            _mem: mem,
        })
    }

    #[test]
    fn guest_reads_interrupt_registers_without_an_exit_and_writes_with_one() {
        let Some(mut rig) = rig(&CODE, &device(InterruptRegisters::Readable)) else {
            return;
        };
        rig.words.as_ref()[0x70 / 4].store(0xf, Ordering::Release);

        assert!(matches!(rig.vcpu.run().unwrap(), VcpuExit::IoOut(0x10, [0xf])));
        assert!(matches!(rig.vcpu.run().unwrap(), VcpuExit::MmioWrite(0x4004, [0xf])));
        assert!(matches!(rig.vcpu.run().unwrap(), VcpuExit::MmioWrite(0x3ff0, [0xf])));
        assert_eq!(rig.words.as_ref()[0x64 / 4].load(Ordering::Acquire), 0);
    }

    #[test]
    fn guest_writes_interrupt_registers_that_are_its_memory_without_an_exit_until_they_are_taken_away() {
        let share = device(InterruptRegisters::Memory);
        let Some(mut rig) = rig(&INTERRUPT_CODE, &share) else {
            return;
        };
        let page = rig.pages.interrupt_registers(&share).unwrap().unwrap();

        page.map(&rig.vm, Access::ReadWrite).unwrap();
        assert!(matches!(rig.vcpu.run().unwrap(), VcpuExit::MmioWrite(0x3ff0, [0x5a])));
        assert_eq!(rig.words.as_ref()[0x64 / 4].load(Ordering::Acquire), 0x5a);
        page.unmap(&rig.vm).unwrap();
        assert!(matches!(rig.vcpu.run().unwrap(), VcpuExit::MmioWrite(0x4004, [0x5a])));
    }

    #[test]
    fn words_beyond_the_mapping_are_refused() {
        let memory = Arc::new(MmapRegion::new(0x2000).unwrap());
        let there = |at, len| AtomicWords::new(&memory, at, len).map(|words| words.as_ref().len());
        assert_eq!(there(0x1000, 0x1000), Some(0x400));
        assert_eq!(there(0x1004, 0x1000), None);
        assert_eq!(there(0x2, 0x4), None);
        assert_eq!(there(0x4, 0x6), None);
        assert_eq!(there(usize::MAX & !3, 0x1000), None);
    }

    #[test]
    fn device_without_room_is_an_error() {
        let device = device(InterruptRegisters::Memory);
        let pages = RegisterPages::reserve(std::slice::from_ref(&device), 1)
            .unwrap()
            .unwrap();
        for mmio_base in [REGISTERS - 0x1000, REGISTERS + 0x1000] {
            let other = DevicePlan {
                mmio_base,
                ..device.clone()
            };
            assert!(pages.of(&other).is_err(), "{mmio_base:#x}");
            assert!(pages.interrupt_registers(&other).is_err(), "{mmio_base:#x}");
        }
    }

    fn device(interrupt_registers: InterruptRegisters) -> DevicePlan {
        DevicePlan {
            name: "console".to_owned(),
            irq: 5,
            mmio_base: REGISTERS,
            mmio_len: 0x1000,
            interrupt_registers,
            kind: DeviceKind::Console { ports: Vec::new() },
        }
    }

    fn in_real_mode(vm: &VmFd) -> VcpuFd {
        let vcpu = vm.create_vcpu(0).unwrap();
        let mut special = vcpu.get_sregs().unwrap();
        special.cs.base = 0;
        special.cs.selector = 0;
        vcpu.set_sregs(&special).unwrap();
        let mut general = vcpu.get_regs().unwrap();
        general.rip = ENTRY;
        general.rflags = 2;
        vcpu.set_regs(&general).unwrap();
        vcpu
    }
}
