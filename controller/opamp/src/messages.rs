//! The messages, as `proto/opamp/v1/opamp.proto` has them.

// What they mean is in the specification.
#![allow(missing_docs, clippy::doc_markdown)]

include!(concat!(env!("OUT_DIR"), "/opamp.proto.v1.rs"));

impl AgentCapabilities {
    /// All bits that the protocol defines. The others are for its future, and are never sent.
    pub const DEFINED: u64 = 0xffff;

    /// The capability's bit.
    #[must_use]
    pub fn bit(self) -> u64 {
        u64::from(self as i32 as u32)
    }

    /// Whether `capabilities` has it.
    #[must_use]
    pub fn is_in(self, capabilities: u64) -> bool {
        capabilities & self.bit() != 0
    }
}

impl ServerCapabilities {
    /// All bits that the protocol defines. The others are for its future, and are never sent.
    pub const DEFINED: u64 = 0x7f;

    /// The capability's bit.
    #[must_use]
    pub fn bit(self) -> u64 {
        u64::from(self as i32 as u32)
    }

    /// Whether `capabilities` has it.
    #[must_use]
    pub fn is_in(self, capabilities: u64) -> bool {
        capabilities & self.bit() != 0
    }
}

impl ServerToAgentFlags {
    /// Whether `flags` has it.
    #[must_use]
    pub fn is_in(self, flags: u64) -> bool {
        flags & u64::from(self as i32 as u32) != 0
    }
}

impl KeyValue {
    /// An attribute whose value is text.
    pub fn text(key: impl Into<String>, value: impl Into<String>) -> Self {
        let value = AnyValue { value: Some(any_value::Value::StringValue(value.into())) };
        Self { key: key.into(), value: Some(value) }
    }
}
