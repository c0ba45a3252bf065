//! Generates the messages; protox compiles the .proto, so that no protoc is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/opamp/v1");
    let descriptors = protox::compile(["opamp/v1/opamp.proto"], ["proto"])?;
    // Ordered maps: the same state is the same bytes.
    let mut config = prost_build::Config::new();
    config.btree_map(["."]);
    // A configuration is offered to many agents: each offer shares it.
    config.bytes([".opamp.proto.v1.AgentConfigObject.body"]);
    config.compile_fds(descriptors)?;
    Ok(())
}
