//! QEMU's key names and what they type on a US keyboard.

/// One key combination as the guest's firmware sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A printable character.
    Char(char),
    /// Ctrl with a letter, in lower case.
    Ctrl(char),
    Enter,
    Escape,
    Tab,
    Backspace,
    Delete,
    Up,
    Down,
    Left,
    Right,
    Home,
    End,
    PageUp,
    PageDown,
    /// A function key, 1 to 12.
    Function(u8),
    /// Ctrl-Alt-Delete: the firmware and a boot loader reset the machine.
    Reset,
    /// A key without meaning here: a modifier alone, a media key.
    Other,
}

/// Key name, character, character with shift.
const PRINTABLE: &[(&str, char, char)] = &[
    ("spc", ' ', ' '),
    ("minus", '-', '_'),
    ("equal", '=', '+'),
    ("bracket_left", '[', '{'),
    ("bracket_right", ']', '}'),
    ("semicolon", ';', ':'),
    ("apostrophe", '\'', '"'),
    ("grave_accent", '`', '~'),
    ("backslash", '\\', '|'),
    ("comma", ',', '<'),
    ("dot", '.', '>'),
    ("slash", '/', '?'),
    ("less", '<', '>'),
    ("asterisk", '*', '*'),
    ("kp_multiply", '*', '*'),
    ("kp_divide", '/', '/'),
    ("kp_subtract", '-', '-'),
    ("kp_add", '+', '+'),
    ("kp_decimal", '.', '.'),
    ("kp_comma", ',', ','),
    ("kp_equals", '=', '='),
];

/// What Shift makes of the digits 0 to 9 on a US keyboard.
const SHIFTED_DIGITS: [char; 10] = [')', '!', '@', '#', '$', '%', '^', '&', '*', '('];

const NAMED: &[(&str, Key)] = &[
    ("ret", Key::Enter),
    ("kp_enter", Key::Enter),
    ("esc", Key::Escape),
    ("tab", Key::Tab),
    ("backspace", Key::Backspace),
    ("delete", Key::Delete),
    ("up", Key::Up),
    ("down", Key::Down),
    ("left", Key::Left),
    ("right", Key::Right),
    ("home", Key::Home),
    ("end", Key::End),
    ("pgup", Key::PageUp),
    ("pgdn", Key::PageDown),
];

/// QKeyCode names (QEMU, qapi/ui.json) that type nothing in a boot menu.
const SILENT: &[&str] = &[
    "unmapped",
    "pause",
    "print",
    "sysrq",
    "insert",
    "caps_lock",
    "num_lock",
    "scroll_lock",
    "menu",
    "compose",
    "stop",
    "again",
    "props",
    "undo",
    "front",
    "copy",
    "open",
    "paste",
    "find",
    "cut",
    "lf",
    "help",
    "ro",
    "hiragana",
    "henkan",
    "yen",
    "muhenkan",
    "katakanahiragana",
    "power",
    "sleep",
    "wake",
    "audionext",
    "audioprev",
    "audiostop",
    "audioplay",
    "audiomute",
    "volumeup",
    "volumedown",
    "mediaselect",
    "mail",
    "calculator",
    "computer",
    "ac_home",
    "ac_back",
    "ac_forward",
    "ac_refresh",
    "ac_bookmarks",
    "lang1",
    "lang2",
    "f13",
    "f14",
    "f15",
    "f16",
    "f17",
    "f18",
    "f19",
    "f20",
    "f21",
    "f22",
    "f23",
    "f24",
];

const SHIFT: &[&str] = &["shift", "shift_r"];
const CTRL: &[&str] = &["ctrl", "ctrl_r"];
const ALT: &[&str] = &["alt", "alt_r", "altgr", "altgr_r"];
const META: &[&str] = &["meta_l", "meta_r"];

/// Set-1 scan codes of the letters, for QEMU's `0x1e` spelling.
const SCAN_LETTERS: &[(u32, &str)] = &[
    (0x10, "qwertyuiop"),
    (0x1e, "asdfghjkl"),
    (0x2c, "zxcvbnm"),
    (0x02, "1234567890"),
];

/// Reads one combination such as `ctrl-x`, `shift-a`, `ret` or `0x1e`.
///
/// # Errors
/// QEMU's own complaint about a name that it does not know.
pub(super) fn parse(text: &str) -> Result<Key, String> {
    let (mut shift, mut ctrl, mut alt) = (false, false, false);
    let mut key = None;
    for name in text.split('-') {
        if SHIFT.contains(&name) {
            shift = true;
        } else if CTRL.contains(&name) {
            ctrl = true;
        } else if ALT.contains(&name) {
            alt = true;
        } else if META.contains(&name) || SILENT.contains(&name) {
            key = key.or(Some((Key::Other, None)));
        } else {
            let found = single(name).ok_or_else(|| format!("invalid parameter: {name}"))?;
            key = Some(found);
        }
    }
    Ok(match key {
        Some((Key::Delete, _)) if ctrl && alt => Key::Reset,
        Some((Key::Char(c), _)) if ctrl => Key::Ctrl(c.to_ascii_lowercase()),
        Some((_, Some(shifted))) if shift => Key::Char(shifted),
        // A boot loader sees nothing of Alt with a letter.
        Some((Key::Char(_), _)) if alt => Key::Other,
        Some((key, _)) => key,
        None => Key::Other,
    })
}

/// A key without modifiers, and its character under Shift.
fn single(name: &str) -> Option<(Key, Option<char>)> {
    if let Some(hex) = name.strip_prefix("0x") {
        let code = u32::from_str_radix(hex, 16).ok()?;
        return Some(scan_code(code));
    }
    if let [byte] = name.as_bytes() {
        let c = char::from(*byte);
        if c.is_ascii_lowercase() {
            return Some((Key::Char(c), Some(c.to_ascii_uppercase())));
        }
        if c.is_ascii_digit() {
            return Some((Key::Char(c), Some(SHIFTED_DIGITS[usize::from(*byte - b'0')])));
        }
        return None;
    }
    if let Some((_, plain, shifted)) = PRINTABLE.iter().find(|entry| entry.0 == name) {
        return Some((Key::Char(*plain), Some(*shifted)));
    }
    if let Some((_, key)) = NAMED.iter().find(|entry| entry.0 == name) {
        return Some((*key, None));
    }
    if let Some(number) = name.strip_prefix('f').and_then(|rest| rest.parse::<u8>().ok())
        && (1..=12).contains(&number)
    {
        return Some((Key::Function(number), None));
    }
    let digit = name.strip_prefix("kp_")?;
    match digit.as_bytes() {
        [byte] if byte.is_ascii_digit() => Some((Key::Char(char::from(*byte)), None)),
        _ => None,
    }
}

fn scan_code(code: u32) -> (Key, Option<char>) {
    for (first, row) in SCAN_LETTERS {
        let found = code
            .checked_sub(*first)
            .and_then(|offset| row.chars().nth(offset as usize));
        if let Some(c) = found {
            return single(c.encode_utf8(&mut [0; 4])).unwrap_or((Key::Other, None));
        }
    }
    let key = match code {
        0x01 => Key::Escape,
        0x0e => Key::Backspace,
        0x0f => Key::Tab,
        0x1c => Key::Enter,
        0x39 => Key::Char(' '),
        _ => Key::Other,
    };
    (key, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_keys() {
        for (name, key) in [
            ("a", Key::Char('a')),
            ("shift-a", Key::Char('A')),
            ("shift-semicolon", Key::Char(':')),
            ("shift-minus", Key::Char('_')),
            ("shift-2", Key::Char('@')),
            ("shift-0", Key::Char(')')),
            ("dot", Key::Char('.')),
            ("kp_7", Key::Char('7')),
            ("ctrl-x", Key::Ctrl('x')),
            ("ctrl-alt-delete", Key::Reset),
            ("f10", Key::Function(10)),
            ("0x1e", Key::Char('a')),
            ("0x1c", Key::Enter),
            ("shift", Key::Other),
            ("alt-a", Key::Other),
            ("meta_l", Key::Other),
        ] {
            assert_eq!(parse(name), Ok(key), "{name}");
        }
    }

    #[test]
    fn unknown_names_are_refused_as_qemu_does() {
        for (name, culprit) in [
            ("A", "A"),
            ("nosuchkey", "nosuchkey"),
            ("", ""),
            ("a b", "a b"),
            ("a-bb", "bb"),
            ("f0", "f0"),
            ("f25", "f25"),
        ] {
            assert_eq!(parse(name), Err(format!("invalid parameter: {culprit}")), "{name:?}");
        }
    }
}
