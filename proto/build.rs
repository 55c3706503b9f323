//! Compiles the schema without a system `protoc`.

use std::error::Error;

const FILES: [&str; 8] = [
    "schema/directory.proto",
    "schema/prekey.proto",
    "schema/content.proto",
    "schema/file.proto",
    "schema/relay.proto",
    "schema/first_message.proto",
    "schema/room.proto",
    "schema/storage.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=schema");
    let descriptors = protox::compile(FILES, ["schema"])?;
    prost_build::Config::new()
        .bytes([".chat.relay", ".chat.room.LogBranch.entries", ".chat.content.RoomUpdate.entries"])
        .skip_debug(["."])
        .compile_fds(descriptors)?;
    Ok(())
}
