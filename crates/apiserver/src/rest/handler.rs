//! From a request to an answer.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::negotiate::{self, Form};
use super::request::{Address, Place, Query};
use super::response::{self, Body};
use super::{CertificateUser, discovery, log, options, proxy, remote, reviews, subresources, table};
use crate::access::{self, Action, User};
use crate::api::{Api, Call, Done, Patch, WriteOptions};
use crate::convert;
use crate::object::{self, Object};
use crate::resource::Resource;
use crate::selector::Selector;
use crate::status::Status;

/// As Kubernetes: what etcd would take, doubled.
const LARGEST_BODY: usize = 3 << 20;

type Stopped = tokio::sync::watch::Receiver<bool>;

/// One request on a resource.
pub(super) struct Job<'a> {
    pub(super) api: &'a Arc<Api>,
    pub(super) user: &'a User,
    pub(super) resource: Arc<Resource>,
    pub(super) place: Place,
    pub(super) query: Query,
    /// Whom changed fields belong to.
    pub(super) manager: String,
    pub(super) parts: Parts,
    pub(super) body: Bytes,
    pub(super) stopped: Stopped,
}

pub(super) async fn answer(
    api: &Arc<Api>,
    user: CertificateUser,
    request: Request<Incoming>,
    stopped: Stopped,
) -> Response<Body> {
    match route(api, user, request, stopped).await {
        Ok(response) => response,
        Err(status) => response::failure(&status),
    }
}

async fn route(
    api: &Arc<Api>,
    user: CertificateUser,
    request: Request<Incoming>,
    stopped: Stopped,
) -> Result<Response<Body>, Status> {
    let (parts, body) = request.into_parts();
    let user = authenticate(api, user, &parts)?;
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let place = match Address::parse(parts.uri.path()) {
        Address::Resource(place) => place,
        Address::Other(segments) => {
            let verb = parts.method.as_str().to_lowercase();
            allow(api, &user, Action { verb: &verb, path: parts.uri.path(), ..Action::default() })?;
            return discovery::other(api, &segments, &parts);
        }
    };
    let catalog = api.catalog();
    let resource =
        catalog.at(&place.group, &place.version, &place.plural).ok_or_else(Status::no_such_path)?.clone();
    let chosen = chosen_name(&query);
    let full = [place.plural.as_str(), place.subresource.as_str()].join("/");
    let action = Action {
        verb: verb(&parts.method, &place, &query)?,
        group: &place.group,
        resource: full.trim_end_matches('/'),
        namespace: if resource.is("namespaces") { &place.name } else { &place.namespace },
        // A list of the one object of a name needs no more than the right to that one.
        name: if place.name.is_empty() && parts.method != Method::POST { &chosen } else { &place.name },
        path: "",
    };
    allow(api, &user, action)?;
    if resource.namespaced && place.namespace.is_empty() && !place.name.is_empty()
        || !resource.namespaced && !place.namespace.is_empty()
    {
        return Err(Status::no_such_path());
    }
    let body = read(body).await?;
    let manager = options::manager(&query, &parts.headers);
    Job { api, user: &user, resource, place, query, manager, parts, body, stopped }.run().await
}

/// The whole body. One that is too large is read on for a while, so that the client hears why instead of a reset.
async fn read(mut body: Incoming) -> Result<Bytes, Status> {
    let mut whole = BytesMut::new();
    let mut seen = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Status::bad_request(format!("the body could not be read: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        seen += data.len();
        if seen <= LARGEST_BODY {
            whole.extend_from_slice(&data);
        } else if seen > LARGEST_BODY * 8 {
            break;
        }
    }
    if seen > LARGEST_BODY { Err(Status::too_large(LARGEST_BODY)) } else { Ok(whole.freeze()) }
}

fn verb(method: &Method, place: &Place, query: &Query) -> Result<&'static str, Status> {
    // To run something in a pod is no way of reading it, whatever method opens the connection.
    if matches!(place.subresource.as_str(), "exec" | "attach" | "portforward") {
        return Ok("create");
    }
    Ok(match (method.as_str(), place.name.is_empty()) {
        ("GET" | "HEAD", true) if query.flag("watch") => "watch",
        ("GET" | "HEAD", true) => "list",
        ("GET" | "HEAD", false) => "get",
        ("POST", _) => "create",
        ("PUT", false) => "update",
        ("PATCH", false) => "patch",
        ("DELETE", true) => "deletecollection",
        ("DELETE", false) => "delete",
        _ => return Err(Status::method_not_allowed()),
    })
}

/// The name that a field selector asks for, of a list or watch; empty when it asks for others, too.
fn chosen_name(query: &Query) -> String {
    let name = query.text("fieldSelector").split(',').find_map(|term| {
        let (field, name) = term.split_once('=')?;
        (field.trim() == "metadata.name").then(|| name.trim_start_matches('=').trim().to_owned())
    });
    name.unwrap_or_default()
}

/// A certificate, or a bearer token; nothing is anonymous, something wrong is 401.
fn authenticate(api: &Api, certificate: CertificateUser, parts: &Parts) -> Result<User, Status> {
    let header = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok());
    let user = match (certificate, header("authorization")) {
        (Some(user), _) => (*user).clone(),
        (None, None) => User::anonymous(),
        (None, Some(text)) => {
            let token = text.strip_prefix("Bearer ").or_else(|| text.strip_prefix("bearer "));
            let verified = crate::token::verify(api, token.ok_or_else(Status::unauthorized)?.trim(), &[]);
            verified
                .map_err(|why| {
                    tracing::debug!(%why, "a bearer token was refused");
                    Status::unauthorized()
                })?
                .0
        }
    };
    let Some(name) = header("impersonate-user") else { return Ok(user) };
    let groups = parts.headers.get_all("impersonate-group").iter().filter_map(|v| v.to_str().ok());
    let mut groups: Vec<String> = groups.map(str::to_owned).collect();
    // Every group by itself: who may be bob is not for that one of the masters.
    let asked = groups.iter().map(|group| ("groups", group.as_str()));
    for (resource, name) in std::iter::once(("users", name)).chain(asked) {
        let action = Action { verb: "impersonate", resource, name, ..Action::default() };
        if !access::allows(api, &user, action) {
            let why = format!("User \"{}\" cannot impersonate", user.name);
            return Err(Status::forbidden(resource, name, &why));
        }
    }
    if let Some((namespace, _)) =
        name.strip_prefix("system:serviceaccount:").and_then(|sa| sa.split_once(':'))
        && groups.is_empty()
    {
        groups.extend(["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]);
    }
    groups.push("system:authenticated".into());
    Ok(User { name: name.into(), groups, ..User::default() })
}

fn allow(api: &Api, user: &User, action: Action<'_>) -> Result<(), Status> {
    if access::allows(api, user, action) {
        return Ok(());
    }
    let User { name, .. } = user;
    if action.resource.is_empty() {
        let Action { verb, path, .. } = action;
        let why = format!("forbidden: User \"{name}\" cannot {verb} path \"{path}\"");
        return Err(Status::new(403, "Forbidden", why));
    }
    let group = action.group;
    let place = match action.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace \"{namespace}\""),
    };
    let why = format!(
        "User \"{name}\" cannot {} resource \"{}\" in API group \"{group}\" {place}",
        action.verb, action.resource
    );
    let plural = action.resource.split('/').next().unwrap_or_default();
    Err(Status::forbidden(crate::resource::ResourceName::new(group, plural).as_str(), action.name, &why))
}

impl Job<'_> {
    async fn run(self) -> Result<Response<Body>, Status> {
        if self.resource.is_review() {
            return reviews::answer(&self).await;
        }
        match (self.parts.method.as_str(), self.place.name.is_empty(), self.place.subresource.as_str()) {
            ("GET" | "HEAD", true, _) => self.list_or_watch(),
            ("POST", true, _) => self.create().await,
            ("DELETE", true, _) => self.delete_collection().await,
            ("GET" | "HEAD", false, "") => self.get(),
            ("PUT", false, "") => self.update().await,
            ("PATCH", false, "") => self.patch().await,
            ("DELETE", false, "") => self.delete().await,
            ("GET", false, "log") if self.resource.is("pods") => log::answer(&self).await,
            ("GET" | "POST", false, "exec" | "attach" | "portforward") if self.resource.is("pods") => {
                remote::answer(self).await
            }
            (_, false, "proxy") if self.resource.is("pods") => proxy::answer(&self).await,
            (_, false, part) if !part.is_empty() => subresources::answer(&self).await,
            _ => Err(Status::method_not_allowed()),
        }
    }

    pub(super) fn call(&self) -> Result<Call<'_>, Status> {
        let options = options::write(&self.query)?;
        Ok(self.call_with(options))
    }

    pub(super) fn call_with(&self, options: WriteOptions) -> Call<'_> {
        let subresource = Some(self.place.subresource.as_str()).filter(|s| !s.is_empty());
        Call {
            resource: &self.resource,
            namespace: &self.place.namespace,
            user: self.user,
            subresource,
            options,
            manager: Some(&self.manager),
        }
    }

    pub(super) fn selector(&self) -> Result<Selector, Status> {
        let selector = Selector::parse(self.query.text("labelSelector"), self.query.text("fieldSelector"))?;
        selector.check(&self.resource)?;
        Ok(selector)
    }

    pub(super) fn namespace(&self) -> Option<&str> {
        Some(self.place.namespace.as_str()).filter(|ns| !ns.is_empty())
    }

    pub(super) fn get(&self) -> Result<Response<Body>, Status> {
        let object = self.api.get(&self.resource, &self.place.namespace, &self.place.name)?;
        let mut out = Vec::new();
        self.write_form(&object, negotiate::form(&self.parts.headers)?, &mut out);
        Ok(response::json_bytes(200, out))
    }

    /// The object in the form that the client accepts.
    pub(super) fn write_form(&self, object: &Object, form: Form, out: &mut Vec<u8>) {
        match form {
            Form::Plain => write_object(object, &self.resource, out),
            Form::Metadata => {
                out.extend_from_slice(partial(object.value(&self.resource)).to_string().as_bytes())
            }
            Form::Table => {
                let table = table::table(&self.resource, &[object], self.query.text("includeObject"), None);
                out.extend_from_slice(table.to_string().as_bytes());
            }
        }
    }

    async fn create(&self) -> Result<Response<Body>, Status> {
        let done = self.api.create(self.call()?, options::object(&self.parts.headers, &self.body)?).await?;
        self.done(201, &done)
    }

    async fn update(&self) -> Result<Response<Body>, Status> {
        let value = options::object(&self.parts.headers, &self.body)?;
        let done = self.api.update(self.call()?, &self.place.name, value).await?;
        self.done(200, &done)
    }

    async fn patch(&self) -> Result<Response<Body>, Status> {
        let patch = options::patch(&self.query, &self.parts.headers, &self.body)?;
        let done = self.api.patch(self.call()?, &self.place.name, &patch).await?;
        let made = matches!(patch, Patch::Apply { .. }) && done.created;
        self.done(if made { 201 } else { 200 }, &done)
    }

    pub(super) fn done(&self, code: u16, done: &Done) -> Result<Response<Body>, Status> {
        let mut out = Vec::new();
        self.write_form(&done.object, negotiate::form(&self.parts.headers)?, &mut out);
        let mut answer = response::json_bytes(code, out);
        response::warn(&mut answer, &done.warnings);
        Ok(answer)
    }

    async fn delete(&self) -> Result<Response<Body>, Status> {
        let options = options::delete(&self.query, &self.parts.headers, &self.body)?;
        let call = self.call_with(WriteOptions::default());
        match self.api.delete(call, &self.place.name, options).await? {
            crate::api::Deleted::Marked(object) => {
                let mut out = Vec::new();
                write_object(&object, &self.resource, &mut out);
                Ok(response::json_bytes(200, out))
            }
            crate::api::Deleted::Gone(object) => {
                let uid = object::uid(&object.neutral().unwrap_or_default()).to_owned();
                let details = json!({"name": &*object.name, "group": self.resource.group, "kind": self.resource.plural(), "uid": uid});
                let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
                Ok(response::json(200, &status))
            }
        }
    }

    async fn delete_collection(&self) -> Result<Response<Body>, Status> {
        let options = options::delete(&self.query, &self.parts.headers, &self.body)?;
        let call = self.call_with(WriteOptions::default());
        let objects = self.api.delete_collection(call, &self.selector()?, &options).await?;
        let metadata = json!({"resourceVersion": self.api.store.resource_version().to_string()});
        Ok(response::json_bytes(200, self.list_body(Form::Plain, &objects, metadata)))
    }
}

/// The object as JSON in the resource's version.
pub(super) fn write_object(object: &Object, resource: &Resource, out: &mut Vec<u8>) {
    if convert::differs(resource) {
        let value = convert::to_version(object.value(resource), resource);
        out.extend_from_slice(value.to_string().as_bytes());
    } else {
        object.write(resource, out);
    }
}

/// Only the metadata.
pub(super) fn partial(mut object: Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"].take()})
}
