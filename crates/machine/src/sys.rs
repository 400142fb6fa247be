//! System calls that no safe library offers.
#![allow(
    unsafe_code,
    reason = "signal masks, eventfds as borrowed descriptors, mapping a file over guest memory, memory slots and atomics in a mapping have no safe interface upstream"
)]

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::thread::JoinHandleExt;
use std::ptr;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::thread::JoinHandle;

use boot_params::layout::PAGE_SIZE;
use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::{VcpuFd, VmFd};
use vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MmapRegion};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::ioctl_with_ptr;
use vmm_sys_util::ioctl_iow_nr;

/// `struct kvm_signal_mask` with the kernel's 64-bit signal set.
#[repr(C)]
struct KvmSignalMask {
    len: u32,
    sigset: [u8; KERNEL_SIGSET as usize],
}

/// Size in bytes of the kernel's `sigset_t`.
const KERNEL_SIGSET: u32 = 8;
/// The kernel's first real-time signal.
const KERNEL_SIGRTMIN: libc::c_int = 32;
const KVMIO: u32 = 0xae;

// The size field of this ioctl counts the fixed part only: `struct kvm_signal_mask` ends in an array without a length.
ioctl_iow_nr!(KVM_SET_SIGNAL_MASK, KVMIO, 0x8b, u32);

/// The signal that interrupts a vCPU. It is blocked in every thread of ours and let through by `KVM_RUN` alone, so no
/// handler is needed and none of the embedder's runs. Not a real-time signal: those have to be queued, which fails when the
/// user's queue is full (`RLIMIT_SIGPENDING`), and embedders use them. Linux has never sent this one.
const KICK: libc::c_int = libc::SIGSTKFLT;

/// The descriptor of an eventfd.
pub(crate) fn borrowed(eventfd: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as its eventfd, which outlives the borrow.
    unsafe { BorrowedFd::borrow_raw(eventfd.as_raw_fd()) }
}

/// Calls `spawn` with every signal blocked, so that a thread it starts has them blocked from its first instruction on:
/// they are for the embedder's threads, and a kick must not come before it can be taken.
pub(crate) fn with_signals_blocked<T>(spawn: impl FnOnce() -> T) -> T {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset initialises the set; pthread_sigmask reads it, stores the old mask, and changes only this
    // thread's.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let result = spawn();
    // SAFETY: pthread_sigmask has stored the mask above; it cannot fail for SIG_SETMASK and valid sets.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    result
}

/// Every signal but the kick and those that the C library keeps for itself, below the first real-time signal that it leaves to
/// programs: it sends them to all threads when the process changes its user or groups, and waits for each to have answered.
fn blocked_in_guest() -> u64 {
    let let_through = (KERNEL_SIGRTMIN..libc::SIGRTMIN()).chain([KICK]);
    !let_through.fold(0, |bits, signal| bits | 1 << (signal - 1))
}

/// Lets kicks, and no other signal that a program may send, interrupt `KVM_RUN` of this vCPU.
pub(crate) fn let_kicks_through(vcpu: &VcpuFd) -> io::Result<()> {
    let mask = KvmSignalMask {
        len: KERNEL_SIGSET,
        sigset: blocked_in_guest().to_ne_bytes(),
    };
    // SAFETY: the kernel reads `len` and then `len` bytes after it, all of which `mask` holds.
    let result = unsafe { ioctl_with_ptr(vcpu, KVM_SET_SIGNAL_MASK(), &raw const mask) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// KVM's number for what went wrong inside, after an exit with `KVM_EXIT_INTERNAL_ERROR` (`KVM_INTERNAL_ERROR_*`).
pub(crate) fn internal_suberror(vcpu: &mut VcpuFd) -> u32 {
    // SAFETY: every bit pattern is a valid u32; after this exit the union's member is `internal`.
    unsafe { vcpu.get_kvm_run().__bindgen_anon_1.internal.suberror }
}

/// Makes the `KVM_RUN` that the thread is in, or the next one, return with EINTR. It cannot fail: the signal is one that is
/// sent even where none can be queued.
pub(crate) fn kick<T>(thread: &JoinHandle<T>) {
    // SAFETY: the handle has not been joined, so the thread's id is valid.
    unsafe { libc::pthread_kill(thread.as_pthread_t(), KICK) };
}

/// Takes back the kick that interrupted `KVM_RUN`; it stays pending otherwise.
pub(crate) fn consume_kick() {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: sigemptyset initialises the set; sigtimedwait reads it and, with no info wanted, writes nothing.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), KICK);
        libc::sigtimedwait(set.as_ptr(), ptr::null_mut(), &raw const at_once);
    }
}

/// Maps `len` bytes of `file` from `offset` on over guest memory at `at`: privately, so that the guest's writes stay in
/// this machine, and copied only page by page as the guest writes.
pub(crate) fn map_over(
    mem: &GuestMemoryMmap,
    at: GuestAddress,
    file: &File,
    offset: u64,
    len: usize,
) -> io::Result<()> {
    let slice = mem.get_slice(at, len).map_err(io::Error::other)?;
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    let host = slice.ptr_guard_mut();
    // SAFETY: `slice` shows that `len` bytes at `host` are one mapping of guest memory. It stays mapped, readable and
    // writable; only what backs it changes, and guest memory has no Rust reference into it.
    let mapped = unsafe {
        libc::mmap(
            host.as_ptr().cast(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
            file.as_raw_fd(),
            offset,
        )
    };
    if mapped == libc::MAP_FAILED {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Makes every region of guest memory a memory slot of the VM, from slot 0 on.
pub(crate) fn register_memory(vm: &VmFd, mem: &GuestMemoryMmap) -> Result<(), kvm_ioctls::Error> {
    for (slot, region) in (0..).zip(mem.iter()) {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the region is a mapping of `memory_size` bytes at `userspace_addr`. The machine keeps guest memory
        // mapped as long as any vCPU of the VM can run.
        unsafe { vm.set_user_memory_region(region)? };
    }
    Ok(())
}

/// A page of registers that can be a memory slot of a VM.
pub(crate) struct RegisterSlot {
    slot: u32,
    guest_phys_addr: u64,
    memory: Arc<MmapRegion>,
    at: usize,
}

/// What the guest may do in a memory slot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Reads are its own affair; what it writes comes as `KVM_EXIT_MMIO`.
    Read,
    /// All is its own affair.
    ReadWrite,
}

impl RegisterSlot {
    /// The page at `at` in `memory`, as slot number `slot` at `guest_phys_addr`; `None` when it is not all there, or not a
    /// page.
    pub(crate) fn new(slot: u32, guest_phys_addr: u64, memory: &Arc<MmapRegion>, at: usize) -> Option<Self> {
        let end = (at as u64).checked_add(PAGE_SIZE)?;
        let page = (at as u64).is_multiple_of(PAGE_SIZE) && guest_phys_addr.is_multiple_of(PAGE_SIZE);
        (page && end <= memory.size() as u64).then(|| Self {
            slot,
            guest_phys_addr,
            memory: Arc::clone(memory),
            at,
        })
    }

    /// Lets the guest have it.
    pub(crate) fn map(&self, vm: &VmFd, access: Access) -> Result<(), kvm_ioctls::Error> {
        let flags = match access {
            Access::Read => KVM_MEM_READONLY,
            Access::ReadWrite => 0,
        };
        self.set(vm, flags, PAGE_SIZE)
    }

    /// Each access comes as `KVM_EXIT_MMIO` again.
    pub(crate) fn unmap(&self, vm: &VmFd) -> Result<(), kvm_ioctls::Error> {
        self.set(vm, 0, 0)
    }

    fn set(&self, vm: &VmFd, flags: u32, memory_size: u64) -> Result<(), kvm_ioctls::Error> {
        let region = kvm_userspace_memory_region {
            slot: self.slot,
            flags,
            guest_phys_addr: self.guest_phys_addr,
            memory_size,
            userspace_addr: self.memory.as_ptr() as u64 + self.at as u64,
        };
        // SAFETY: `new` has checked that the page is in the mapping. The register block in it keeps it mapped, and the
        // vCPUs keep that.
        unsafe { vm.set_user_memory_region(region) }
    }
}

/// A part of a mapping as words that are only accessed atomically.
pub(crate) struct AtomicWords {
    memory: Arc<MmapRegion>,
    at: usize,
    len: usize,
}

impl AtomicWords {
    /// `len` bytes of `memory` from `at` on; `None` when they are not all there, or not whole words.
    pub(crate) fn new(memory: &Arc<MmapRegion>, at: usize, len: usize) -> Option<Self> {
        let end = at.checked_add(len)?;
        let words = at.is_multiple_of(size_of::<AtomicU32>()) && len.is_multiple_of(size_of::<AtomicU32>());
        (words && end <= memory.size()).then(|| Self {
            memory: Arc::clone(memory),
            at,
            len,
        })
    }
}

impl AsRef<[AtomicU32]> for AtomicWords {
    fn as_ref(&self) -> &[AtomicU32] {
        // SAFETY: the bytes are in the mapping, which starts at a page and lives as long as `self`; both are whole
        // words, as `new` has checked. Nobody in this process accesses them but through these atomics.
        unsafe {
            slice::from_raw_parts(
                self.memory.as_ptr().add(self.at).cast(),
                self.len / size_of::<AtomicU32>(),
            )
        }
    }
}
