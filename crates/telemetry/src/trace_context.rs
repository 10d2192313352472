//! Trace context in headers: B3 (single and multi), W3C `traceparent`; request ids.
//!
//! A proxy that has no tracer still keeps traces whole: it makes a context where there is none, and hands on a child
//! of the one it was given.

use std::fmt::Write as _;

/// A position in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanContext {
    /// 128 bits; the upper half is zero where the context came with 64.
    pub trace: u128,
    /// This hop.
    pub span: u64,
    /// The hop before, if known.
    pub parent: Option<u64>,
    /// Whether the trace is recorded.
    pub sampled: bool,
}

impl SpanContext {
    /// A new trace from random bits.
    pub fn new(trace: u128, span: u64, sampled: bool) -> Self {
        Self { trace: trace | 1, span: span | 1, parent: None, sampled }
    }

    /// The next hop, its span from random bits.
    pub fn child(self, span: u64) -> Self {
        Self { span: span | 1, parent: Some(self.span), ..self }
    }

    /// Reads `traceparent`; none when malformed.
    pub fn from_traceparent(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let version = parts.next().filter(|v| v.len() == 2 && *v != "ff")?;
        u8::from_str_radix(version, 16).ok()?;
        let trace = parts.next().filter(|t| t.len() == 32)?;
        let span = parts.next().filter(|s| s.len() == 16)?;
        let flags = u8::from_str_radix(parts.next().filter(|f| f.len() == 2)?, 16).ok()?;
        let (trace, span) = (hex128(trace)?, hex64(span)?);
        (trace != 0 && span != 0).then_some(Self { trace, span, parent: None, sampled: flags & 1 == 1 })
    }

    /// Reads the B3 headers `x-b3-traceid`, `x-b3-spanid`, `x-b3-sampled`; none when ids are missing or malformed.
    pub fn from_b3(trace: &str, span: &str, parent: Option<&str>, sampled: Option<&str>) -> Option<Self> {
        let trace = hex128(trace).filter(|t| *t != 0)?;
        let span = hex64(span).filter(|s| *s != 0)?;
        let sampled = !matches!(sampled, Some("0" | "false"));
        Some(Self { trace, span, parent: parent.and_then(hex64), sampled })
    }

    /// Reads the single header `b3: TRACE-SPAN[-SAMPLED[-PARENT]]`.
    pub fn from_b3_single(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let (trace, span) = (parts.next()?, parts.next()?);
        let sampled = parts.next();
        Self::from_b3(trace, span, parts.next(), sampled)
    }

    /// The value of `traceparent`.
    pub fn traceparent(&self) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }

    /// The value of `x-b3-traceid`.
    pub fn b3_trace(&self) -> String {
        match u64::try_from(self.trace) {
            Ok(short) => span_id(short),
            Err(_) => digits::<32>(self.trace),
        }
    }
}

/// The value of `x-b3-spanid` and `x-b3-parentspanid`.
pub fn span_id(span: u64) -> String {
    digits::<16>(span.into())
}

/// The last `N` hexadecimal digits of a number. Formatting does the same in ten times the instructions.
fn digits<const N: usize>(number: u128) -> String {
    let mut rest = number;
    let mut out = [b'0'; N];
    for place in out.iter_mut().rev() {
        *place = b"0123456789abcdef"[(rest & 0xf) as usize];
        rest >>= 4;
    }
    out.iter().copied().map(char::from).collect()
}

fn hex128(text: &str) -> Option<u128> {
    let fits = matches!(text.len(), 16 | 32) && text.bytes().all(|b| b.is_ascii_hexdigit());
    fits.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

fn hex64(text: &str) -> Option<u64> {
    let fits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
    fits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// Why a request is traced, kept in the 15th character of its id, as Envoy's UUID request ids do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TraceReason {
    /// It is not.
    NotTraced,
    /// By the share that is sampled.
    Sampled,
}

/// A request id from random bits: a version 4 UUID with the trace reason packed into it.
pub fn request_id(random: u128, reason: TraceReason) -> String {
    let nibble = match reason {
        TraceReason::NotTraced => 0x4,
        TraceReason::Sampled => 0x9,
    };
    let bits = (random & !(0xf << 76) & !(0x3 << 62)) | (nibble << 76) | (0x2 << 62);
    let mut out = String::with_capacity(36);
    // Writing to a String cannot fail.
    let _ = write!(
        out,
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        bits >> 96,
        (bits >> 80) & 0xffff,
        (bits >> 64) & 0xffff,
        (bits >> 48) & 0xffff,
        bits & 0xffff_ffff_ffff
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_survive_their_headers() {
        let context = SpanContext::new(0xabc << 64, 7, true);
        assert_eq!(SpanContext::from_traceparent(&context.traceparent()), Some(context));
        let b3 = SpanContext::from_b3(&context.b3_trace(), "0000000000000007", None, Some("1"));
        assert_eq!(b3, Some(context));
        assert_eq!(
            SpanContext::from_b3_single("00000000000000ab-0000000000000001-0").map(|c| c.sampled),
            Some(false)
        );
        let child = context.child(8);
        assert_eq!((child.parent, child.trace), (Some(7), context.trace));
    }

    #[test]
    fn malformed_contexts_are_none() {
        for text in ["", "00-0-0-0", "00-00000000000000000000000000000000-0000000000000001-01", "zz-1-2-3"] {
            assert_eq!(SpanContext::from_traceparent(text), None, "{text}");
        }
        assert_eq!(SpanContext::from_b3("+0000000000000ab", "0000000000000001", None, None), None);
    }

    #[test]
    fn request_ids_are_uuids() {
        let id = request_id(u128::MAX, TraceReason::Sampled);
        assert_eq!(id, "ffffffff-ffff-9fff-bfff-ffffffffffff");
        assert_eq!(&request_id(0, TraceReason::NotTraced)[14..20], "4000-8");
    }
}
