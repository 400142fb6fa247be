//! The bytes and register values a Linux guest is booted with: page tables, GDT, MP table, zero page, PVH
