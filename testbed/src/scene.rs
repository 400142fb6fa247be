//! What the processes of a case are doing: for a case that is not done in time.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::stat::Stat;

/// A line for each thread of each process of a group: process, name, state, processor time in ticks, the kernel's
/// function that it waits in and the system call that it is in.
pub(crate) fn of_group(group: i32) -> String {
    let mut scene = String::new();
    for process in entries(Path::new("/proc")) {
        // Processes come and go meanwhile.
        if let Ok(stat) = Stat::read(&process)
            && stat.group == group
        {
            for thread in entries(&process.join("task")) {
                let _ = writeln!(scene, "{}", line(&process, &thread));
            }
        }
    }
    scene
}

fn line(process: &Path, thread: &Path) -> String {
    let process = process.file_name().unwrap_or_default().display();
    let says = |file: &str| fs::read_to_string(thread.join(file)).unwrap_or_default();
    match Stat::read(thread) {
        Ok(stat) => format!(
            "{process} {} {} {} ticks, {}, call {}",
            stat.name,
            stat.state,
            stat.ticks,
            says("wchan"),
            says("syscall").trim()
        ),
        Err(error) => format!("{process}: {error:#}"),
    }
}

fn entries(folder: &Path) -> Vec<std::path::PathBuf> {
    let numbered = |path: &std::path::PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().parse::<i32>().is_ok())
    };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(numbered).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_group_is_told_with_its_threads() {
        let group = rustix::process::getpgrp().as_raw_nonzero().get();
        let scene = of_group(group);
        assert!(
            scene
                .lines()
                .any(|line| line.starts_with(&format!("{} ", std::process::id()))),
            "{scene}"
        );
    }
}
