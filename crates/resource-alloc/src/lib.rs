//! Places IRQ lines and MMIO ranges: named requests in, named ranges or a named refusal out
