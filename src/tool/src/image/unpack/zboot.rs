//! EFI images that decompress themselves (drivers/firmware/efi/libstub/zboot-header.S).

use std::cell::Cell;
use std::io::{self, ErrorKind, Read};
use std::rc::Rc;

use super::stream::Stream;

/// The size that an EFI image states for its kernel.
#[derive(Clone, Copy, Default)]
pub(super) enum Size {
    /// None has been read yet.
    #[default]
    Untold,
    /// The size, which follows the compressed kernel.
    Told([u8; 4]),
    /// The image is cut off where the size should be.
    CutOff,
    /// The compressed kernel states its size itself.
    Inside,
}

/// The place for the size, which the image and its reader share.
pub(super) type Told = Rc<Cell<Size>>;

/// The content of an EFI image, followed by the size of the decompressed kernel.
pub(super) struct Zboot<'a> {
    from: Stream<'a>,
    left: u64,
    told: Told,
}

impl<'a> Zboot<'a> {
    /// Opens a stream of the content, which is that many bytes at that offset of the image. `told` receives the
    /// size that the image states for it.
    pub(super) fn open(mut from: Stream<'a>, offset: u32, size: u32, told: &Told) -> io::Result<Zboot<'a>> {
        let skipped = io::copy(&mut (&mut from).take(offset.into()), &mut io::sink())?;
        if skipped < offset.into() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        told.set(Size::Untold);
        Ok(Zboot { from, left: size.into(), told: Rc::clone(told) })
    }
}

impl Read for Zboot<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = (&mut self.from).take(self.left).read(into)?;
        self.left -= read as u64;
        match self.left {
            _ if read > 0 || into.is_empty() => {}
            0 => {
                if let Size::Untold = self.told.get() {
                    let mut size = [0; 4];
                    let told = self.from.read_exact(&mut size);
                    self.told.set(told.map_or(Size::CutOff, |()| Size::Told(size)));
                }
                // The stream that contains this image must be whole, too.
                io::copy(&mut self.from, &mut io::sink())?;
            }
            _ => return Err(ErrorKind::UnexpectedEof.into()),
        }
        Ok(read)
    }
}
