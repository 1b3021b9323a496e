//! Tests that nextkernel stages the entry that extlinux would boot: a BIOS and extlinux itself start these
//! machines.

use bed::guest::bios;
use bed::guest::whole::{Guest, Spec, Starts};
use bed::harness::Test;

use super::loader::Next;

const PLAIN: Next = Next { id: "plain", by: "DEFAULT", word: "bed.entry=plain" };
const OTHER: Next = Next { id: "other", by: "DEFAULT", word: "bed.entry=other" };

pub fn what_is_marked_is_the_label_that_extlinux_boots(test: &Test) -> Result<(), String> {
    let disk = bios::extlinux(test.image)?;
    let mut guest = Guest::boot(&Spec { starts: Starts::Bios(disk), ..Spec::new(test) })?;
    PLAIN.is_running(&mut guest)?;
    PLAIN.is_marked(&mut guest)?;
    guest.ok("sed -i 's/^default .*/DEFAULT other/' /boot/extlinux/extlinux.conf")?;
    OTHER.jumps(&mut guest)?;
    OTHER.boots_at_last(&mut guest)
}
