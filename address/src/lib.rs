//! Address spaces as types.
//!
//! A profiler moves the same number of bits between several address spaces: what the CPU executed, where the executable's
//! ELF file says it lives, where the bytes are in that file, and the kernel's own addresses. Mixing them is the bug class of
//! this field, so each is a type and only the conversions that exist are written.
#![forbid(unsafe_code)]

use std::fmt;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The address `bytes` further on; wraps, since addresses read from targets are not to be trusted.
            #[must_use]
            pub const fn plus(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }

            /// The address that names the call instruction when `self` is a return address.
            #[must_use]
            pub const fn call_site(self) -> Self {
                Self(self.0.wrapping_sub(1))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address! {
    /// A virtual address in one process, as its CPU saw it.
    UserAddr
}
address! {
    /// A virtual address as an ELF file's program headers state it, before any load bias.
    ElfVaddr
}
address! {
    /// A byte offset in a file.
    FileOffset
}
address! {
    /// A virtual address of the kernel, its modules or its BPF programs.
    KernelAddr
}
