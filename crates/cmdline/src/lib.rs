//! Builds a Linux kernel command line that the kernel reads back as it was meant
