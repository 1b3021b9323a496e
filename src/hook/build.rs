//! No libc, no start files, one static executable wherever it is built.
fn main() {
    // An eighth of the file would be tables for unwinding its stack, and it aborts. And GNU ld would begin with a page
    // of its own what is code, and what is read-only after the start, which nothing here makes so: a twelfth of the file
    // would be padding on x86, and on arm64, with pages of 64 KiB, two thirds.
    let discard =
        format!("-Wl,-T,{}/no-unwinding.ld", std::env::var("CARGO_MANIFEST_DIR").unwrap_or_default());
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,--no-eh-frame-hdr",
        "-Wl,-z,noseparate-code",
        "-Wl,-z,norelro",
        &discard,
    ] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=no-unwinding.ld");
}
