//! A picture as coloured blocks, two dots a character.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use image::{ImageReader, Limits, imageops::FilterType};

/// Most columns of a picture.
const MAX_COLUMNS: u32 = 80;
/// Most rows.
const MAX_ROWS: u32 = 40;
/// Most bytes that decoding may take; pictures come from others.
const MAX_MEMORY: u64 = 256 << 20;
/// Most dots each way.
const MAX_SIDE: u32 = 16_384;

/// Tells whether a file's name is that of a picture that can be shown here.
pub(super) fn is_named_like_one(name: &str) -> bool {
    let extension = Path::new(name).extension().unwrap_or_default().to_string_lossy();
    matches!(extension.to_lowercase().as_str(), "png" | "jpg" | "jpeg" | "gif" | "webp")
}

/// Reads a picture and returns it as lines for a terminal with colours.
///
/// # Errors
/// The error, for the person.
pub(super) fn lines(path: &Path, columns: u16) -> Result<Vec<String>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut reader = ImageReader::new(BufReader::new(file))
        .with_guessed_format()
        .map_err(|error| error.to_string())?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_MEMORY);
    (limits.max_image_width, limits.max_image_height) = (Some(MAX_SIDE), Some(MAX_SIDE));
    reader.limits(limits);
    let picture = reader.decode().map_err(|_| {
        "it can't be shown here: no PNG, JPEG, GIF or WebP, damaged, or too large".to_owned()
    })?;
    let columns = u32::from(columns).clamp(1, MAX_COLUMNS);
    // A small picture stays small.
    let width = columns.min(picture.width().max(1));
    let height = (MAX_ROWS * 2).min(picture.height().max(1));
    let small = picture.resize(width, height, FilterType::Triangle).to_rgb8();
    let dot = |x, y| small.get_pixel_checked(x, y).map(|dot| dot.0);
    let mut lines = Vec::new();
    for row in 0..small.height().div_ceil(2) {
        let mut line = String::new();
        for x in 0..small.width() {
            if let Some([r, g, b]) = dot(x, row * 2) {
                line.push_str(&format!("\x1b[38;2;{r};{g};{b}m"));
            }
            match dot(x, row * 2 + 1) {
                Some([r, g, b]) => line.push_str(&format!("\x1b[48;2;{r};{g};{b}m▀")),
                None => line.push_str("\x1b[49m▀"),
            }
        }
        line.push_str("\x1b[0m");
        lines.push(line);
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_becomes_blocks_and_anything_else_an_answer() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("x.png");
        let red = image::Rgb([255_u8, 0, 0]);
        image::RgbImage::from_pixel(4, 3, red).save(&path).unwrap();
        let shown = lines(&path, 4).unwrap();
        assert_eq!(shown.len(), 2);
        assert!(
            shown.iter().all(|line| line.contains("38;2;255;0;0") && line.ends_with("\x1b[0m"))
        );
        assert!(shown.last().unwrap().contains("\x1b[49m"));
        std::fs::write(&path, b"\x89PNG\r\n\x1a\nnot really").unwrap();
        assert!(lines(&path, 4).unwrap_err().contains("can't be shown"));
        assert!(lines(&folder.path().join("none"), 4).is_err());
    }
}
