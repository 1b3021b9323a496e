//! No libc, no start files, one static executable wherever it is built.
fn main() {
    // An eighth of the file would be tables for unwinding its stack, and it aborts.
    let discard =
        format!("-Wl,-T,{}/no-unwinding.ld", std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default());
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,--no-eh-frame-hdr",
        &discard,
    ] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    // GNU ld would begin what is read-only after the start with a page of its own, and of 64 KiB (`-z relro`): two
    // thirds of the file would be padding.
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|target| target == "aarch64") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,norelro");
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=no-unwinding.ld");
}
