//! The check that the build script makes of what it has built, and what it must not let pass.

#[path = "../build/elf.rs"]
mod elf;

use elf::{Unfit, check, machine_number};

fn machine() -> u16 {
    machine_number(std::env::consts::ARCH).unwrap()
}

#[test]
fn init_is_static_executable_for_this_machine() {
    assert_eq!(check(guest_init::init(), machine()), Ok(()));
}

#[test]
fn init_for_another_machine_is_refused() {
    let other = machine() + 1;
    assert_eq!(
        check(guest_init::init(), other),
        Err(Unfit::OtherMachine {
            e_machine: machine(),
            wanted: other
        })
    );
}

#[test]
fn dynamic_program_is_refused() {
    let this_test = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    assert_eq!(check(&this_test, machine()), Err(Unfit::NeedsInterpreter));
}

#[test]
fn file_over_the_limit_is_refused() {
    let mut large = guest_init::init().to_vec();
    large.resize(elf::MAX_LEN + 1, 0);
    assert_eq!(check(&large, machine()), Err(Unfit::TooLarge { len: elf::MAX_LEN + 1 }));
}

#[test]
fn object_file_is_refused() {
    let mut object = guest_init::init().to_vec();
    object[16] = 1;
    assert_eq!(check(&object, machine()), Err(Unfit::NotExecutable { e_type: 1 }));
}

#[test]
fn file_cut_within_its_headers_is_refused() {
    for len in 0..64 {
        assert_eq!(
            check(&guest_init::init()[..len], machine()),
            Err(Unfit::NotElf64),
            "cut at {len}"
        );
    }
}
