//! URI templates: `*` for a segment, `**` for the rest, `{name}` and `{name=pattern}` for either under a name.

use lateen_proto::envoy::config::core::v3::TypedExtensionConfig;
use lateen_proto::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;

use crate::error::{Cx, Result};
use crate::string_match::FullRegex;

/// What a segment may be made of, as Envoy has it: RFC 3986's characters of a segment but the asterisk.
const SEGMENT: &str = "[-a-zA-Z0-9._~%!$&'()+,;:@=]+";
/// The same, with slashes, or nothing.
const REST: &str = "[-a-zA-Z0-9._~%!$&'()+,;:@=/]*";

/// Compiles the template of an extension.
pub(crate) fn compile(cx: &mut Cx<'_>, extension: &TypedExtensionConfig) -> Result<FullRegex> {
    let any = cx.required("typed_config", &extension.typed_config)?;
    cx.field("typed_config", |cx| {
        if !any.is::<UriTemplateMatchConfig>() {
            let reason = format!("{} is not supported: use UriTemplateMatchConfig", any.type_url);
            return Err(cx.refuse(reason));
        }
        let config: UriTemplateMatchConfig = cx.unpack(any)?;
        let pattern =
            expression(&config.path_template).map_err(|reason| cx.refuse_at("path_template", reason))?;
        FullRegex::of(&pattern).map_err(|error| cx.refuse_at("path_template", error))
    })
}

/// The template as a regular expression.
fn expression(template: &str) -> Result<String, String> {
    let Some(mut rest) = template.strip_prefix('/') else {
        return Err(format!("{template:?} has to begin with a slash"));
    };
    let mut out = String::from("/");
    let mut open_end = false;
    while !rest.is_empty() {
        let length = match rest.strip_prefix('{') {
            Some(_) => rest.find('}').ok_or("a brace is not closed")? + 1,
            None => rest.find(['{', '*']).unwrap_or(rest.len()).max(usize::from(rest.starts_with('*'))),
        };
        let stars = rest.len() - rest.trim_start_matches('*').len();
        let (part, after) = rest.split_at(if stars > 0 { stars } else { length });
        rest = after;
        // Text may follow (`*.m4s`), but not stand before.
        if part.starts_with(['*', '{']) && !out.ends_with('/') {
            return Err(format!("{part:?} has to begin a segment"));
        }
        let pattern = match part.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
            None => part,
            Some(variable) => {
                let (name, pattern) = variable.split_once('=').unwrap_or((variable, "*"));
                if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                    return Err(format!("{name:?} is no name of a variable"));
                }
                pattern
            }
        };
        for piece in pattern.split_inclusive('/') {
            let (word, slash) = piece.strip_suffix('/').map_or((piece, ""), |word| (word, "/"));
            if open_end && word.contains('*') {
                return Err("nothing but text may follow **".to_owned());
            }
            match word {
                "*" => out.push_str(SEGMENT),
                "**" => {
                    open_end = true;
                    out.push_str(REST);
                }
                word if word.contains(['*', '{', '}']) => {
                    return Err(format!("{word:?}: an asterisk stands for a whole segment"));
                }
                word => out.push_str(&regex::escape(word)),
            }
            out.push_str(slash);
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(template: &str, path: &str) -> bool {
        FullRegex::of(&expression(template).unwrap()).unwrap().matches(path.as_bytes())
    }

    #[test]
    fn templates_match_segments() {
        for (template, good, bad) in [
            ("/a/*/c", vec!["/a/b/c", "/a/x-1=2/c"], vec!["/a/c", "/a//c", "/a/b/d/c", "/a/b/c/"]),
            ("/a/**", vec!["/a/", "/a/b", "/a/b/c/"], vec!["/a", "/b/a/"]),
            ("/a/**/z.json", vec!["/a/b/z.json", "/a/b/c/z.json"], vec!["/a/b/z_json"]),
            ("/{x}/{y=**}", vec!["/a/b/c", "/a/"], vec!["/a"]),
            ("/{x=videos/*}/end", vec!["/videos/1/end"], vec!["/video/1/end"]),
            ("/videos/*.m4s", vec!["/videos/1.m4s"], vec!["/videos/1.mp4", "/videos/a/1.m4s"]),
            ("/plain.txt", vec!["/plain.txt"], vec!["/plainxtxt"]),
        ] {
            good.iter().for_each(|path| assert!(matches(template, path), "{template} {path}"));
            bad.iter().for_each(|path| assert!(!matches(template, path), "{template} {path}"));
        }
        for wrong in ["a", "/{a", "/{=*}", "/a*b", "/a{b}", "/**/*", "/***"] {
            assert!(expression(wrong).is_err(), "{wrong}");
        }
    }
}
