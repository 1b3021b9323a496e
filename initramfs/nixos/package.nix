# nextkernel for nixpkgs' callPackage. Not built by Nix: written after nixpkgs' manual for Rust. `src` is the unpacked
# sources of a release, or a checkout.
{ lib, stdenv, rustPlatform, cargo, rustc, src ? ../.. }:

stdenv.mkDerivation {
  pname = "nextkernel";
  version = (lib.importTOML (src + "/Cargo.toml")).workspace.package.version;
  inherit src;

  # Both workspaces' crates; the hook's are among them.
  cargoDeps = rustPlatform.importCargoLock { lockFile = src + "/Cargo.lock"; };
  nativeBuildInputs = [ cargo rustc rustPlatform.cargoSetupHook ];
  # The tool is static.
  buildInputs = [ stdenv.cc.libc.static ];

  makeFlags = [ "PREFIX=$(out)" "SHUTDOWN=$(out)/lib/systemd/system-shutdown" ];

  meta = {
    description = "Starts the next kernel without the firmware, and dependably";
    license = lib.licenses.mit;
    platforms = [ "x86_64-linux" "aarch64-linux" "riscv64-linux" ];
    mainProgram = "nextkernel";
  };
}
