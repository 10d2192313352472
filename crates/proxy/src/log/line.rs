//! A whole line, in text or JSON.

use std::io::Write as _;

use lateen_route::access_log::{JsonNode, LogFormat};
use lateen_route::format::{Format, Part, Variable};

use super::{Record, default_format};

impl Record<'_> {
    /// Writes a whole line, or what else a format makes.
    pub(crate) fn write_line(&self, format: &LogFormat, out: &mut Vec<u8>) {
        match format {
            LogFormat::Default => {
                default_format().write(out, false, |variable, out| self.write(variable, out))
            }
            LogFormat::Text { format, omit_empty } => {
                format.write(out, *omit_empty, |variable, out| self.write(variable, out));
            }
            LogFormat::Json { object, omit_empty } => {
                self.write_object(object, *omit_empty, out);
                out.push(b'\n');
            }
        }
    }

    fn write_object(&self, members: &[(Box<str>, JsonNode)], omit_empty: bool, out: &mut Vec<u8>) {
        out.push(b'{');
        let mut first = true;
        for (name, node) in members {
            let before = out.len();
            if !first {
                out.push(b',');
            }
            write_json_text(name.as_bytes(), out);
            out.push(b':');
            if self.write_node(node, omit_empty, out) {
                first = false;
            } else {
                out.truncate(before);
            }
        }
        out.push(b'}');
    }

    /// False when there is no value and it is to be left out.
    fn write_node(&self, node: &JsonNode, omit_empty: bool, out: &mut Vec<u8>) -> bool {
        match node {
            JsonNode::Format(format) => return self.write_json_format(format, omit_empty, out),
            JsonNode::Number(number) => drop(write!(out, "{number}")),
            JsonNode::Bool(truth) => drop(write!(out, "{truth}")),
            JsonNode::Null => out.extend_from_slice(b"null"),
            JsonNode::Object(members) => self.write_object(members, omit_empty, out),
            JsonNode::List(items) => {
                out.push(b'[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    if !self.write_node(item, false, out) {
                        out.extend_from_slice(b"null");
                    }
                }
                out.push(b']');
            }
        }
        true
    }

    fn write_json_format(&self, format: &Format, omit_empty: bool, out: &mut Vec<u8>) -> bool {
        let mut text = Vec::with_capacity(64);
        if let [Part::Value { variable, limit }] = format.parts() {
            if !self.write(variable, &mut text) {
                out.extend_from_slice(b"null");
                return !omit_empty;
            }
            if is_number(variable) {
                out.extend_from_slice(&text);
                return true;
            }
            if let Some(limit) = limit {
                text.truncate(*limit);
            }
        } else {
            format.write(&mut text, omit_empty, |variable, out| self.write(variable, out));
        }
        write_json_text(&text, out);
        true
    }
}

fn is_number(variable: &Variable) -> bool {
    matches!(
        variable,
        Variable::ResponseCode
            | Variable::BytesReceived
            | Variable::BytesSent
            | Variable::Duration
            | Variable::ConnectionId
            | Variable::UpstreamRequestAttemptCount
            | Variable::DownstreamLocalPort
            | Variable::DownstreamRemotePort
            | Variable::GrpcStatusNumber
    )
}

fn write_json_text(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for c in String::from_utf8_lossy(text).chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            c if u32::from(c) < 0x20 => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_text_is_escaped() {
        let mut out = Vec::new();
        write_json_text(b"a\"b\\c\n\x01\xff", &mut out);
        assert_eq!(String::from_utf8_lossy(&out), "\"a\\\"b\\\\c\\n\\u0001\u{fffd}\"");
    }
}
