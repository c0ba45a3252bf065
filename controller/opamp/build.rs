//! Generates the messages; protox compiles the .proto, so that no protoc is needed.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/opamp/v1");
    let descriptors = protox::compile(["opamp/v1/opamp.proto"], ["proto"])?;
    // Ordered maps: the same state is the same bytes.
    prost_build::Config::new().btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}
