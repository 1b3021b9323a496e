//! Decompresses any file as a kernel or leaves it as it is, and checks it as a kernel and as an initrd, without
//! a panic. The output has the reported size, which is within the limit, and a kernel's entry point is within
//! the output. Decompressing an initrd and checking it give the same result, and a decompressed initrd is whole.
#![no_main]

use std::cell::RefCell;
use std::fs::File;
use std::io::{Seek, Write};

use libfuzzer_sys::fuzz_target;
use nextkernel::image::whole;
use nextkernel::loading::decompress::failure::Failure;
use nextkernel::loading::decompress::{self, Asked};
use nextkernel::machine::root::Root;
use rustix::fs::{MemfdFlags, memfd_create};

const MOST: u64 = 8 << 20;

thread_local! {
    static FILES: RefCell<Option<[File; 2]>> = const { RefCell::new(None) };
}

fuzz_target!(|bytes: &[u8]| {
    FILES.with_borrow_mut(|files| {
        let file = || File::from(memfd_create("thaw", MemfdFlags::CLOEXEC).expect("a file in memory"));
        let [from, to] = files.get_or_insert_with(|| [file(), file()]);
        let fresh = |file: &mut File| {
            file.set_len(0).expect("cut");
            file.rewind().expect("rewound");
        };
        fresh(from);
        from.write_all(bytes).expect("written");
        let length = |file: &File| file.metadata().expect("a file").len();

        fresh(to);
        let cmdline = if bytes.len() % 7 == 0 { "nokaslr" } else { "quiet" };
        let asked = Asked { root: &Root::system(), cmdline, most: MOST };
        match decompress::kernel(from, to, &asked) {
            Ok(is) => {
                let size = length(to);
                assert!(0 < size && size <= MOST && size <= is.takes && is.entry < size);
                assert!(is.takes % (2 << 20) == 0 && is.moved >= is.linked);
                assert!(is.moved == is.linked || (is.random && cmdline == "quiet"));
            }
            Err(why) => plain(&why.to_string()),
        }

        if let Err(why) = whole::kernel(from, true) {
            plain(&why);
        }

        fresh(to);
        let proved = decompress::is_whole_initrd(from, 0, bytes.len() as u64).map_err(|why| why.to_string());
        match decompress::initrd(from, to, MOST) {
            Ok(is) => {
                assert!(is.size == length(to) && is.size <= MOST);
                assert!(proved.is_ok() && decompress::is_whole_initrd(to, 0, is.size).is_ok());
            }
            Err(Failure::NoRoom) => {}
            Err(why) => {
                plain(&why.to_string());
                assert_eq!(proved, Err(why.to_string()));
            }
        }
    });
});

fn plain(text: &str) {
    assert!(!text.contains(|c: char| c.is_ascii_control()), "{text:?}");
}
