//! productpage: asks details and reviews, and shows the page.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Form, Path, State};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CONTENT_TYPE, COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{authority, page};
use crate::Settings;
use crate::client::Client;
use crate::propagation::passed_on;

/// How long details or one try at reviews may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often reviews are asked for.
const TRIES: usize = 2;
const COOKIE_NAME: &str = "session";

struct Page {
    client: Client,
    details: String,
    reviews: String,
    ratings: String,
}

/// The application.
pub(crate) fn productpage(settings: &Settings) -> Router {
    let page = Arc::new(Page {
        client: settings.client.clone(),
        details: authority("details"),
        reviews: authority("reviews"),
        ratings: authority("ratings"),
    });
    Router::new()
        .route("/", get(|| async { Html(page::index()) }))
        .route("/index.html", get(|| async { Html(page::index()) }))
        .route("/health", get(|| async { "Product page is healthy" }))
        .route("/login", post(login))
        .route("/logout", get(logout))
        .route("/productpage", get(front))
        .route("/static/bookinfo.css", get(|| async { ([(CONTENT_TYPE, "text/css")], page::CSS) }))
        .route("/api/v1/products", get(|| async { Json(json!([product()])) }))
        .route("/api/v1/products/{id}", get(api_details))
        .route("/api/v1/products/{id}/reviews", get(api_reviews))
        .route("/api/v1/products/{id}/ratings", get(api_ratings))
        .with_state(page)
}

/// The one book of the store.
fn product() -> Value {
    json!({
        "id": 0,
        "title": "The Comedy of Errors",
        "descriptionHtml": "Two pairs of twins, parted by a shipwreck, meet in Ephesus, and nobody knows who is who. \
                            The shortest and one of the earliest of Shakespeare's comedies.",
    })
}

async fn front(State(page): State<Arc<Page>>, headers: HeaderMap) -> Html<String> {
    let user = user(&headers);
    let call = outgoing(&headers, user.as_deref());
    let (details, reviews) = tokio::join!(page.details("0", &call), page.reviews("0", &call));
    Html(page::product(user.as_deref(), &product(), &details, &reviews))
}

async fn api_details(State(page): State<Arc<Page>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    answer(page.details(&id, &outgoing(&headers, user(&headers).as_deref())).await)
}

async fn api_reviews(State(page): State<Arc<Page>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    answer(page.reviews(&id, &outgoing(&headers, user(&headers).as_deref())).await)
}

async fn api_ratings(State(page): State<Arc<Page>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    let call = outgoing(&headers, user(&headers).as_deref());
    let failure = "Sorry, product ratings are currently unavailable for this book.";
    answer(page.fetch(&page.ratings, "ratings", &id, &call, failure).await)
}

/// What a service said, or the status and text of its failure.
pub(super) type Fetched = Result<Value, (StatusCode, String)>;

impl Page {
    async fn details(&self, id: &str, headers: &HeaderMap) -> Fetched {
        let failure = "Sorry, product details are currently unavailable for this book.";
        self.fetch(&self.details, "details", id, headers, failure).await
    }

    /// Reviews are worth a second try: that is what the timeouts of the fault-injection lab run into.
    async fn reviews(&self, id: &str, headers: &HeaderMap) -> Fetched {
        let failure = "Sorry, product reviews are currently unavailable for this book.";
        let mut last = Err((StatusCode::INTERNAL_SERVER_ERROR, failure.to_owned()));
        for _ in 0..TRIES {
            last = self.fetch(&self.reviews, "reviews", id, headers, failure).await;
            if last.is_ok() {
                break;
            }
        }
        last
    }

    async fn fetch(&self, to: &str, what: &str, id: &str, headers: &HeaderMap, failure: &str) -> Fetched {
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) {
            return Err((StatusCode::BAD_REQUEST, "please provide numeric product id".to_owned()));
        }
        match self.client.get(to, &format!("/{what}/{id}"), headers.clone(), PATIENCE).await {
            Ok(answer) if answer.status == StatusCode::OK => serde_json::from_slice(&answer.body)
                .map_err(|_| (StatusCode::INTERNAL_SERVER_ERROR, failure.to_owned())),
            Ok(answer) => Err((answer.status, failure.to_owned())),
            Err(error) => {
                println!("error: {to}: {error}");
                Err((StatusCode::INTERNAL_SERVER_ERROR, failure.to_owned()))
            }
        }
    }
}

fn answer(fetched: Fetched) -> Response {
    match fetched {
        Ok(value) => Json(value).into_response(),
        Err((status, error)) => (status, Json(json!({ "error": error }))).into_response(),
    }
}

/// The headers of calls: what is passed on, and the user who is signed in.
fn outgoing(incoming: &HeaderMap, user: Option<&str>) -> HeaderMap {
    let mut headers = passed_on(incoming);
    if let Some(value) = user.and_then(|user| HeaderValue::from_str(user).ok()) {
        headers.insert("end-user", value);
    }
    headers
}

/// The user whom the session cookie names. It proves nothing: this is a sample, and any name signs in.
fn user(headers: &HeaderMap) -> Option<String> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let session = cookies
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE_NAME)?
        .1;
    String::from_utf8(URL_SAFE_NO_PAD.decode(session).ok()?).ok().filter(|user| !user.is_empty())
}

#[derive(Deserialize)]
struct Login {
    username: String,
}

async fn login(Form(login): Form<Login>) -> Response {
    let session = URL_SAFE_NO_PAD.encode(login.username.trim());
    let cookie = format!("{COOKIE_NAME}={session}; Path=/; HttpOnly; SameSite=Lax");
    ([(SET_COOKIE, cookie)], Redirect::to("/productpage")).into_response()
}

async fn logout() -> Response {
    let cookie = format!("{COOKIE_NAME}=; Path=/; Max-Age=0");
    ([(SET_COOKIE, cookie)], Redirect::to("/productpage")).into_response()
}
