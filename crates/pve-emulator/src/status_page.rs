//! The status page at `/`: what goes on in the emulated cluster, for the eyes of the person who runs it.
//!
//! It needs no login and so is for the loopback only, and it shows nothing that a login protects from theft: no tokens, no
//! tickets, no configuration. No script, no file from elsewhere; the browser asks again by itself.

use std::fmt::{self, Display, Write as _};
use std::net::IpAddr;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Response, StatusCode};
use http_body_util::Full;

use crate::engine::RunState;
use crate::state::{World, now};

const STYLE: &str = include_str!("status_page.css");

/// The page asks for itself again after so many seconds.
const REFRESH_S: u32 = 2;

/// Most tasks shown.
const TASKS: usize = 30;

/// Most lines of a console on the first page, and most of its characters anywhere.
const TAIL_LINES: usize = 12;
const MAX_CONSOLE: usize = 256 * 1024;

/// A page by its path: `/`, or `/guest/VMID` with a guest's whole console. `None` for paths that are no page.
pub(crate) fn page(world: &World, path: &str, peer: IpAddr) -> Option<Response<Full<Bytes>>> {
    let vmid = match path {
        "/" => None,
        other => Some(other.strip_prefix("/guest/")?.parse::<u32>().ok()?),
    };
    if !peer.to_canonical().is_loopback() {
        let text = "The status page is shown on the emulator's own machine only.\n".to_owned();
        return Some(reply(StatusCode::FORBIDDEN, text, "text/plain; charset=utf-8"));
    }
    let (status, body) = match vmid {
        None => (StatusCode::OK, overview(world)),
        Some(vmid) => match guest(world, vmid) {
            Some(body) => (StatusCode::OK, body),
            None => (
                StatusCode::NOT_FOUND,
                document(
                    "No such guest",
                    "<p>There is no such guest. <a href=\"/\">All guests</a></p>",
                ),
            ),
        },
    };
    Some(reply(status, body, "text/html; charset=utf-8"))
}

fn reply(status: StatusCode, body: String, kind: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";
    for (name, value) in [
        (CONTENT_TYPE, kind),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, policy),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Text that stands for itself in HTML, in attributes too.
struct Text<T>(T);

impl<T: Display> Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.to_string().chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c if c.is_control() && c != '\n' && c != '\t' => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

fn document(title: &str, main: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"refresh\" content=\"{REFRESH_S}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n\
         </head>\n<body>\n{main}</body>\n</html>\n",
        title = Text(title)
    )
}

/// A word in a coloured box.
fn badge(kind: &str, word: impl Display) -> String {
    format!("<span class=\"badge {kind}\">{}</span>", Text(word))
}

fn overview(world: &World) -> String {
    let settings = &world.settings;
    let mut main = String::new();
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(
        main,
        "<header>\n<h1>Emulated Proxmox VE</h1>\n<p>PVE {} &middot; guests: {} &middot; up {} &middot; \
         this is no real cluster</p>\n</header>",
        Text(&settings.version),
        Text(world.engine.name()),
        duration(settings.started.elapsed().as_secs()),
    );
    if !world.nodes.quorate() {
        main.push_str(
            "<p class=\"alert\">No quorum: half of the nodes or more are offline, and all changes are refused.</p>\n",
        );
    }
    node_table(world, &mut main);
    guest_table(world, &mut main);
    tasks(world, &mut main);
    consoles(world, &mut main);
    document("Emulated Proxmox VE", &main)
}

fn node_table(world: &World, main: &mut String) {
    main.push_str("<section>\n<h2>Nodes</h2>\n<table>\n<tr><th>Node<th>State<th class=\"number\">Guests<th class=\"number\">Running tasks</tr>\n");
    let machines = world.machines();
    for node in &world.settings.nodes {
        let state = world.nodes.state(node);
        let mut shown = if state.offline {
            badge("bad", "offline")
        } else {
            badge("good", "online")
        };
        if !state.slow.is_zero() {
            shown.push(' ');
            shown.push_str(&badge("warn", format!("slow by {:?}", state.slow)));
        }
        let guests = machines.values().filter(|m| m.node == *node).count();
        let busy = world.tasks.of_node(node).iter().filter(|t| t.end().is_none()).count();
        let _ = writeln!(
            main,
            "<tr><td>{}<td>{shown}<td class=\"number\">{guests}<td class=\"number\">{busy}</tr>",
            Text(node)
        );
    }
    main.push_str("</table>\n</section>\n");
}

fn guest_table(world: &World, main: &mut String) {
    main.push_str("<section>\n<h2>Guests</h2>\n");
    let machines = world.machines();
    if machines.is_empty() {
        main.push_str("<p class=\"none\">There are none yet.</p>\n</section>\n");
        return;
    }
    main.push_str("<table>\n<tr><th class=\"number\">VMID<th>Name<th>Node<th>State<th class=\"number\">Up</tr>\n");
    for (vmid, machine) in machines.iter() {
        let running = world.engine.status(*vmid);
        let mut state = if !world.nodes.online(&machine.node) {
            badge("bad", "unknown")
        } else if machine.is_template() {
            badge("plain", "template")
        } else {
            match &running {
                Some(running) if running.state != RunState::Running => badge("warn", running.state.as_str()),
                Some(_) => badge("good", "running"),
                None => badge("plain", "stopped"),
            }
        };
        if let Some(lock) = machine.config.get("lock") {
            state.push(' ');
            state.push_str(&badge("warn", format!("locked: {lock}")));
        }
        let up = running.as_ref().map_or_else(String::new, |r| duration(r.uptime_s));
        let _ = writeln!(
            main,
            "<tr><td class=\"number\"><a href=\"/guest/{vmid}\">{vmid}</a><td>{}<td>{}<td>{state}<td class=\"number\">{up}</tr>",
            Text(machine.name(*vmid)),
            Text(&machine.node)
        );
    }
    main.push_str("</table>\n</section>\n");
}

fn tasks(world: &World, main: &mut String) {
    main.push_str("<section>\n<h2>Tasks</h2>\n");
    let latest = world.tasks.latest(TASKS);
    if latest.is_empty() {
        main.push_str("<p class=\"none\">There were none yet.</p>\n</section>\n");
        return;
    }
    main.push_str("<table>\n<tr><th>Began<th>Node<th>Task<th>User<th>Result</tr>\n");
    for task in latest {
        let upid = &task.upid;
        let result = match task.end() {
            None => badge("warn", "running"),
            Some((_, exit)) if exit == "OK" => badge("good", exit),
            Some((_, exit)) if exit.starts_with("WARNINGS") => badge("warn", exit),
            Some((_, exit)) => badge("bad", exit),
        };
        let _ = writeln!(
            main,
            "<tr><td>{} ago<td>{}<td>{} {}<td>{}<td>{result}</tr>",
            duration(now().saturating_sub(upid.starttime)),
            Text(&upid.node),
            Text(&upid.kind),
            Text(&upid.id),
            Text(&upid.user),
        );
    }
    main.push_str("</table>\n</section>\n");
}

fn consoles(world: &World, main: &mut String) {
    let vmids: Vec<u32> = world.machines().keys().copied().collect();
    for vmid in vmids {
        if let Some(console) = world.engine.console(vmid) {
            let text = plain(&console);
            let lines: Vec<&str> = text.trim_end().lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
            let _ = writeln!(
                main,
                "<section>\n<h2>Console of <a href=\"/guest/{vmid}\">{vmid}</a></h2>\n<pre>{}</pre>\n</section>",
                Text(tail)
            );
        }
    }
}

fn guest(world: &World, vmid: u32) -> Option<String> {
    let (name, node) = {
        let machines = world.machines();
        let machine = machines.get(&vmid)?;
        (machine.name(vmid), machine.node.clone())
    };
    let console = match world.engine.console(vmid) {
        Some(console) => format!("<pre>{}</pre>\n", Text(plain(&console).trim_end())),
        None => "<p class=\"none\">It does not run, and so it has no console.</p>\n".to_owned(),
    };
    let main = format!(
        "<header>\n<h1>{vmid} {}</h1>\n<p>on {} &middot; <a href=\"/\">all guests</a></p>\n</header>\n<section>\n{console}</section>\n",
        Text(&name),
        Text(node)
    );
    Some(document(&format!("{vmid} {name}"), &main))
}

/// A console's text without what steers a terminal, and not more of it than a browser shows at once.
fn plain(console: &str) -> String {
    let mut start = console.len().saturating_sub(MAX_CONSOLE);
    while !console.is_char_boundary(start) {
        start += 1;
    }
    let mut text = String::new();
    let mut chars = console[start..].chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' if chars.peek() == Some(&'[') => {
                chars.next();
                // A control sequence ends with the first letter or one of `@[\]^_`{|}~`.
                while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {}
            }
            '\u{1b}' => {
                chars.next();
            }
            '\r' => {}
            c => text.push(c),
        }
    }
    text
}

/// `2 d 3 h`, `5 min 12 s`: the two largest units.
fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        let hostile = "<script>alert(1)</script>&\"'\u{1}\n";
        assert_eq!(
            Text(hostile).to_string(),
            "&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;&#39;\u{fffd}\n"
        );
    }

    #[test]
    fn consoles_lose_what_steers_a_terminal() {
        for (console, expected) in [
            ("a\r\nb\r\n", "a\nb\n"),
            ("\u{1b}[1;31mred\u{1b}[0m", "red"),
            ("\u{1b}[2J\u{1b}[Hmenu", "menu"),
            ("\u{1b}cx", "x"),
            ("cut \u{1b}[12", "cut "),
            ("cut \u{1b}", "cut "),
        ] {
            assert_eq!(plain(console), expected, "{console:?}");
        }
        let long = "ä".repeat(MAX_CONSOLE);
        assert!(plain(&long).len() <= MAX_CONSOLE);
    }

    #[test]
    fn durations_have_two_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (312, "5 min 12 s"),
            (3_660, "1 h 1 min"),
            (180_000, "2 d 2 h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
