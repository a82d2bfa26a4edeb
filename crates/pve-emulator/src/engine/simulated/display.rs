//! What a guest's video card shows: its console text in a bitmap font.

use font8x8::UnicodeFonts as _;

/// Light grey on black, the VGA text mode's colours.
const FOREGROUND: u32 = 0x00a8_a8a8;

/// Resolution and character cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mode {
    pub(super) width: u16,
    pub(super) height: u16,
    /// Width of a cell; glyphs are 8 pixels wide and doubled to 16 in height.
    cell: u16,
}

/// VGA text, 80 by 25: what SeaBIOS and a BIOS boot loader leave (`FACTS` 66).
pub(super) const TEXT: Mode = Mode {
    width: 720,
    height: 400,
    cell: 9,
};
/// What OVMF sets, and what a kernel's own driver sets on QEMU's standard card.
pub(super) const GRAPHICS: Mode = Mode {
    width: 1280,
    height: 800,
    cell: 8,
};

const CELL_HEIGHT: u16 = 16;

/// One picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) width: u16,
    pub(super) height: u16,
    /// `0x00RRGGBB`, row by row.
    pub(super) pixels: Vec<u32>,
}

impl Picture {
    /// The last lines of `text` as they would stand after scrolling; long lines wrap.
    pub(super) fn of(text: &str, mode: Mode) -> Self {
        let columns = usize::from(mode.width / mode.cell);
        let rows = usize::from(mode.height / CELL_HEIGHT);
        let mut lines: Vec<Vec<char>> = Vec::new();
        for line in text.lines() {
            let characters: Vec<char> = line.chars().collect();
            if characters.is_empty() {
                lines.push(Vec::new());
            }
            lines.extend(characters.chunks(columns).map(<[char]>::to_vec));
        }
        let mut picture = Self {
            width: mode.width,
            height: mode.height,
            pixels: vec![0; usize::from(mode.width) * usize::from(mode.height)],
        };
        let skipped = lines.len().saturating_sub(rows);
        for (row, line) in lines.iter().skip(skipped).enumerate() {
            for (column, character) in line.iter().enumerate() {
                picture.draw(
                    *character,
                    column * usize::from(mode.cell),
                    row * usize::from(CELL_HEIGHT),
                );
            }
        }
        picture
    }

    fn draw(&mut self, character: char, left: usize, top: usize) {
        let glyph = font8x8::BASIC_FONTS
            .get(character)
            .or_else(|| font8x8::LATIN_FONTS.get(character))
            .or_else(|| font8x8::BOX_FONTS.get(character))
            .or_else(|| font8x8::BASIC_FONTS.get('?'))
            .unwrap_or_default();
        for (y, bits) in glyph.iter().enumerate() {
            // Bit 0 is the leftmost pixel.
            for x in (0..8).filter(|x| bits >> x & 1 == 1) {
                for doubled in 0..2 {
                    let at = (top + 2 * y + doubled) * usize::from(self.width) + left + x;
                    self.pixels[at] = FOREGROUND;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stands_where_it_belongs() {
        let empty = Picture::of("", TEXT);
        assert_eq!((empty.width, empty.height), (720, 400));
        assert!(empty.pixels.iter().all(|pixel| *pixel == 0));
        // The top row of an E is a full bar but for its last pixel.
        let picture = Picture::of("\n E", GRAPHICS);
        let row = |y: usize| &picture.pixels[y * 1280..y * 1280 + 24];
        assert!(row(0).iter().all(|pixel| *pixel == 0));
        assert_eq!(row(16)[8..15], [FOREGROUND; 7]);
        assert_eq!(row(16), row(17));
    }

    #[test]
    fn a_full_screen_scrolls_and_long_lines_wrap() {
        let line = |text: &str| Picture::of(text, TEXT);
        let numbers: Vec<String> = (0..40).map(|number| number.to_string()).collect();
        assert_eq!(line(&numbers.join("\n")), line(&numbers[15..].join("\n")));
        assert_eq!(line(&"x".repeat(83)), line(&format!("{}\nxxx", "x".repeat(80))));
        assert_eq!(line("\u{1f980}"), line("?"), "what the font lacks");
    }
}
