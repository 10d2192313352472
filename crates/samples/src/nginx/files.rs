//! What nginx answers: files, redirections and its plain pages.

use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, LOCATION, SERVER};
use http::{Method, Response, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::Full;

use super::config::{Answer, PAGES, Place};

/// What the image shows before anybody has given it pages.
const WELCOME: &str = "<!DOCTYPE html>
<html>
<head><title>Welcome to nginx!</title></head>
<body>
<h1>Welcome to nginx!</h1>
<p>This is the static server built into Lateen. It serves the files below its root.</p>
</body>
</html>
";

/// The answer of a place to a request.
pub(super) async fn answer(place: &Place, root: &Path, method: &Method, uri: &Uri) -> Response<Full<Bytes>> {
    if let Some(answer) = &place.answer {
        return said(answer);
    }
    if ![Method::GET, Method::HEAD].contains(method) {
        let mut refusal = status(StatusCode::METHOD_NOT_ALLOWED);
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    let Some(relative) = relative(uri.path()) else { return status(StatusCode::BAD_REQUEST) };
    let base = root.join(place.root.trim_start_matches('/'));
    let file = base.join(&relative);
    if file.is_dir() || uri.path().ends_with('/') {
        if !uri.path().ends_with('/') {
            return moved(&format!("{}/", uri.path()));
        }
        for index in &place.index {
            if let Ok(bytes) = tokio::fs::read(file.join(index)).await {
                return found(Path::new(index), bytes);
            }
        }
        let untouched = place.root == PAGES && relative.as_os_str().is_empty() && !base.exists();
        return match untouched {
            true => found(Path::new("index.html"), WELCOME.into()),
            false if file.is_dir() => status(StatusCode::FORBIDDEN),
            false => status(StatusCode::NOT_FOUND),
        };
    }
    match tokio::fs::read(&file).await {
        Ok(bytes) => found(&file, bytes),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => status(StatusCode::FORBIDDEN),
        Err(_) if uri.path() == "/index.html" && place.root == PAGES && !base.exists() => {
            found(Path::new("index.html"), WELCOME.into())
        }
        Err(_) => status(StatusCode::NOT_FOUND),
    }
}

/// The path below the root; none for one that leads out of it.
fn relative(path: &str) -> Option<PathBuf> {
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8().ok()?;
    let path = Path::new(decoded.trim_start_matches('/')).to_owned();
    let stays = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    (stays && !decoded.contains('\0')).then_some(path)
}

fn said(answer: &Answer) -> Response<Full<Bytes>> {
    let code = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if code.is_redirection() && !answer.text.is_empty() {
        let mut response = status(code);
        if let Ok(target) = HeaderValue::from_str(&answer.text) {
            response.headers_mut().insert(LOCATION, target);
        }
        return response;
    }
    if answer.text.is_empty() && !code.is_success() {
        return status(code);
    }
    respond(code, "text/plain", answer.text.clone().into())
}

fn moved(to: &str) -> Response<Full<Bytes>> {
    let mut response = status(StatusCode::MOVED_PERMANENTLY);
    if let Ok(target) = HeaderValue::from_str(to) {
        response.headers_mut().insert(LOCATION, target);
    }
    response
}

fn found(name: &Path, bytes: Vec<u8>) -> Response<Full<Bytes>> {
    let end = name.extension().and_then(|end| end.to_str()).unwrap_or_default();
    let kind = match end {
        "html" | "htm" => "text/html",
        "css" => "text/css",
        "js" => "application/javascript",
        "json" => "application/json",
        "xml" => "text/xml",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "txt" => "text/plain",
        _ => "application/octet-stream",
    };
    respond(StatusCode::OK, kind, bytes.into())
}

fn status(code: StatusCode) -> Response<Full<Bytes>> {
    page(code, &code.to_string())
}

/// The plain page of a status.
pub(super) fn page(code: StatusCode, title: &str) -> Response<Full<Bytes>> {
    let body = format!(
        "<html>\n<head><title>{title}</title></head>\n<body>\n<h1>{title}</h1>\n<hr>nginx\n</body>\n</html>\n"
    );
    respond(code, "text/html", body.into())
}

fn respond(code: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = code;
    response.headers_mut().insert(SERVER, HeaderValue::from_static("nginx"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// Bytes of the body.
pub(super) fn size(response: &Response<Full<Bytes>>) -> usize {
    usize::try_from(response.body().size_hint().lower()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(root: &str) -> Place {
        Place { root: root.to_owned(), index: vec!["index.html".to_owned()], answer: None }
    }

    async fn get(root: &Path, place: &Place, path: &str) -> (u16, String) {
        let response = answer(place, root, &Method::GET, &path.parse().unwrap()).await;
        (response.status().as_u16(), response.headers()[CONTENT_TYPE].to_str().unwrap().to_owned())
    }

    #[tokio::test]
    async fn files_indexes_and_what_is_outside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("srv/sub")).unwrap();
        std::fs::write(dir.path().join("srv/a.json"), "{}").unwrap();
        std::fs::write(dir.path().join("srv/sub/index.html"), "x").unwrap();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        let at = |path: &'static str| async { get(dir.path(), &place("/srv"), path).await };
        assert_eq!(at("/a.json").await, (200, "application/json".to_owned()));
        assert_eq!(at("/sub/").await, (200, "text/html".to_owned()));
        assert_eq!((at("/sub").await.0, at("/").await.0, at("/none").await.0), (301, 403, 404));
        assert_eq!((at("/../secret").await.0, at("/%2e%2e/secret").await.0), (400, 400));
        assert_eq!(get(dir.path(), &place(PAGES), "/").await.0, 200);
        let post = answer(&place("/srv"), dir.path(), &Method::POST, &"/a.json".parse().unwrap()).await;
        assert_eq!(post.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
