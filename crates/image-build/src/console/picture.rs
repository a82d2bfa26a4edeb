//! A screen as a PNG file that only its owner may read.

use std::io;
use std::path::Path;

use proxmox_client::ScreenImage;

use crate::whole_file;

/// The picture as PNG.
///
/// # Errors
/// A picture whose pixels are not as many as its size says.
pub fn png_of(image: &ScreenImage) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, image.width.into(), image.height.into());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(io::Error::other)?;
    writer.write_image_data(&image.rgb).map_err(io::Error::other)?;
    writer.finish().map_err(io::Error::other)?;
    Ok(bytes)
}

/// Writes it, in place of an older one: a screen may show what a console shows, so mode 0600.
///
/// # Errors
/// Those of the file system; an older picture is still there then.
pub fn save_screen(image: &ScreenImage, path: &Path) -> io::Result<()> {
    whole_file::write(path, &png_of(image)?, 0o600)
}
