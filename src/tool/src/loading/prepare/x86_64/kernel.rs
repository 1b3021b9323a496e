//! The kernel to be loaded, and the places that its own code allows for it.

use nextkernel_plan::Area;

use super::field;
use super::machine::Machine;
use crate::image::bzimage::{self, ANYWHERE, EFI_KEXEC, FIVE_LEVELS, KERNEL_64};
use crate::image::cmdline;
use crate::loading::decompress::Decompressed;
use crate::loading::prepare::memory::Bounds;
use crate::loading::prepare::parts::{self, Error, Parts};
use crate::words::little_endian::{long, short, wide};

/// The page size in bytes.
pub(super) const PAGE: u64 = 4096;

/// The lowest address in use. The memory below is left to those who need it.
pub(super) const LOWEST: u64 = 1 << 20;

/// The oldest boot protocol whose flags announce a 64-bit entry point, and the offset of that entry point.
const PROTOCOL: u16 = 0x020c;
const ENTRY: u64 = 0x200;

/// The bit of `loadflags` that says that the kernel lies above 1 MiB.
pub(super) const LOADED_HIGH: u8 = 1 << 0;

/// The choice among a kernel's possible places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Random,
    Highest,
    Lowest,
}

/// The kernel as it will be loaded.
pub(super) struct Kernel<'a> {
    /// The first bytes of its image, with the setup header.
    pub(super) head: Vec<u8>,
    /// The loaded part of its file.
    pub(super) bytes: Area,
    pub(super) takes: u64,
    /// The offset of the first instruction in that part.
    pub(super) entry: u64,
    pub(super) decompressed: Option<&'a Decompressed>,
}

impl<'a> Kernel<'a> {
    /// Reads the kernel's header, and refuses a kernel that cannot be started this way.
    pub(super) fn read(parts: &Parts<'a>) -> Result<Kernel<'a>, Error> {
        const WHAT: &str = "the staged kernel";
        let size = parts::length(parts.kernel, WHAT)?;
        if let Some(decompressed) = parts.decompressed {
            let bytes = Area { offset: 0, size };
            let (head, takes) = (decompressed.head.clone(), decompressed.takes.max(size));
            return Ok(Kernel {
                head,
                bytes,
                takes,
                entry: decompressed.entry,
                decompressed: Some(decompressed),
            });
        }
        let head = parts::head(parts.kernel, WHAT, field::LENGTH)?;
        see_that_it_is_one(&head)?;
        let offset = bzimage::real_mode(&head);
        let size = size.checked_sub(offset).filter(|size| *size > ENTRY);
        let size =
            size.ok_or_else(|| Error::kernel("it is cut off behind its first sectors; install it again"))?;
        let takes = u64::from(long(&head, field::INIT_SIZE)).max(size);
        Ok(Kernel { head, bytes: Area { offset, size }, takes, entry: ENTRY, decompressed: None })
    }

    /// Checks the kernel against this machine's requirements.
    pub(super) fn fits(&self, machine: &Machine, parts: &Parts<'_>) -> Result<(), Error> {
        let flags = short(&self.head, field::XFLAGS);
        if machine.five_levels && flags & FIVE_LEVELS == 0 {
            return Err(Error::kernel(
                "this kernel uses five levels of page tables, and it was built without (CONFIG_X86_5LEVEL); stage one \
                 that has them, or start this kernel with no5lvl",
            ));
        }
        if machine.efi.is_some() && flags & EFI_KEXEC == 0 {
            return Err(Error::kernel(
                "this machine has UEFI, and it cannot take that over from a kernel before it (XLF_EFI_KEXEC); stage \
                 another kernel",
            ));
        }
        let most = u64::from(long(&self.head, field::CMDLINE_MAX));
        if parts.cmdline_room > most.saturating_add(1) {
            return Err(Error::kernel(format!(
                "it takes {most} bytes of command line, and with the handoff's record there are up to {}; leave \
                 something out",
                parts.cmdline_room.saturating_sub(1)
            )));
        }
        Ok(())
    }

    /// Returns the bounds of the kernel's place, and the choice within them.
    ///
    /// A kernel that unpacks itself then moves itself to a random place. It does not if it gets EFI's map from
    /// a kernel before it, because nothing in that map counts as free (`process_efi_entries`,
    /// arch/x86/boot/compressed/kaslr.c). Therefore its first place is a random one, too. With `nokaslr`, or
    /// with memory options that are not evaluated here, it is the highest, as with `kexec_file_load`.
    ///
    /// A decompressed kernel gets the place that its own code would choose: a random one. With such memory
    /// options it is the nearest one to the address that the kernel was linked for, and likewise without KASLR.
    pub(super) fn place(&self, line: &str) -> (Bounds, Choice) {
        let align = u64::from(long(&self.head, field::ALIGNMENT)).next_power_of_two().max(PAGE);
        let says_more = ["memmap", "movable_node", "hugepages", "hugepagesz"];
        let is_free = says_more.iter().all(|name| cmdline::value(line, name).is_none());
        match self.decompressed {
            Some(decompressed) if self.head.get(field::RELOCATABLE) == Some(&0) => {
                let high = decompressed.linked.saturating_add(self.takes.next_multiple_of(PAGE));
                (Bounds { align: PAGE, low: decompressed.linked, high }, Choice::Lowest)
            }
            Some(decompressed) => {
                let bounds = Bounds { align, low: decompressed.linked.max(LOWEST), high: u64::MAX };
                (bounds, if decompressed.random && is_free { Choice::Random } else { Choice::Lowest })
            }
            None => {
                let low = wide(&self.head, field::PREFERRED).max(LOWEST);
                let is_fixed = cmdline::value(line, "nokaslr").is_some() || !is_free;
                let choice = if is_fixed { Choice::Highest } else { Choice::Random };
                (Bounds { align, low, high: u64::MAX }, choice)
            }
        }
    }
}

/// Checks that a file with this head is a bzImage that can be started in 64-bit mode at any address.
fn see_that_it_is_one(head: &[u8]) -> Result<(), Error> {
    let flags = short(head, field::XFLAGS);
    let why = if head.starts_with(b"\x7fELF") {
        "it is an ELF file, which has to be laid out first; stage with --thaw"
    } else if !bzimage::is_one(head) {
        "it is no bzImage; stage with --loader verified"
    } else if short(head, field::VERSION) < PROTOCOL {
        "its boot protocol is older than 2.12, that of Linux 3.8; stage another kernel"
    } else if head.get(field::FLAGS).is_none_or(|flags| flags & LOADED_HIGH == 0) {
        "it is a zImage, which lies in low memory; stage another kernel"
    } else if flags & KERNEL_64 == 0 {
        "it is a 32-bit kernel, and this one starts 64-bit ones alone; stage one of these"
    } else if flags & ANYWHERE == 0 {
        "it must lie below 4 GiB (it was built without CONFIG_RELOCATABLE, or for mixed-mode UEFI), and so must all \
         that it is told; stage with --loader verified to hear what this kernel says to it"
    } else {
        return Ok(());
    };
    Err(Error::kernel(why))
}
