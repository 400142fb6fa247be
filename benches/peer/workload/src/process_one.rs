//! Being the first process of a guest, where there is no init: mounts, the loopback interface, and the end.
#![allow(
    unsafe_code,
    reason = "mount, ioctl and reboot have no safe form in the standard library"
)]

use std::fs;
use std::io;

/// Whether this is the first process.
pub(crate) fn is_this() -> bool {
    std::process::id() == 1
}

/// Mounts `/proc`, for dropping caches, and brings the loopback interface up, as an init would.
pub(crate) fn set_up() -> io::Result<()> {
    fs::create_dir_all("/proc")?;
    // SAFETY: the strings end with a zero and outlive the call; proc takes no data.
    let mounted = unsafe {
        libc::mount(
            c"proc".as_ptr(),
            c"/proc".as_ptr(),
            c"proc".as_ptr(),
            0,
            std::ptr::null(),
        )
    };
    if mounted != 0 {
        return Err(io::Error::last_os_error());
    }
    bring_loopback_up()
}

fn bring_loopback_up() -> io::Result<()> {
    // SAFETY: plain system call without pointers. Netlink sockets are left alone by TSI, INET ones might not be.
    let socket = unsafe {
        libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::NETLINK_ROUTE,
        )
    };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zero bytes are a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = 'l' as libc::c_char;
    request.ifr_name[1] = 'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP).unwrap_or(1);
    // SAFETY: the request is a whole `ifreq` and outlives the call; the socket is ours and closed once.
    let outcome = unsafe {
        let outcome = libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request);
        libc::close(socket);
        outcome
    };
    if outcome == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Ends the guest.
pub(crate) fn reboot() {
    // SAFETY: system calls without pointers; nothing is left to be done by this process.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_AUTOBOOT);
    }
}
