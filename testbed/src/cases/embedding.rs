//! Machines inside our own process, through the crate `machine`.

use std::fs;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::thread;

use anyhow::{Context, Result, ensure};
use machine::kernel::KernelImage;
use machine::{Exit, HostStdio, Limits, Machine, Resources, Share, Spec};

use super::{Case, SHORT, cases};
use crate::bed::Bed;

pub(super) fn cases() -> Vec<Case> {
    cases![SHORT;
        embedder_gets_the_exit_back_and_lives_on,
        embedder_runs_two_machines_at_once,
        embedder_stops_a_machine_from_another_thread,
        embedder_pauses_and_resumes_a_machine,
        embedder_is_told_of_a_panic,
        embedder_without_a_root_is_told_of_a_panic,
        embedder_keeps_nothing_of_four_machines,
    ]
}

/// A machine that is built, and our ends of its program's input and output.
struct Started {
    machine: Machine,
    input: PipeWriter,
    output: BufReader<PipeReader>,
}

fn build(bed: &Bed, line: &str, words: &str) -> Result<Started> {
    let kernel = KernelImage::open(&bed.kernel)?;
    let mut spec = Spec {
        mem_mib: 256,
        root: Some(Share::root(&bed.root)),
        command: ["sh", "-c", line].map(str::to_owned).to_vec(),
        env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        ..Spec::default()
    };
    spec.kernel_words.add = words.to_owned();
    let plan = machine::plan(&spec, &Limits::new(kernel.traits().clone()))?;
    let (stdin, input) = std::io::pipe()?;
    let (output, stdout) = std::io::pipe()?;
    let stdio = HostStdio {
        stdin: Some(stdin.into()),
        stdout: Some(stdout.into()),
        stderr: None,
    };
    let machine = machine::build(
        &plan,
        Resources {
            kernel,
            initramfs: None,
            stdio,
        },
    )?;
    Ok(Started {
        machine,
        input,
        output: BufReader::new(output),
    })
}

/// Runs a line of shell and returns its output and how the machine ended.
fn run(bed: &Bed, line: &str) -> Result<(String, Exit)> {
    let Started {
        machine,
        input,
        mut output,
    } = build(bed, line, "")?;
    drop(input);
    let reader = thread::spawn(move || -> Result<String> {
        let mut text = String::new();
        output.read_to_string(&mut text)?;
        Ok(text)
    });
    let exit = machine.run()?;
    Ok((reader.join().ok().context("the reader panicked")??, exit))
}

fn wait_for(output: &mut BufReader<PipeReader>, wanted: &str) -> Result<()> {
    let mut line = String::new();
    output.read_line(&mut line)?;
    ensure!(line.trim_end() == wanted, "the program said {line:?}");
    Ok(())
}

fn embedder_gets_the_exit_back_and_lives_on(bed: &Bed) -> Result<()> {
    let (text, exit) = run(bed, "echo first; exit 9")?;
    ensure!(
        text == "first\n" && exit == Exit::Code(9),
        "it ended with {exit:?} after {text:?}"
    );
    let (text, exit) = run(bed, "echo second")?;
    ensure!(
        text == "second\n" && exit == Exit::Code(0),
        "it ended with {exit:?} after {text:?}"
    );
    Ok(())
}

fn embedder_runs_two_machines_at_once(bed: &Bed) -> Result<()> {
    // Neither ends before its input does, and that is not before both are up.
    let mut one = build(bed, "echo up; cat; exit 3", "")?;
    let mut other = build(bed, "echo up; cat; exit 4", "")?;
    let runs = [one.machine, other.machine].map(|machine| thread::spawn(move || machine.run()));
    wait_for(&mut one.output, "up")?;
    wait_for(&mut other.output, "up")?;
    drop((one.input, other.input));
    let exits = runs.map(|run| run.join().map(|exit| exit.ok()).ok().flatten());
    ensure!(
        exits == [Some(Exit::Code(3)), Some(Exit::Code(4))],
        "they ended with {exits:?}"
    );
    Ok(())
}

fn embedder_stops_a_machine_from_another_thread(bed: &Bed) -> Result<()> {
    let Started {
        machine,
        input: _input,
        mut output,
    } = build(bed, "echo up; cat; exit 3", "")?;
    let handle = machine.handle();
    let run = thread::spawn(move || machine.run());
    wait_for(&mut output, "up")?;
    handle.stop();
    let exit = run.join().ok().context("the machine's thread panicked")??;
    ensure!(exit == Exit::Stopped, "it ended with {exit:?}");
    Ok(())
}

fn embedder_pauses_and_resumes_a_machine(bed: &Bed) -> Result<()> {
    let Started {
        machine,
        input,
        mut output,
    } = build(bed, "echo up; cat; exit 3", "")?;
    let handle = machine.handle();
    let run = thread::spawn(move || machine.run());
    wait_for(&mut output, "up")?;
    handle.pause();
    drop(input);
    handle.resume();
    let exit = run.join().ok().context("the machine's thread panicked")??;
    ensure!(exit == Exit::Code(3), "it ended with {exit:?}");
    Ok(())
}

fn embedder_is_told_of_a_panic(bed: &Bed) -> Result<()> {
    let Started {
        machine,
        input: _input,
        output: _output,
    } = build(bed, "true", "init=/nope")?;
    let exit = machine.run()?;
    ensure!(exit == Exit::Panic, "it ended with {exit:?}");
    Ok(())
}

fn embedder_without_a_root_is_told_of_a_panic(bed: &Bed) -> Result<()> {
    let kernel = KernelImage::open(&bed.kernel)?;
    let spec = Spec {
        mem_mib: 128,
        initramfs: true,
        ..Spec::default()
    };
    let plan = machine::plan(&spec, &Limits::new(kernel.traits().clone()))?;
    println!("{plan}");
    let mut initramfs = tempfile::tempfile()?;
    initramfs.write_all(b"not an archive")?;
    let (mut messages, stderr) = std::io::pipe()?;
    let stdio = HostStdio {
        stdin: None,
        stdout: None,
        stderr: Some(stderr.into()),
    };
    let machine = machine::build(
        &plan,
        Resources {
            kernel,
            initramfs: Some(initramfs),
            stdio,
        },
    )?;
    let exit = machine.run()?;
    let mut text = String::new();
    messages.read_to_string(&mut text)?;
    println!("{text}");
    ensure!(exit == Exit::Panic, "it ended with {exit:?}");
    Ok(())
}

/// What a process has of the system's things.
#[derive(Debug, PartialEq)]
struct Holdings {
    descriptors: usize,
    threads: usize,
    /// In steps so coarse that only a guest's memory shows, which is 256 MiB.
    mapped_128_mib: usize,
}

fn holdings() -> Result<Holdings> {
    let status = fs::read_to_string("/proc/self/status")?;
    let mapped = status
        .lines()
        .find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB"));
    let mapped_kib: usize = mapped.context("no VmSize")?.parse()?;
    Ok(Holdings {
        descriptors: fs::read_dir("/proc/self/fd")?.count(),
        threads: fs::read_dir("/proc/self/task")?.count(),
        mapped_128_mib: mapped_kib >> 17,
    })
}

fn resident_kib() -> Result<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    Ok(resident.context("no VmRSS")?.parse()?)
}

fn embedder_keeps_nothing_of_four_machines(bed: &Bed) -> Result<()> {
    // The first one makes what the process keeps for good, such as the arenas of the allocator.
    run(bed, "true")?;
    let (before, resident_before) = (holdings()?, resident_kib()?);
    for _ in 0..3 {
        run(bed, "true")?;
    }
    let (after, resident_after) = (holdings()?, resident_kib()?);
    println!("before {before:?} {resident_before} KiB, after {after:?} {resident_after} KiB");
    ensure!(before == after, "something is left behind: {before:?} became {after:?}");
    ensure!(
        resident_after < resident_before + 8192,
        "resident memory grew from {resident_before} to {resident_after} KiB"
    );
    Ok(())
}
