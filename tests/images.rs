//! Builds the images that guests are made of, unless they exist.

use bed::disk::storage;
use bed::guest::{bios, inits, standins};
use bed::harness::Test;
use bed::image::Image;
use std::process::ExitCode;

fn main() -> ExitCode {
    match images() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn images() -> Result<(), String> {
    for image in [Image::Debian13, Image::Debian12] {
        standins::read(image, "nvidia")?;
    }
    if let Some(why) = Image::Forky.missing() {
        eprintln!("no image of Debian forky: {why}");
    }
    inits::tree(&Test { name: "images".into(), image: Image::Debian13 })?;
    storage::files()?;
    for image in [Image::Debian13SeparateBoot, Image::Debian12SeparateBoot] {
        bios::grub(image)?;
    }
    Ok(())
}
