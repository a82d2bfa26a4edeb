//! Shell patterns: `*`, `?`, `[...]`.

/// Whether a name fits a shell pattern; a leading dot must be written out.
pub(super) fn matches_glob(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    matches_pattern(pattern, name)
}

/// Whether a text fits a shell pattern as `case` uses it.
pub(super) fn matches_pattern(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // Greedy with one point to come back to: linear in practice, and never exponential.
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, t));
            p += 1;
        } else if let Some(next) = match_one(&pattern, p, text[t]) {
            p = next;
            t += 1;
        } else if let Some((star_p, star_t)) = star {
            p = star_p + 1;
            t = star_t + 1;
            star = Some((star_p, t));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// Matches one character against the pattern's next element; the position after it.
fn match_one(pattern: &[char], at: usize, c: char) -> Option<usize> {
    match pattern.get(at)? {
        '?' => Some(at + 1),
        '\\' => (pattern.get(at + 1) == Some(&c)).then_some(at + 2),
        '[' => {
            let close = pattern
                .iter()
                .skip(at + 2)
                .position(|c| *c == ']')
                .map(|offset| at + 2 + offset);
            let Some(close) = close else {
                return (c == '[').then_some(at + 1);
            };
            let (negated, members) = match pattern[at + 1] {
                '!' | '^' => (true, &pattern[at + 2..close]),
                _ => (false, &pattern[at + 1..close]),
            };
            let mut found = false;
            let mut i = 0;
            while i < members.len() {
                if members.get(i + 1) == Some(&'-') && i + 2 < members.len() {
                    found |= members[i] <= c && c <= members[i + 2];
                    i += 3;
                } else {
                    found |= members[i] == c;
                    i += 1;
                }
            }
            (found != negated).then_some(close + 1)
        }
        literal => (*literal == c).then_some(at + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, fits) in [
            ("a*c", "abbc", true),
            ("a*c", "abbd", false),
            ("[a-c]?", "b1", true),
            ("[!a]*", "apple", false),
            ("*.sh", ".sh", true),
            ("a\\*", "a*", true),
            ("[", "[", true),
        ] {
            assert_eq!(matches_pattern(pattern, text), fits, "{pattern} {text}");
        }
    }
}
