//! sshd_config(5) after Include and Match: for each keyword the first value counts, some add up.

use crate::guest::{Scope, clean, glob};
use crate::report::MatchBlock;
use std::collections::BTreeMap;

const CONFIG: &str = "/etc/ssh/sshd_config";
/// Files that Include may pull in.
const INCLUDES_MAX: usize = 64;
/// Depth of includes: sshd's own limit (`SERVCONF_MAX_DEPTH`).
const DEPTH_MAX: usize = 16;
/// Match blocks that are reported.
const BLOCKS_MAX: usize = 1_000;
/// Longest sum of the values of a keyword that adds up.
const VALUE_MAX: usize = 4_096;
/// Keywords whose lines add up instead of the first winning.
const ADD_UP: [&str; 11] = [
    "acceptenv",
    "allowgroups",
    "allowusers",
    "denygroups",
    "denyusers",
    "hostcertificate",
    "hostkey",
    "listenaddress",
    "permitlisten",
    "port",
    "subsystem",
];

type Options = BTreeMap<String, String>;

/// Global options and Match blocks; `None` where there is no sshd.
pub(super) fn read(scope: &mut Scope<'_>) -> Option<(Options, Vec<MatchBlock>)> {
    // Where a vendor keeps its own file in /usr/etc (SUSE), it counts until there is one in /etc.
    let path = [CONFIG, "/usr/etc/ssh/sshd_config"]
        .into_iter()
        .find(|path| scope.exists(path))?;
    let mut sshd = Sshd::default();
    sshd.file(scope, path, 0);
    Some((sshd.global, sshd.blocks))
}

#[derive(Default)]
struct Sshd {
    global: Options,
    blocks: Vec<MatchBlock>,
    /// The block that options go to.
    block: Option<usize>,
    files: usize,
}

impl Sshd {
    fn file(&mut self, scope: &mut Scope<'_>, path: &str, depth: usize) {
        self.files = self.files.saturating_add(1);
        if self.files > INCLUDES_MAX || depth > DEPTH_MAX {
            let problem = format!("more than {INCLUDES_MAX} included files");
            return scope.warn("over_budget", path, problem);
        }
        let Some(text) = scope.text(path) else {
            return;
        };
        // A Match block ends with its file.
        let before = self.block;
        for line in text.lines() {
            let Some((key, value)) = keyword(line) else {
                continue;
            };
            match key.as_str() {
                "include" => {
                    for pattern in value.split_whitespace() {
                        let pattern = unquote(pattern);
                        let pattern = if pattern.starts_with('/') {
                            pattern.to_owned()
                        } else {
                            format!("/etc/ssh/{pattern}")
                        };
                        for file in glob::paths(scope, &pattern) {
                            if scope.exists(&file) {
                                self.file(scope, &file, depth.saturating_add(1));
                            }
                        }
                    }
                }
                "match" if self.blocks.len() >= BLOCKS_MAX => {
                    let problem = format!("more than {BLOCKS_MAX} Match blocks");
                    return scope.warn("over_budget", path, problem);
                }
                "match" => {
                    self.block = Some(self.blocks.len());
                    self.blocks.push(MatchBlock {
                        criteria: clean(&value),
                        options: Options::new(),
                    });
                }
                _ => self.option(&key, &value),
            }
        }
        self.block = before;
    }

    fn option(&mut self, key: &str, value: &str) {
        let block = self.block.and_then(|at| self.blocks.get_mut(at));
        let options = block.map_or(&mut self.global, |block| &mut block.options);
        match options.get_mut(key) {
            None => {
                options.insert(clean(key), clean(value));
            }
            Some(known) if ADD_UP.contains(&key) && known.len() < VALUE_MAX => {
                known.push(' ');
                known.push_str(&clean(value));
            }
            Some(_) => {}
        }
    }
}

/// `Keyword value`, `Keyword=value`; a comment may stand behind.
fn keyword(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (key, value) = line
        .split_once(|c: char| c.is_whitespace() || c == '=')
        .unwrap_or((line, ""));
    let value = value.trim_start_matches(['=', ' ', '\t']);
    let mut quoted = false;
    let mut end = value.len();
    let mut before = ' ';
    for (at, c) in value.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '#' if !quoted && before.is_whitespace() => {
                end = at;
                break;
            }
            _ => {}
        }
        before = c;
    }
    let value = value.get(..end).unwrap_or_default().trim();
    Some((key.to_ascii_lowercase(), unquote(value).to_owned()))
}

fn unquote(value: &str) -> &str {
    let inner = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    inner.filter(|inner| !inner.contains('"')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::memory::MemoryTree;
    use crate::guest::tests::{warned, with_scope};

    #[test]
    fn the_first_value_wins_over_includes_and_match_blocks() {
        let tree = MemoryTree::of(&[
            (
                "/etc/ssh/sshd_config",
                "Include /etc/ssh/sshd_config.d/*.conf\nPermitRootLogin yes # no\nPort 22\nPort=2222\nMatch User a\n  Include more\n  X11Forwarding no\nMatch all\n  Banner \"/a b\"\n",
            ),
            (
                "/etc/ssh/sshd_config.d/20.conf",
                "PermitRootLogin prohibit-password\n",
            ),
            (
                "/etc/ssh/sshd_config.d/10.conf",
                "Match Group g\nPasswordAuthentication no\n",
            ),
            (
                "/etc/ssh/sshd_config.d/.hidden.conf",
                "PermitRootLogin hidden\n",
            ),
            (
                "/etc/ssh/more",
                "AllowTcpForwarding no\nMatch User b\nMaxAuthTries 1\n",
            ),
        ]);
        let (global, blocks) = with_scope(tree, read).unwrap();
        assert_eq!(global["permitrootlogin"], "prohibit-password");
        assert_eq!(global["port"], "22 2222");
        assert!(!global.contains_key("passwordauthentication"));
        let criteria: Vec<_> = blocks.iter().map(|b| b.criteria.as_str()).collect();
        assert_eq!(criteria, ["Group g", "User a", "User b", "all"]);
        assert_eq!(blocks[1].options["x11forwarding"], "no");
        assert_eq!(blocks[1].options["allowtcpforwarding"], "no");
        assert_eq!(blocks[3].options["banner"], "/a b");
    }

    #[test]
    fn includes_in_a_circle_end() {
        let tree = MemoryTree::of(&[(CONFIG, "Include sshd_config\nInclude sshd_config\n")]);
        let (found, warnings) = warned(tree, read);
        assert!(found.is_some());
        assert_eq!(warnings[0].code, "over_budget");
        assert!(warnings.len() <= crate::guest::WARNINGS_MAX);
    }
}
