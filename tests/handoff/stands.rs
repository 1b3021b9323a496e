//! Tests that the devices under a whole Debian are left alone until the jump.

use bed::harness::Test;
use bed::machine::End;

use super::kexec::{boot, untouched};

/// Prints the PCI address of the disk with the root.
const ADDRESS: &str = "readlink -f /sys/block/vda/device | grep -o '0000:[0-9a-f:.]*' | tail -n 1";

pub fn what_carries_the_root_is_never_unbound_and_halt_is_untouched(test: &Test) -> Result<(), String> {
    let mut guest = boot(test)?;
    let address = guest.ok(ADDRESS)?;
    let address = address.trim();
    guest.ok("echo 'unbind = virtio-pci' >/etc/nextkernel.conf")?;
    let staged = guest.ok("nextkernel stage --no-rehearse 2>&1")?;
    if !staged.contains(&format!("unbind: {address} (virtio-pci) stays bound: it carries /\n")) {
        return Err(guest.tell(&staged));
    }
    guest.ok(&format!("! grep '^unbind = {address}$' /run/nextkernel/plan"))?;
    guest.ok(&format!("echo 'unbind = {address}' >/etc/nextkernel.conf"))?;
    let refused = guest.run("nextkernel stage --no-rehearse 2>&1")?;
    let sentence = format!("unbind names {address}, which carries /, and");
    if refused.status != 1 || !refused.output.contains(&sentence) {
        return Err(guest.tell(&refused.output));
    }
    guest.ok("rm /etc/nextkernel.conf")?;
    untouched(&mut guest, "systemctl halt", End::Halted)
}
