//! The HTML of productpage.

use serde_json::Value;

use super::productpage::Fetched;

/// The style sheet.
pub(super) const CSS: &str = "body{font:16px/1.5 system-ui,sans-serif;margin:0;color:#1d2733;background:#f4f6f8}\
header{background:#14304d;color:#fff;padding:.8rem 2rem;display:flex;gap:1rem;align-items:center}\
header b{flex:1}header a,header button{color:#fff}header button,header input{font:inherit;padding:.2rem .6rem}\
header button{background:#2c6fb0;border:0;border-radius:4px}main{max-width:62rem;margin:0 auto;padding:1.5rem}\
.columns{display:flex;flex-wrap:wrap;gap:1.5rem}.columns>section{flex:1 1 20rem;background:#fff;border-radius:8px;\
padding:1rem 1.5rem;box-shadow:0 1px 4px #0002}dt{font-weight:600}dd{margin:0 0 .4rem}blockquote{margin:0 0 1.2rem}\
.star{font-size:1.5rem}.error{color:#a4161a;font-weight:600}small{color:#66727f}";

/// The entry page.
pub(super) fn index() -> String {
    frame(
        None,
        "<h1>Bookinfo</h1><p>A sample application of four services. \
         See <a href=\"/productpage\">the product page</a>.</p>",
    )
}

/// The product page.
pub(super) fn product(user: Option<&str>, product: &Value, details: &Fetched, reviews: &Fetched) -> String {
    let title = text(&product["title"]);
    let about = text(&product["descriptionHtml"]);
    let body = format!(
        "<h1>{title}</h1><p>{about}</p><div class=\"columns\"><section>{}</section><section>{}</section></div>",
        details_html(details),
        reviews_html(reviews)
    );
    frame(user, &body)
}

fn frame(user: Option<&str>, body: &str) -> String {
    let sign_in = match user {
        Some(user) => format!("<span>{}</span><a href=\"/logout\">Sign out</a>", escape(user)),
        None => "<form action=\"/login\" method=\"post\"><input name=\"username\" placeholder=\"User name\" required>\
                 <input type=\"hidden\" name=\"passwd\"> <button>Sign in</button></form>"
            .to_owned(),
    };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>Simple Bookstore App</title>\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <link rel=\"stylesheet\" href=\"/static/bookinfo.css\">\n</head>\n<body>\n\
         <header><b>Bookinfo Sample</b>{sign_in}</header>\n<main>{body}</main>\n</body>\n</html>\n"
    )
}

fn details_html(details: &Fetched) -> String {
    const ROWS: &[(&str, &str)] = &[
        ("type", "Type"),
        ("pages", "Pages"),
        ("publisher", "Publisher"),
        ("language", "Language"),
        ("ISBN-10", "ISBN-10"),
        ("ISBN-13", "ISBN-13"),
    ];
    match details {
        Ok(details) => {
            let row =
                |(key, label): &(&str, &str)| format!("<dt>{label}</dt><dd>{}</dd>\n", text(&details[*key]));
            format!("<h2>Book Details</h2><dl>{}</dl>", ROWS.iter().map(row).collect::<String>())
        }
        Err((_, error)) => failure("Error fetching product details!", error),
    }
}

fn reviews_html(reviews: &Fetched) -> String {
    match reviews {
        Ok(answer) => {
            let all = answer["reviews"].as_array().into_iter().flatten().map(review_html).collect::<String>();
            let pod = text(&answer["podname"]);
            format!("<h2>Book Reviews</h2>{all}<small>Reviews served by: {pod}</small>")
        }
        Err((_, error)) => failure("Error fetching product reviews!", error),
    }
}

fn review_html(review: &Value) -> String {
    let rating = &review["rating"];
    let stars = if let Some(error) = rating["error"].as_str() {
        format!("<p class=\"error\">{}</p>", escape(error))
    } else if let Some(stars) = rating["stars"].as_u64() {
        let color = match rating["color"].as_str() {
            Some("red") => "red",
            _ => "black",
        };
        let full = usize::try_from(stars.min(5)).unwrap_or(5);
        format!(
            "<p><font color=\"{color}\" title=\"{full} stars\">{}{}</font></p>",
            "<span class=\"star glyphicon-star\">&#9733;</span>".repeat(full),
            "<span class=\"star glyphicon-star-empty\">&#9734;</span>".repeat(5 - full)
        )
    } else {
        String::new()
    };
    format!(
        "<blockquote><p>{}</p><small>{}</small>{stars}</blockquote>\n",
        text(&review["text"]),
        text(&review["reviewer"])
    )
}

fn failure(heading: &str, error: &str) -> String {
    format!("<h2 class=\"error\">{heading}</h2><p>{}</p>", escape(error))
}

/// A JSON scalar as escaped text.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => escape(text),
        Value::Null => String::new(),
        other => escape(&other.to_string()),
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;
    use serde_json::json;

    #[test]
    fn stars_have_the_version_s_colour() {
        let reviews = Ok(json!({ "podname": "p", "reviews": [
            { "reviewer": "R", "text": "<b>", "rating": { "stars": 4, "color": "red" } },
        ]}));
        let html = product(Some("<jason>"), &json!({ "title": "T" }), &Ok(json!({})), &reviews);
        assert!(html.contains("<title>Simple Bookstore App</title>"));
        assert_eq!(html.matches("glyphicon-star\"").count(), 4);
        assert_eq!(html.matches("glyphicon-star-empty").count(), 1);
        assert!(html.contains("color=\"red\""));
        assert!(html.contains("&lt;b&gt;") && html.contains("&lt;jason&gt;"));
    }

    #[test]
    fn failures_are_told() {
        let failed = Err((StatusCode::SERVICE_UNAVAILABLE, "Sorry".to_owned()));
        let html = product(None, &json!({}), &failed, &failed);
        assert!(html.contains("Error fetching product details!"));
        assert!(html.contains("Error fetching product reviews!"));
        assert!(html.contains("action=\"/login\""));
    }
}
