//! Bookinfo: a page about a book, put together from three services.

mod page;
mod productpage;

use std::collections::BTreeMap;
use std::env;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

pub(crate) use productpage::productpage;

use crate::Settings;
use crate::client::Client;
use crate::propagation::passed_on;

/// Where a service of Bookinfo answers: `NAME_HOSTNAME`, in `SERVICES_DOMAIN`, or its plain name.
fn authority(name: &str) -> String {
    let host = env::var(format!("{}_HOSTNAME", name.to_uppercase())).unwrap_or_else(|_| name.to_owned());
    match env::var("SERVICES_DOMAIN") {
        Ok(domain) if !domain.is_empty() => format!("{host}.{domain}:9080"),
        _ => format!("{host}:9080"),
    }
}

/// details: facts about the book.
pub(crate) fn details() -> Router {
    let details = |Path(id): Path<String>| async move {
        match id.parse::<u64>() {
            Ok(id) => Json(json!({
                "id": id,
                "author": "William Shakespeare",
                "year": 1595,
                "type": "paperback",
                "pages": 200,
                "publisher": "PublisherA",
                "language": "English",
                "ISBN-10": "1234567890",
                "ISBN-13": "123-1234567890",
            }))
            .into_response(),
            Err(_) => refuse("please provide numeric product id"),
        }
    };
    Router::new()
        .route("/health", get(|| async { Json(json!({ "status": "Details is healthy" })) }))
        .route("/details/{id}", get(details))
}

/// ratings: the stars that each reviewer gave; a `POST` changes them.
pub(crate) fn ratings() -> Router {
    type Given = BTreeMap<u64, BTreeMap<String, u8>>;
    let given: Arc<Mutex<Given>> = Arc::default();
    let posted = given.clone();
    let read = move |Path(id): Path<String>| async move {
        let Ok(id) = id.parse::<u64>() else { return refuse("please provide numeric product ID") };
        let known = given.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        let stars = known.unwrap_or_else(|| [("Reviewer1".into(), 5), ("Reviewer2".into(), 4)].into());
        Json(json!({ "id": id, "ratings": stars })).into_response()
    };
    let write = move |Path(id): Path<String>, Json(stars): Json<BTreeMap<String, u8>>| async move {
        let Ok(id) = id.parse::<u64>() else { return refuse("please provide numeric product ID") };
        if stars.values().any(|stars| *stars > 5) {
            return refuse("a rating is 0 to 5 stars");
        }
        let mut given = posted.lock().unwrap_or_else(PoisonError::into_inner);
        if given.len() >= 1000 && !given.contains_key(&id) {
            return refuse("too many products");
        }
        given.insert(id, stars.clone());
        Json(json!({ "id": id, "ratings": stars })).into_response()
    };
    Router::new()
        .route("/health", get(|| async { Json(json!({ "status": "Ratings is healthy" })) }))
        .route("/ratings/{id}", get(read).post(write))
}

/// reviews: v1 without stars, v2 with black ones, v3 with red ones.
pub(crate) fn reviews(settings: &Settings) -> Router {
    let reviews = Arc::new(Reviews {
        client: settings.client.clone(),
        ratings: authority("ratings"),
        pod: settings.pod.clone(),
        stars: match settings.version.as_str() {
            "v1" => None,
            "v3" => Some(("red", Duration::from_millis(2500))),
            _ => Some(("black", Duration::from_secs(10))),
        },
    });
    let read = move |Path(id): Path<String>, headers: HeaderMap| async move {
        match id.parse::<u64>() {
            Ok(_) => {
                // As the image does, it goes on when its caller has gone: Lab 4.1 counts its calls by that.
                match tokio::spawn(async move { reviews.of(&id, &headers).await }).await {
                    Ok(answer) => Json(answer).into_response(),
                    Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
                }
            }
            Err(_) => refuse("please provide numeric product ID"),
        }
    };
    Router::new()
        .route("/health", get(|| async { Json(json!({ "status": "Reviews is healthy" })) }))
        .route("/reviews/{id}", get(read))
}

struct Reviews {
    client: Client,
    ratings: String,
    pod: String,
    /// The colour of the stars, and how long ratings may take.
    stars: Option<(&'static str, Duration)>,
}

impl Reviews {
    async fn of(&self, id: &str, headers: &HeaderMap) -> Value {
        let texts = [
            (
                "Reviewer1",
                "Two hours gone and I had not moved. The quarrel in the wood alone is worth the price.",
            ),
            (
                "Reviewer2",
                "Bright and quick, if a little light beside the tragedies. I laughed all the same.",
            ),
        ];
        let ratings = match self.stars {
            Some((color, patience)) => Some((color, self.ratings(id, headers, patience).await)),
            None => None,
        };
        let reviews: Vec<Value> = texts
            .iter()
            .map(|(reviewer, text)| {
                let mut review = json!({ "reviewer": reviewer, "text": text });
                match &ratings {
                    Some((color, Some(stars))) => {
                        review["rating"] = json!({ "stars": stars.get(*reviewer), "color": color });
                    }
                    Some((_, None)) => {
                        review["rating"] = json!({ "error": "Ratings service is currently unavailable" });
                    }
                    None => {}
                }
                review
            })
            .collect();
        json!({ "id": id, "podname": self.pod, "clustername": "null", "reviews": reviews })
    }

    async fn ratings(
        &self,
        id: &str,
        headers: &HeaderMap,
        patience: Duration,
    ) -> Option<BTreeMap<String, u8>> {
        let path = format!("/ratings/{id}");
        let answer = self.client.get(&self.ratings, &path, passed_on(headers), patience).await;
        let body = match answer {
            Ok(answer) if answer.status == StatusCode::OK => answer.body,
            Ok(answer) => {
                println!("error: ratings answered {}", answer.status);
                return None;
            }
            Err(error) => {
                println!("error: unable to contact {}: {error}", self.ratings);
                return None;
            }
        };
        let value: Value = serde_json::from_slice(&body).ok()?;
        serde_json::from_value(value["ratings"].clone()).ok()
    }
}

fn refuse(reason: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": reason }))).into_response()
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use axum::extract::Request;
    use tokio::net::TcpListener;
    use tower::ServiceExt as _;

    use super::*;
    use crate::server::serve_on;

    /// One server plays all services; calls reach it as their proxy, so that names need no resolving.
    async fn start(version: &str, ratings_up: bool) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::through(listener.local_addr().unwrap().to_string());
        let settings = Settings {
            version: version.into(),
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            pod_ip: None,
            address: None,
            port: None,
            pod: "reviews-pod".into(),
            root: "/".into(),
            args: vec![],
            client: client.clone(),
        };
        let all = Router::new().fallback(move |request: Request| {
            let app = match request.uri().host() {
                Some("productpage") => productpage(&settings),
                Some("reviews") => reviews(&settings),
                Some("ratings") if ratings_up => ratings(),
                Some("details") => details(),
                _ => Router::new(),
            };
            app.oneshot(request)
        });
        tokio::spawn(serve_on(listener, all));
        client
    }

    async fn page(client: &Client) -> String {
        let patience = Duration::from_secs(60);
        let answer =
            client.get("productpage:9080", "/productpage", HeaderMap::new(), patience).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        String::from_utf8(answer.body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn each_version_of_reviews_has_its_stars() {
        for (version, color, stars) in [("v1", "none", 0), ("v2", "black", 9), ("v3", "red", 9)] {
            let html = page(&start(version, true).await).await;
            assert_eq!(html.matches("glyphicon-star\"").count(), stars, "{version}");
            assert_eq!(html.contains(&format!("color=\"{color}\"")), stars > 0, "{version}");
            assert!(html.contains("123-1234567890") && html.contains("reviews-pod"));
        }
    }

    #[tokio::test]
    async fn missing_ratings_leave_the_reviews() {
        let html = page(&start("v2", false).await).await;
        assert_eq!(html.matches("Ratings service is currently unavailable").count(), 2);
        assert!(!html.contains("Error fetching"));
    }
}
