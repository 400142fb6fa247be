//! The devices' registers as memory that the guest reads without an exit.

use std::io;
use std::sync::Arc;

use kvm_ioctls::{Cap, Kvm, VmFd};
use virtio_transport::RegisterPage;
use vm_memory::MmapRegion;

use super::BuildError;
use crate::plan::DevicePlan;
use crate::sys::{self, AtomicWords};

/// The register blocks of all devices, one after another as in the guest.
pub(super) struct RegisterPages {
    base: u64,
    memory: Arc<MmapRegion>,
}

impl RegisterPages {
    /// Room for the registers of `devices`; `None` when there are none.
    pub(super) fn reserve(devices: &[DevicePlan]) -> Result<Option<Self>, BuildError> {
        let Some(base) = devices.iter().map(|device| device.mmio_base).min() else {
            return Ok(None);
        };
        let end = devices.iter().map(|device| device.mmio_base + device.mmio_len).max();
        let len = usize::try_from(end.unwrap_or(base) - base).map_err(failed)?;
        let memory = Arc::new(MmapRegion::new(len).map_err(failed)?);
        Ok(Some(Self { base, memory }))
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

    /// Lets the guest read them, where KVM can. Where it cannot, each read exits and is answered the same.
    pub(super) fn register(&self, kvm: &Kvm, vm: &VmFd, slot: u32) -> Result<(), BuildError> {
        if !kvm.check_extension(Cap::ReadonlyMem) {
            return Ok(());
        }
        sys::register_readable(vm, slot, self.base, &self.memory)
            .map_err(BuildError::kvm("show the devices' registers to the guest"))
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

    const REGISTERS: u64 = 0x3000;
    const ENTRY: u64 = 0x1000;
    /// 16-bit code: `mov al, [0x3000]; out 0x10, al; mov [0x3050], al`
    const CODE: [u8; 8] = [0xa0, 0x00, 0x30, 0xe6, 0x10, 0xa2, 0x50, 0x30];

    #[test]
    fn guest_reads_registers_without_an_exit_and_writes_with_one() {
        let Ok(kvm) = Kvm::new() else {
            return eprintln!("skipped: this test needs /dev/kvm");
        };
        let vm = kvm.create_vm().unwrap();
        let mem = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x2000)]).unwrap();
        mem.write_slice(&CODE, GuestAddress(ENTRY)).unwrap();
        let slots = sys::register_memory(&vm, &mem).unwrap();
        let pages = RegisterPages::reserve(&[device()]).unwrap().unwrap();
        let words = AtomicWords::new(&pages.memory, 0, 0x1000).unwrap();
        words.as_ref()[0].store(u32::from_le_bytes(*b"virt"), Ordering::Release);
        pages.register(&kvm, &vm, slots).unwrap();
        let mut vcpu = in_real_mode(&vm);

        assert!(matches!(vcpu.run().unwrap(), VcpuExit::IoOut(0x10, b"v")));
        assert!(matches!(vcpu.run().unwrap(), VcpuExit::MmioWrite(0x3050, b"v")));
        assert_eq!(words.as_ref()[0x50 / 4].load(Ordering::Acquire), 0);
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
        let pages = RegisterPages::reserve(&[device()]).unwrap().unwrap();
        for mmio_base in [REGISTERS - 0x1000, REGISTERS + 0x1000] {
            let other = DevicePlan { mmio_base, ..device() };
            assert!(pages.of(&other).is_err(), "{mmio_base:#x}");
        }
    }

    fn device() -> DevicePlan {
        DevicePlan {
            name: "console".to_owned(),
            irq: 5,
            mmio_base: REGISTERS,
            mmio_len: 0x1000,
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
