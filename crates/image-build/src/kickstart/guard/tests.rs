//! Values at every kind of place: what stands there arrives, what does not is found out.

use proptest::prelude::*;

use super::*;
use crate::kickstart::facts;

/// A text with `@` where a plain value stands, and `~` where a quoted one does.
fn marked(template: &str, value: &str) -> String {
    template
        .chars()
        .map(|c| match c {
            '@' => format!("{PLAIN}{value}{END}"),
            '~' => format!("{QUOTED}{value}{END}"),
            c => c.to_string(),
        })
        .collect()
}

fn reason(template: &str, value: &str) -> Option<&'static str> {
    misplaced(&marked(template, value)).map(|found| {
        assert_eq!(found.value, value, "{template}");
        found.reason
    })
}

#[test]
fn what_fits_its_place_is_left_alone() {
    for (template, value) in [
        ("url --url=@/os\n", "https://m/alma?a=b&c=%20"),
        ("lang @", "de_DE.UTF-8"),
        ("url --url=@\n", "-x"),
        ("# -- @\n", "-x"),
        ("bootloader --append=\"quiet @\"\n", "a b 'c' #d"),
        ("bootloader --append='quiet @'\n", "a \"b\" \\ #"),
        ("# @\nlang en\n", "anything \"at\" all' #"),
        ("lang ~\n", "\"a \\\"b\\\" \\\\ #\""),
        ("lang ~\n", "plain"),
        ("lang --x=~ --utc\n", "\"\""),
        ("%packages\nkernel-@\n%end\n", "core"),
        ("%post\nhostnamectl set-hostname \"@\"\n%end\nlang en\n", "a b.example"),
        ("%post\necho @ >/etc/x\n%end\n", "v1.29.0+k3s1"),
    ] {
        assert_eq!(reason(template, value), None, "{template} {value}");
    }
}

#[test]
fn what_does_not_is_found_out() {
    for (template, value, part) in [
        ("url --url=@/os\n", "https://m/\nreboot", "line break"),
        ("# @\n", "x\r\nrootpw x", "line break"),
        ("# @\n", "x\u{2028}y", "line break"),
        ("bootloader --append=\"@\"\n", "a\nb", "line break"),
        ("url --url=@\n", "https://m --noverifyssl", "blank"),
        ("url --url=@\n", "x#y", "`#`"),
        ("lang @\n", "a\"b", "quote"),
        ("lang @\n", "a\\", "backslash"),
        ("bootloader --append=\"@\"\n", "a\" --location=none \"", "quote"),
        ("bootloader --append=\"@\"\n", "a\\", "backslash"),
        ("bootloader --append='@'\n", "a' --x '", "quote"),
        ("@\n", "%pre", "section"),
        ("timezone @ --utc\n", "--nontp", "option"),
        ("timezone ~ --utc\n", "--nontp", "option"),
        ("timezone ~ --utc\n", "\"--nontp x\"", "option"),
        ("timezone \"@\" --utc\n", "-x", "option"),
        ("timezone '@' --utc\n", "-x", "option"),
        ("lang \"~\"\n", "\"a b\"", "quoted already"),
        ("lang ~\n", "\"a\\u0026b\"", "another language"),
        ("lang ~\n", "a b", "blank"),
        ("lang ~\n", "\"a", "quote open"),
        ("lang ~", "\"a", "quote open"),
        ("lang ~x\n", "a\\", "quote open"),
        ("%packages\n@\n%end\n", "%end", "takes for its own"),
        ("%packages\n@\n%end\n", "-kernel", "takes for its own"),
        ("%post\n@\n%end\n", "x;reboot", "takes for its own"),
        ("%post\necho \"@\"\n%end\n", "$(id)", "takes for its own"),
        ("%post\necho '@'\n%end\n", "a'b", "takes for its own"),
        ("%post\necho @\n%end\n", "a b", "takes for its own"),
        ("%post\ncat <<EOF\n@\nEOF\n%end\n", "`id`", "takes for its own"),
        ("%post\necho ~\n%end\n", "\"a b\"", "takes for its own"),
        ("%pre\ntrue\n%end\n%post\n@\n%end\n", "a\nb", "takes for its own"),
        ("%post\ntrue\n%end\nlang @\n", "a b", "single word"),
    ] {
        let found = reason(template, value);
        assert!(
            found.is_some_and(|reason| reason.contains(part)),
            "{template} {value}: {found:?}"
        );
    }
}

#[test]
fn a_captured_block_is_judged_by_the_values_in_it() {
    let block = |inner: &str| format!("url {PLAIN}--url={PLAIN}{inner}{END} --noverifyssl{END}\n");
    assert_eq!(misplaced(&block("https://m")), None);
    assert_eq!(misplaced(&block("https://m x")).unwrap().value, "https://m x");
    assert_eq!(unmarked(&block("m")), "url --url=m --noverifyssl\n");
}

proptest! {
    /// The lines around a value stay as they are, and the value arrives whole, or it is found out.
    #[test]
    fn any_text_arrives_as_data_or_is_found_out(
        value in "(\\PC|[\n\r\t\\\\\"'#%$`;& -]|%end|%include ){0,10}",
        place in 0_usize..6,
    ) {
        let template = [
            "url --mirrorlist=@\nlang en\n",
            "bootloader --append=\"a @ b\"\nlang en\n",
            "bootloader --append='a @ b'\nlang en\n",
            "# @\nlang en\n",
            "%packages\nkernel-@\n%end\nlang en\n",
            "%post\necho \"@\"\n%end\nlang en\n",
        ][place];
        let text = marked(template, &value);
        prop_assume!(value.chars().all(|c| !is_marked(&c.to_string())));
        if misplaced(&text).is_some() {
            return Ok(());
        }
        let text = unmarked(&text);
        let read = facts(&text);
        prop_assert_eq!(text.lines().count(), template.lines().count());
        prop_assert!(read.command("lang").is_some() && read.includes.is_empty());
        let names: Vec<&str> = read.sections.iter().map(|section| section.value.name.as_str()).collect();
        match place {
            0 => prop_assert_eq!(read.command("url").unwrap().value.option("--mirrorlist"), Some(value.as_str())),
            1 | 2 => {
                let whole = format!("a {value} b");
                prop_assert_eq!(read.command("bootloader").unwrap().value.option("--append"), Some(whole.as_str()));
            }
            3 => prop_assert_eq!(names.len(), 0),
            4 => prop_assert_eq!(names, ["packages"]),
            _ => prop_assert_eq!(names, ["post"]),
        }
    }
}
