//! The first instructions of the handoff.

/// Returns the first instructions of the handoff, for their address: they set the segments and `rsi`, and jump.
/// Behind them are the segments' descriptor table (boot.rst, "64-bit Boot Protocol": `__BOOT_CS` 0x10, execute
/// and read; `__BOOT_DS` 0x18, read and write), and a stack.
pub(super) fn trampoline(at: u64, boot_params: u64, entry: u64) -> Vec<u8> {
    /// The length of the instructions, and the offsets of the table and of the stack's top.
    const CODE: u8 = 0x38;
    const TABLE: u8 = CODE + 10;
    const STACK_TOP: u8 = (TABLE + 32).next_multiple_of(8) + 64;
    let mut code = Vec::new();
    code.extend([0xfa]); //                                       0x00 cli
    code.extend([0xfc]); //                                       0x01 cld
    code.extend([0x0f, 0x01, 0x15, CODE - 0x09, 0, 0, 0]); //     0x02 lgdt [rip + CODE - 9]
    code.extend([0xb8, 0x18, 0, 0, 0]); //                        0x09 mov eax, 0x18
    code.extend([0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0]); //         0x0e mov ds, eax; mov es, eax; mov ss, eax
    code.extend([0x8e, 0xe0, 0x8e, 0xe8]); //                     0x14 mov fs, eax; mov gs, eax
    code.extend([0x48, 0x8d, 0x25, STACK_TOP - 0x1f, 0, 0, 0]); // 0x18 lea rsp, [rip + STACK_TOP - 0x1f]
    code.extend([0x48, 0xbe]); //                                 0x1f mov rsi, boot_params
    code.extend(boot_params.to_le_bytes()); //                    0x21
    code.extend([0x48, 0xb8]); //                                 0x29 mov rax, entry
    code.extend(entry.to_le_bytes()); //                          0x2b
    code.extend([0x6a, 0x10]); //                                 0x33 push 0x10
    code.extend([0x50]); //                                       0x35 push rax
    code.extend([0x48, 0xcb]); //                                 0x36 retfq
    // The operand of `lgdt`: the offset of the table's last byte, and the table's address.
    code.extend([31, 0]);
    code.extend((at + u64::from(TABLE)).to_le_bytes());
    // The table: empty at 0 and 8, 64-bit code at 0x10, data at 0x18.
    for entry in [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff_u64] {
        code.extend(entry.to_le_bytes());
    }
    code.resize(usize::from(STACK_TOP), 0);
    code
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)]
    use super::*;
    use crate::words::little_endian::{long, short, wide};

    #[test]
    fn the_trampoline_is_what_its_comments_say() {
        let code = trampoline(0x1_2345_6000, 0x1_0000_1000, 0x7700_0200);
        let relative = |at: usize, behind: u64| 0x1_2345_6000 + behind + u64::from(long(&code, at));
        assert_eq!(&code[..5], &[0xfa, 0xfc, 0x0f, 0x01, 0x15]);
        assert_eq!(relative(5, 9), 0x1_2345_6038);
        assert_eq!((short(&code, 0x38), wide(&code, 0x3a)), (31, 0x1_2345_6042));
        assert_eq!(
            (&code[0x18..0x1b], relative(0x1b, 0x1f)),
            (&[0x48, 0x8d, 0x25][..], 0x1_2345_6000 + code.len() as u64)
        );
        assert_eq!((&code[0x1f..0x21], wide(&code, 0x21)), (&[0x48, 0xbe][..], 0x1_0000_1000));
        assert_eq!((&code[0x29..0x2b], wide(&code, 0x2b)), (&[0x48, 0xb8][..], 0x7700_0200));
        assert_eq!(&code[0x33..0x38], &[0x6a, 0x10, 0x50, 0x48, 0xcb]);
        assert_eq!(wide(&code, 0x42 + 0x10), 0x00af_9b00_0000_ffff);
        assert_eq!(wide(&code, 0x42 + 0x18), 0x00cf_9300_0000_ffff);
        assert_eq!(code.len() % 8, 0);
    }
}
