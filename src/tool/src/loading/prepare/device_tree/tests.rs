#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::tree::NOTHING;
use super::*;

/// A property: its name and its value.
type Content<'a> = (&'a str, &'a [u8]);

/// Makes a tree with this content in `/chosen`, and with this reserved memory.
pub(crate) fn tree(chosen: Option<&[Content<'_>]>, reserved: &[[u64; 2]]) -> Vec<u8> {
    let mut out = Writer::new(b"");
    for number in reserved.iter().flatten().chain(&[0, 0]) {
        out.bytes.extend_from_slice(&number.to_be_bytes());
    }
    let structure = out.bytes.len();
    out.begin(b"");
    out.own("compatible", b"board\0").unwrap();
    out.word(NOTHING);
    out.begin(b"memory@0");
    out.own("bootargs", b"another's\0").unwrap();
    out.begin(b"chosen");
    out.own("kaslr-seed", &[7; 8]).unwrap();
    out.word(END);
    out.word(END);
    if let Some(chosen) = chosen {
        out.begin(b"chosen");
        for (name, value) in chosen {
            out.own(name, value).unwrap();
        }
        out.begin(b"below");
        out.own("bootargs", b"below\0").unwrap();
        out.word(END);
        out.word(END);
    }
    out.begin(b"chosen@1");
    out.own("bootargs", b"no more\0").unwrap();
    out.word(END);
    out.word(END);
    out.word(FINISH);
    out.finish(structure, 3).unwrap()
}

fn reserved(tree: &[u8]) -> Vec<u64> {
    Tree::parse(tree).unwrap().reserved.chunks_exact(8).filter_map(number).collect()
}

const NEW: Range = Range { start: 0x4800_0000, end: 0x4812_3456 };

#[test]
fn what_was_of_the_last_boot_is_gone_and_the_rest_is_kept() {
    let mut chosen: Vec<Content<'_>> = vec![
        ("stdout-path", b"/serial"),
        ("bootargs", b"old\0"),
        ("linux,uefi-system-table", &[1; 8]),
        ("linux,initrd-start", &[0, 0, 0, 0, 0x44, 0, 0, 0]),
        ("linux,initrd-end", &[0x44, 0, 0x12, 0x34]),
        ("kaslr-seed", &[9; 8]),
        ("rng-seed", &[9; 64]),
    ];
    chosen.extend(LAST_BOOTS.map(|name| (name, &[2; 16][..])));
    let kept = [0x1000, 0x2000, 0x4400_0000, 0x1235];
    let old = [&kept[..], &[0x4400_0000, 0x1234, 0x4400_0000, 0x2000]].concat();
    let pairs: Vec<_> = old.chunks_exact(2).map(|pair| pair.try_into().unwrap()).collect();
    let old = tree(Some(&chosen), &pairs);
    let old = Tree::parse(&old).unwrap();
    let told = old.told(Some(NEW), 100).unwrap();
    let new = Tree::parse(&told.bytes).unwrap();
    assert_eq!(new.chosen("stdout-path").unwrap(), b"/serial");
    assert_eq!(new.chosen("linux,uefi-system-table").unwrap(), [1; 8]);
    assert_eq!(new.chosen("linux,booted-from-kexec").unwrap(), b"");
    assert!(LAST_BOOTS.iter().all(|name| new.chosen(name).is_none()));
    assert_eq!(new.last_initrd(), Some((NEW.start, NEW.end - NEW.start)));
    assert_eq!(reserved(&told.bytes), kept);
    assert_eq!(new.boot_cpu, 3);
    // Everything outside `/chosen` is unchanged.
    let count = |tree: Tree<'_>, value: &[u8]| {
        let is = |token: &Token<'_>| matches!(token, Token::Property { value: its, .. } if *its == value);
        tree.tokens().flatten().filter(is).count()
    };
    for value in [&b"another's\0"[..], b"below\0", b"no more\0", b"board\0", &[7; 8]] {
        assert_eq!((count(old, value), count(new, value)), (1, 1), "{value:?}");
    }
    assert_eq!((count(new, b"old\0"), count(new, &[9; 8])), (0, 0));
}

#[test]
fn what_is_written_into_its_areas_is_what_the_next_kernel_reads() {
    for chosen in [Some(&[][..]), None] {
        let old = tree(chosen, &[]);
        let mut told = Tree::parse(&old).unwrap().told(None, 64).unwrap();
        assert_eq!(told.seeds.iter().map(|area| area.size).collect::<Vec<_>>(), [8, 32]);
        for (area, byte) in [told.cmdline, told.seeds[0], told.seeds[1]].into_iter().zip(b"abc") {
            let at = usize::try_from(area.offset).unwrap();
            let end = at + usize::try_from(area.size).unwrap();
            told.bytes.get_mut(at..end).unwrap().fill(*byte);
        }
        let new = Tree::parse(&told.bytes).unwrap();
        assert_eq!(new.chosen("bootargs").unwrap(), [b'a'; 64]);
        assert_eq!(new.chosen("kaslr-seed").unwrap(), [b'b'; 8]);
        assert_eq!(new.chosen("rng-seed").unwrap(), [b'c'; 32]);
        assert_eq!(new.last_initrd(), None);
    }
}

#[test]
fn from_handoff_to_handoff_it_does_not_grow() {
    let first = Tree::parse(&tree(None, &[[1, 2]])).unwrap().told(Some(NEW), 2048).unwrap();
    let second = Tree::parse(&first.bytes).unwrap().told(Some(NEW), 2048).unwrap();
    assert_eq!(first, second);
    assert_eq!(first.bytes.len() % 8, 0);
}

#[test]
fn a_tree_that_is_cut_off_or_damaged_anywhere_is_read_to_its_end() {
    let whole = tree(Some(&[("stdout-path", b"/serial")]), &[[1, 2]]);
    for at in 0..whole.len() {
        assert_eq!(Tree::parse(&whole[..at]).unwrap_err(), Malformed, "{at}");
        for byte in [0, 1, 3, 9, 0x7f, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] = byte;
            if let Ok(tree) = Tree::parse(&damaged) {
                let told = tree.told(Some(NEW), 16).unwrap();
                Tree::parse(&told.bytes).unwrap();
            }
        }
    }
}
