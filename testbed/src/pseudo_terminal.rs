//! A terminal for `tessera` to be run in.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context, Result};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

/// Both ends of a terminal.
pub(crate) struct Terminal {
    controller: File,
    user: File,
}

impl Terminal {
    /// A terminal of this size.
    pub(crate) fn open(rows: u16, columns: u16) -> Result<Self> {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).context("cannot open a terminal")?;
        grantpt(&controller)?;
        unlockpt(&controller)?;
        tcsetwinsize(
            &controller,
            Winsize {
                ws_row: rows,
                ws_col: columns,
                ws_xpixel: 0,
                ws_ypixel: 0,
            },
        )?;
        let name = ptsname(&controller, Vec::new())?;
        let user = OpenOptions::new().read(true).write(true).open(name.to_str()?)?;
        Ok(Self {
            controller: File::from(controller),
            user,
        })
    }

    /// Its settings.
    pub(crate) fn settings(&self) -> Result<Termios> {
        Ok(tcgetattr(&self.user)?)
    }

    /// Runs a command in it and returns what it showed.
    pub(crate) fn run(&self, mut command: Command) -> Result<(String, ExitStatus)> {
        command.stdin(Stdio::from(self.user.try_clone()?));
        command
            .stdout(Stdio::from(self.user.try_clone()?))
            .stderr(Stdio::from(self.user.try_clone()?));
        let mut child = command.spawn().context("cannot start tessera")?;
        let mut reader = self.controller.try_clone()?;
        // Read all the time, since a terminal holds only some kilobytes; the end of it is that nobody has it open.
        let (sender, pieces) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut piece = [0; 1024];
            while let Ok(len @ 1..) = reader.read(&mut piece) {
                if sender.send(piece[..len].to_vec()).is_err() {
                    return;
                }
            }
        });
        let status = child.wait()?;
        let mut shown = Vec::new();
        while let Ok(piece) = pieces.recv_timeout(std::time::Duration::from_millis(500)) {
            shown.extend(piece);
        }
        let text = String::from_utf8_lossy(&shown).into_owned();
        println!("terminal: {text}");
        Ok((text, status))
    }
}
