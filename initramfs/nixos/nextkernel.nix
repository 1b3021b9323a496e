# nextkernel on NixOS. Read against nixpkgs' modules (nixos/modules/system/boot/systemd.nix and systemd/shutdown.nix),
# not run.
#
# The package is package.nix, in the same folder of the sources.
{ config, lib, ... }:

let
  cfg = config.services.nextkernel;
  hook = "${cfg.package}/lib/systemd/system-shutdown/nextkernel";
in
{
  options.services.nextkernel = {
    enable = lib.mkEnableOption "starting the next kernel without firmware (nextkernel)";
    package = lib.mkOption {
      type = lib.types.package;
      description = "The nextkernel to use; nixpkgs has none. From the sources: pkgs.callPackage ./package.nix { }.";
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];

    # nextkernel-stage@, -restage@, -exitrd; what a package links into *.wants is not enabled by that.
    systemd.packages = [ cfg.package ];
    systemd.services.nextkernel-arrived.wantedBy = [ "multi-user.target" ];

    # NixOS has shutdown executables in /etc/systemd/system-shutdown, on the root ...
    systemd.shutdown.nextkernel = hook;
    # ... and in its exitrd, where the root is gone. The one on the root sees this one, and leaves the work to it.
    systemd.shutdownRamfs.contents."/etc/systemd/system-shutdown/nextkernel".source = hook;
  };
}
