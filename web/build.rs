//! Tells the linker what the WebAssembly modules need: a stack that burn's compiler fits in (the default of 1 MiB overflows),
//! and static constructors that run once.
//!
//! cubecl registers its operations in static constructors, thousands of them. Unless `__wasm_call_ctors` is exported, the
//! linker takes the module for a command and calls all of them at the start of every exported function, of each
//! allocation for a string too. Exported, it is called once, by `static/worker.js`; the page computes nothing and has no
//! need of them.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("wasm32") {
        println!("cargo:rustc-link-arg-bins=-zstack-size=16777216");
        println!("cargo:rustc-link-arg-bins=--export=__wasm_call_ctors");
    }
}
