//! Folders that change, or fail, while they are listed.

mod common;

use common::{Driver, ROOT, mounted};
use virtio_fs::MemoryFs;

/// A tree in memory with files `0` to `count - 1` in its root.
fn in_memory(count: u32) -> Driver {
    let mut driver = mounted(MemoryFs::new(1 << 20));
    for number in 0..count {
        driver
            .create(ROOT, number.to_string().as_bytes(), 0o644, libc::O_RDWR)
            .unwrap();
    }
    driver
}

/// Lists the root in parts and does `each` with every name before the next part, as programs do. All names that were listed.
fn list_and(driver: &mut Driver, mut each: impl FnMut(&mut Driver, &str)) -> Vec<String> {
    let handle = driver.opendir(ROOT).unwrap();
    let (mut names, mut offset) = (Vec::new(), 0);
    loop {
        let part = driver.list_part((ROOT, handle), &mut offset, 256).unwrap();
        if part.is_empty() {
            return names;
        }
        for name in part.into_iter().filter(|name| !name.starts_with('.')) {
            each(driver, &name);
            names.push(name);
        }
        assert!(names.len() < 10_000, "the listing does not end");
    }
}

/// As `rm -r` does, which then removes the folder.
#[test]
fn a_folder_in_memory_whose_files_are_removed_while_it_is_listed_is_empty_then() {
    let mut driver = in_memory(300);
    let names = list_and(&mut driver, |driver, name| {
        driver.unlink(ROOT, name.as_bytes()).unwrap()
    });
    assert_eq!(names.len(), 300);
    assert_eq!(driver.list(ROOT, 4096).unwrap(), [".", ".."]);
}

#[test]
fn a_folder_in_memory_whose_files_are_renamed_while_it_is_listed_comes_to_an_end() {
    let mut driver = in_memory(300);
    let names = list_and(&mut driver, |driver, name| {
        let renamed = format!("{name}.old");
        driver
            .rename((ROOT, name.as_bytes()), (ROOT, renamed.as_bytes()), 0)
            .unwrap();
    });
    assert_eq!(names.len(), 300);
    let after = driver.list(ROOT, 4096).unwrap();
    assert_eq!(after.iter().filter(|name| name.ends_with(".old")).count(), 300);
}

/// Other names come, go, are replaced and exchanged.
#[test]
fn what_is_in_memory_all_along_is_listed_once() {
    const RENAME_EXCHANGE: u32 = 2;
    let mut driver = in_memory(300);
    let mut turn = 0..;
    let names = list_and(&mut driver, |driver, _| {
        let turn: u32 = turn.next().unwrap();
        // A third goes, and as many come.
        let _ = driver.unlink(ROOT, (turn % 100).to_string().as_bytes());
        let new = format!("{turn:05}-new");
        driver.create(ROOT, new.as_bytes(), 0o644, libc::O_RDWR).unwrap();
        let (replaced, exchanged) = (100 + turn % 100, 200 + turn % 100);
        let [replaced, exchanged] = [replaced, exchanged].map(|number| number.to_string());
        driver
            .rename((ROOT, new.as_bytes()), (ROOT, replaced.as_bytes()), 0)
            .unwrap();
        driver
            .rename((ROOT, b"299"), (ROOT, exchanged.as_bytes()), RENAME_EXCHANGE)
            .unwrap();
    });
    for kept in 100..300 {
        let listed = names.iter().filter(|name| **name == kept.to_string()).count();
        assert_eq!(listed, 1, "{kept}");
    }
    // Each name leads to what a lookup finds, and none is there twice.
    let mut after = driver.list(ROOT, 4096).unwrap();
    after.sort();
    let count = after.len();
    after.dedup();
    assert_eq!(after.len(), count);
    for name in after.iter().filter(|name| !name.starts_with('.')) {
        driver.lookup(ROOT, name.as_bytes()).unwrap();
    }
}
