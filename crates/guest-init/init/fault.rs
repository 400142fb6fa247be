//! Why the program could not be started.

use crate::contract::Failure;

/// What the host is told by number and the user by sentence.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) failure: Failure,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn set_up(message: String) -> Self {
        Self::new(Failure::SetUpFailed, message)
    }

    pub(crate) fn not_found(message: String) -> Self {
        Self::new(Failure::NotFound, message)
    }

    pub(crate) fn not_executable(message: String) -> Self {
        Self::new(Failure::NotExecutable, message)
    }

    fn new(failure: Failure, message: String) -> Self {
        let message = without_error_number(&message).to_owned();
        Self { failure, message }
    }
}

/// The sentence without the number that `std` puts behind the kernel's words for an error.
pub(crate) fn without_error_number(sentence: &str) -> &str {
    match sentence.rsplit_once(" (os error ") {
        Some((words, number)) if number.ends_with(')') => words,
        _ => sentence,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentence_ends_with_words() {
        let error = std::io::Error::from_raw_os_error(19);
        assert_eq!(
            without_error_number(&format!("cannot mount: {error}")),
            "cannot mount: No such device"
        );
        assert_eq!(
            without_error_number("cannot mount (os error 19) there"),
            "cannot mount (os error 19) there"
        );
    }
}
