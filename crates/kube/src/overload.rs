//! Answers of an overloaded server: when it wants to be asked again stands in a header, which kube-rs does not hand on. It
//! is put where objects of the kind `Status` have it.

use http::{Response, StatusCode, header};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::{Body, Bytes};
use serde_json::{Value, json};
use tower::BoxError;

/// The longest body of a failure that is looked into.
const LONGEST: usize = 64 << 10;

/// The answer as it is; one that says "later" with its body as a `Status` that has the time.
pub(crate) async fn explained<B>(response: Response<B>) -> Result<Response<Either<B, Full<Bytes>>>, BoxError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let overloaded =
        matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let Some(seconds) = after.and_then(|text| text.trim().parse::<u32>().ok()).filter(|_| overloaded) else {
        return Ok(response.map(Either::Left));
    };
    let (mut head, body) = response.into_parts();
    let limited = http_body_util::Limited::new(body, LONGEST);
    let text = limited.collect().await?.to_bytes();
    let status = status(head.status, &text, seconds);
    head.headers.remove(header::CONTENT_LENGTH);
    Ok(Response::from_parts(head, Either::Right(Full::from(status.to_string()))))
}

fn status(code: StatusCode, text: &[u8], seconds: u32) -> Value {
    let mut status = match serde_json::from_slice::<Value>(text) {
        Ok(status) if status["kind"] == "Status" => status,
        // Priority and fairness, and proxies on the way, answer in plain text.
        _ => json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": String::from_utf8_lossy(text).trim(),
            "reason": code.canonical_reason().unwrap_or_default().replace(' ', ""),
            "code": code.as_u16(),
        }),
    };
    if status["details"]["retryAfterSeconds"].is_null() {
        status["details"]["retryAfterSeconds"] = json!(seconds);
    }
    status
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    async fn seen(code: u16, retry_after: Option<&str>, text: &'static str) -> Value {
        let mut response = Response::builder().status(code);
        if let Some(value) = retry_after {
            response = response.header("retry-after", value);
        }
        let response = response.body(Full::new(Bytes::from(text))).unwrap();
        let body = explained(response).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&body)))
    }

    #[tokio::test]
    async fn the_time_is_put_into_the_status() {
        let plain = seen(429, Some("7"), "Too many requests, please try again later.\n").await;
        assert_eq!(plain["message"], "Too many requests, please try again later.");
        assert_eq!((&plain["code"], &plain["reason"]), (&json!(429), &json!("TooManyRequests")));
        assert_eq!(plain["details"]["retryAfterSeconds"], 7);
        let known = r#"{"kind":"Status","code":503,"message":"m","details":{"retryAfterSeconds":2}}"#;
        assert_eq!(seen(503, Some("7"), known).await["details"]["retryAfterSeconds"], 2);
    }

    #[tokio::test]
    async fn other_answers_pass_as_they_are() {
        assert_eq!(seen(429, None, "x").await, "x");
        assert_eq!(seen(200, Some("7"), "x").await, "x");
        assert_eq!(seen(429, Some("tomorrow"), "x").await, "x");
    }
}
