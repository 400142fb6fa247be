//! What the suites said.

use std::fmt;
use std::time::Instant;

use anyhow::{Result, ensure};

/// How the script says which suite begins, and how it ended.
const SUITE: &str = "suite: ";
const STATUS: &str = "status: ";
/// The suite whose failures are expected of the others of its kind.
const REFERENCE: &str = "pjdfstest on tmpfs";
const REFERENCE_OF: &str = "pjdfstest";

/// All suites, in their order.
#[derive(Default)]
pub(crate) struct Results(Vec<Suite>);

struct Suite {
    name: String,
    start: Instant,
    seconds: f64,
    status: Option<i32>,
    /// What pjdfstest counts.
    summary: Option<String>,
    failures: Vec<Failure>,
    /// What is said now belongs to the last failure.
    explaining: bool,
    last_line: String,
}

/// A case of pjdfstest, and what it said.
struct Failure {
    case: String,
    reason: String,
}

impl Results {
    /// Takes a line; true when a person who waits wants to see it.
    pub(crate) fn take(&mut self, line: &str) -> bool {
        if let Some(name) = line.strip_prefix(SUITE) {
            self.0.push(Suite::new(name));
            return true;
        }
        self.0.last_mut().is_none_or(|suite| suite.take(line))
    }

    /// Whether there was all that there should be and nothing failed that is not expected to.
    pub(crate) fn verdict(&self) -> Result<()> {
        let reference = self.0.iter().find(|suite| suite.name == REFERENCE);
        ensure!(
            reference.is_some_and(|suite| suite.summary.is_some()),
            "pjdfstest has not run on tmpfs"
        );
        let failed: Vec<_> = self.0.iter().filter(|suite| !self.is_good(suite)).collect();
        let names: Vec<_> = failed.iter().map(|suite| suite.name.as_str()).collect();
        ensure!(names.is_empty(), "failed: {}", names.join("; "));
        Ok(())
    }

    fn is_good(&self, suite: &Suite) -> bool {
        if suite.name.starts_with(REFERENCE_OF) {
            suite.summary.is_some() && suite.failures.iter().all(|failure| self.is_expected(failure))
        } else {
            suite.status == Some(0)
        }
    }

    fn is_expected(&self, failure: &Failure) -> bool {
        self.why_expected(failure).is_some()
    }

    fn why_expected(&self, failure: &Failure) -> Option<&'static str> {
        let mut of_reference = self.0.iter().filter(|suite| suite.name == REFERENCE);
        if of_reference.any(|suite| suite.failures.iter().any(|other| other.case == failure.case)) {
            Some("as on tmpfs")
        } else if failure.is_of_a_device_node() {
            Some("a machine's shares let no guest make device nodes on the host")
        } else {
            None
        }
    }
}

impl Failure {
    /// The cases of block and character devices, refused when they make one. Some of them only assert that it was made, and
    /// do not tell the error.
    fn is_of_a_device_node(&self) -> bool {
        let kind = self.case.rsplit("::").next();
        let refused = self.reason.contains("EPERM") || self.reason.starts_with("assertion failed: mknod(");
        matches!(kind, Some("block" | "char")) && refused
    }
}

impl Suite {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            start: Instant::now(),
            seconds: 0.0,
            status: None,
            summary: None,
            failures: Vec::new(),
            explaining: false,
            last_line: String::new(),
        }
    }

    fn take(&mut self, line: &str) -> bool {
        if let Some(status) = line.strip_prefix(STATUS) {
            self.status = status.parse().ok();
            self.seconds = self.start.elapsed().as_secs_f64();
            return true;
        }
        if let Some(summary) = line.strip_prefix("Summary: ") {
            self.summary = Some(summary.to_owned());
            return true;
        }
        let Some(case) = line.strip_suffix("FAILED") else {
            self.explain(line);
            return false;
        };
        self.explaining = true;
        self.failures.push(Failure {
            case: case.trim().to_owned(),
            reason: String::new(),
        });
        true
    }

    /// What is indented belongs to the case before it; what matters of a suite without cases is what it said last.
    fn explain(&mut self, line: &str) {
        let words = line.trim();
        self.explaining &= line.starts_with('\t');
        match self.failures.last_mut() {
            Some(failure) if self.explaining => {
                let separator = if failure.reason.is_empty() { "" } else { ": " };
                failure.reason = format!("{}{separator}{words}", failure.reason);
            }
            _ if !words.is_empty() => words.clone_into(&mut self.last_line),
            _ => {}
        }
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for suite in &self.0 {
            let verdict = if self.is_good(suite) { "ok    " } else { "FAILED" };
            let said = suite.summary.as_deref().unwrap_or(&suite.last_line);
            writeln!(f, "{verdict} {} ({:.0} s): {said}", suite.name, suite.seconds)?;
            for failure in &suite.failures {
                write!(f, "       {}: {} (", failure.case, failure.reason)?;
                match self.why_expected(failure) {
                    Some(why) => writeln!(f, "expected: {why})")?,
                    None => writeln!(f, "NOT expected)")?,
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(text: &str) -> Results {
        let mut results = Results::default();
        text.lines().for_each(|line| {
            results.take(line);
        });
        results
    }

    const TMPFS: &str = "suite: pjdfstest on tmpfs\nchmod::a      ok\nopen::b    FAILED\n\tit opens\n\tthe reason\n\
                         Summary: 1 failed, 0 skipped, 1 passed, 2 total\nstatus: 1\n";

    #[test]
    fn failure_that_tmpfs_has_too_is_expected_and_told_with_its_reason() {
        let guest = TMPFS.replace("pjdfstest on tmpfs", "pjdfstest, cache=auto");
        let results = results(&format!("{TMPFS}suite: fsx, cache=none\nstatus: 0\n{guest}"));
        assert!(results.verdict().is_ok());
        let text = results.to_string();
        assert!(
            text.contains("open::b: it opens: the reason (expected: as on tmpfs)"),
            "{text}"
        );
    }

    fn is_device_failure_expected(reason: &str) -> bool {
        let guest =
            format!("suite: pjdfstest, cache=auto\nmknod::x::char  FAILED\n\t{reason}\nSummary: 1 failed\nstatus: 1\n");
        results(&format!("{TMPFS}{guest}")).verdict().is_ok()
    }

    #[test]
    fn device_nodes_are_expected_to_be_refused_and_with_nothing_but_eperm() {
        assert!(is_device_failure_expected("EPERM") && !is_device_failure_expected("EIO"));
    }

    #[test]
    fn device_node_that_a_case_only_asserts_was_made_is_expected_and_no_other_assertion() {
        assert!(is_device_failure_expected(
            "assertion failed: mknod(&file, argument, mode)"
        ));
        assert!(!is_device_failure_expected("assertion failed: chmod(&file, mode)"));
    }

    #[test]
    fn failure_of_the_guest_alone_is_named() {
        let guest = "suite: pjdfstest, cache=auto\nlink::c   FAILED\nSummary: 1 failed\nstatus: 1\n";
        let error = results(&format!("{TMPFS}{guest}")).verdict().unwrap_err();
        assert_eq!(error.to_string(), "failed: pjdfstest, cache=auto");
    }

    #[test]
    fn suite_that_ends_early_or_with_a_status_has_failed() {
        for rest in [
            "suite: fsx, cache=none\nsaid\nstatus: 1\n",
            "suite: pjdfstest, cache=auto\nstatus: 0\n",
        ] {
            assert!(results(&format!("{TMPFS}{rest}")).verdict().is_err(), "{rest}");
        }
        assert!(results("").verdict().is_err());
    }
}
