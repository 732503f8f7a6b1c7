//! The task that pulls and that alone writes the records: that a pull has begun, before the runtime is asked; by what
//! credential it succeeded, before anybody hears of it.

use super::auth::Source;
use super::records::disk::{DiskError, Folder};
use super::records::{Intent, Record, Users, merged};
use super::reference::Reference;
use super::{Answer, PullError, Pulled, Request, Wanted, blocking, policy};
use ferrolet_cri::types::{Image, ImageSpec, SandboxConfig};
use ferrolet_cri::{Client, Error};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time as ApiTime;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// How often records of images that are gone are looked for, as kubelet does with its image garbage collection.
const PRUNE_PERIOD: Duration = Duration::from_secs(300);
/// When the runtime did not answer.
const RETRY: Duration = Duration::from_secs(10);
/// A record as young as this is kept whatever a list says: its image may have come after the list was made.
const YOUNG: Duration = Duration::from_secs(60);

/// Pulls of the same image with other credentials are other pulls.
type Key = (String, Option<[String; 4]>);

/// A pull for all who want it.
struct Pull {
    replies: Vec<oneshot::Sender<Answer>>,
    begun: watch::Receiver<bool>,
}

pub(super) struct Puller {
    cri: Client,
    folder: Folder,
    slots: Arc<Semaphore>,
    waiting: HashMap<Key, Pull>,
    pulls: JoinSet<(Key, Wanted, Answer)>,
    /// Pulls that an agent before this one began and did not end.
    leftovers: BTreeSet<String>,
    /// At most one list at a time, with when it was asked for.
    lists: JoinSet<(crate::pod::Time, Result<Vec<Image>, Error>)>,
}

impl Puller {
    pub(super) fn new(cri: Client, parallel: usize, folder: Folder) -> Puller {
        Puller {
            cri,
            folder,
            slots: Arc::new(Semaphore::new(parallel.max(1))),
            waiting: HashMap::new(),
            pulls: JoinSet::new(),
            leftovers: BTreeSet::new(),
            lists: JoinSet::new(),
        }
    }

    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Request>) {
        self.leftovers = self.find_leftovers().await;
        let first = if self.leftovers.is_empty() { PRUNE_PERIOD } else { Duration::ZERO };
        let mut look_at = tokio::time::Instant::now() + first;
        loop {
            tokio::select! {
                Some(request) = inbox.recv() => self.take(request).await,
                Some(done) = self.pulls.join_next(), if !self.pulls.is_empty() => match done {
                    Ok((key, wanted, answer)) => self.done(&key, &wanted, answer).await,
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_) => {}
                },
                Some(Ok((since, images))) = self.lists.join_next(), if !self.lists.is_empty() => {
                    look_at = tokio::time::Instant::now() + self.tidy(since, images).await;
                }
                () = tokio::time::sleep_until(look_at), if self.lists.is_empty() => {
                    let cri = self.cri.clone();
                    let since = crate::pod::Time::now();
                    self.lists.spawn(async move { (since, cri.list_images().await) });
                }
            }
        }
    }

    async fn take(&mut self, request: Request) {
        match request {
            Request::Grant { asked, image_ref, secret } => {
                self.record(&asked, &image_ref, Some(Users::of(Some(&Source::Secret(secret))))).await;
            }
            Request::Pull { wanted, sandbox, reply, turn } => {
                let secrets = wanted.credential.as_ref().map(|c| {
                    let a = &c.config;
                    [a.username.clone(), a.password.clone(), a.identity_token.clone(), a.registry_token.clone()]
                });
                let key: Key = (wanted.asked.clone(), secrets);
                // Whoever asked may have gone.
                if let Some(pull) = self.waiting.get_mut(&key) {
                    let _ = turn.send(pull.begun.clone());
                    pull.replies.push(reply);
                    return;
                }
                if let Err(error) = self.begin(&wanted.asked).await {
                    let _ = reply.send(Err(PullError::Record { image: wanted.asked, why: error.to_string() }));
                    return;
                }
                let (begins, begun) = watch::channel(false);
                let _ = turn.send(begun.clone());
                self.waiting.insert(key.clone(), Pull { replies: vec![reply], begun });
                let (cri, slots) = (self.cri.clone(), self.slots.clone());
                self.pulls.spawn(async move {
                    let answer = pull(&cri, (&slots, &begins), &wanted, &sandbox).await;
                    (key, wanted, answer)
                });
            }
        }
    }

    fn under_way(&self, asked: &str) -> bool {
        self.waiting.keys().any(|(image, _)| image == asked)
    }

    async fn begin(&mut self, asked: &str) -> Result<(), DiskError> {
        // This pull's end says what there is to say of it.
        self.leftovers.remove(asked);
        if self.under_way(asked) {
            return Ok(());
        }
        let (folder, intent) = (self.folder.clone(), Intent::of(asked));
        blocking(move || folder.write(&intent)).await
    }

    async fn done(&mut self, key: &Key, wanted: &Wanted, answer: Answer) {
        let replies = self.waiting.remove(key).map(|pull| pull.replies).unwrap_or_default();
        let recorded = match &answer {
            Ok(pulled) => {
                let users = Users::of(wanted.credential.as_ref().map(|c| &c.source));
                self.record(&wanted.asked, &pulled.image.id, Some(users)).await
            }
            Err(_) => true,
        };
        // Without a record it is what keeps the image from being taken for one that was always there.
        if recorded && !self.under_way(&wanted.asked) {
            self.forget_intent(&wanted.asked).await;
        }
        for reply in replies {
            let _ = reply.send(answer.clone());
        }
    }

    async fn forget_intent(&self, asked: &str) {
        let (folder, image) = (self.folder.clone(), asked.to_owned());
        if let Err(error) = blocking(move || folder.remove::<Intent>(&image)).await {
            tracing::warn!(image = asked, %error, "cannot remove the record of a pull that has ended");
        }
    }

    /// True once it is on the disk.
    async fn record(&self, asked: &str, image_ref: &str, users: Option<Users>) -> bool {
        let Ok(name) = policy::plain_name(asked) else { return true };
        let (folder, id) = (self.folder.clone(), image_ref.to_owned());
        let written = blocking(move || {
            let known = folder.read::<Record>(&id).unwrap_or_else(|error| {
                tracing::warn!(%error, "a record of an image pull cannot be read and is written anew");
                None
            });
            match merged(known.as_ref(), &id, &name, users.as_ref(), ApiTime(crate::pod::Time::now())) {
                Some(record) => folder.write(&record),
                None => Ok(()),
            }
        });
        let written = written.await;
        if let Err(error) = &written {
            tracing::warn!(image = asked, image_ref, %error, "cannot record by what credential an image was pulled");
        }
        written.is_ok()
    }

    async fn find_leftovers(&self) -> BTreeSet<String> {
        let folder = self.folder.clone();
        let found = blocking(move || {
            let mut found = BTreeSet::new();
            folder.each::<Intent>(|intent| match intent {
                Ok(intent) => {
                    found.insert(intent.image);
                }
                Err(error) => tracing::warn!(%error, "a record of an image pull cannot be read"),
            })?;
            Ok(found)
        });
        found.await.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot look for pulls that an earlier agent did not end");
            BTreeSet::new()
        })
    }

    /// With the images that are there: when to look again.
    async fn tidy(&mut self, since: crate::pod::Time, images: Result<Vec<Image>, Error>) -> Duration {
        let images = match images {
            Ok(images) => images,
            Err(error) => {
                tracing::debug!(%error, "cannot list images to tidy the records of pulls");
                return RETRY;
            }
        };
        for asked in std::mem::take(&mut self.leftovers) {
            // It came after all, and nobody knows for whom: the next pod that wants it has to prove that it may.
            for image in images.iter().filter(|image| is_called(image, &asked)) {
                if self.record(&asked, &image.id, None).await {
                    self.forget_intent(&asked).await;
                }
            }
        }
        let folder = self.folder.clone();
        let there: BTreeSet<String> = images.into_iter().map(|image| image.id).collect();
        let pruned = blocking(move || prune(&folder, &there, since));
        if let Err(error) = pruned.await {
            tracing::warn!(%error, "cannot tidy the records of image pulls");
        }
        PRUNE_PERIOD
    }
}

async fn pull(
    cri: &Client,
    (slots, begins): (&Semaphore, &watch::Sender<bool>),
    wanted: &Wanted,
    sandbox: &SandboxConfig,
) -> Answer {
    let _slot = slots.acquire().await.map_err(|_| PullError::Stopping)?;
    begins.send_replace(true);
    let begun = Instant::now();
    let spec = ImageSpec::new(&wanted.image);
    cri.pull_image(&spec, wanted.credential.as_ref().map(|c| &c.config), sandbox).await?;
    let took = begun.elapsed();
    let image = cri.image_status(&spec).await?.ok_or(PullError::Gone)?;
    Ok(Pulled { image, took })
}

fn prune(folder: &Folder, there: &BTreeSet<String>, since: crate::pod::Time) -> Result<(), DiskError> {
    let mut gone = Vec::new();
    folder.each::<Record>(|record| match record {
        Ok(record) => {
            let age = record.last_updated_time.map_or(Duration::MAX, |t| crate::pod::elapsed(t.0, since));
            if !there.contains(&record.image_ref) && age > YOUNG {
                gone.push(record.image_ref);
            }
        }
        Err(error) => tracing::warn!(%error, "a record of an image pull cannot be read"),
    })?;
    gone.iter().try_for_each(|image| folder.remove::<Record>(image))
}

/// Whether the runtime has the image under this name, which a pod may have shortened.
fn is_called(image: &Image, asked: &str) -> bool {
    let full = |name: &str| {
        let r = Reference::parse(name).ok()?;
        let tag = r.tag.or_else(|| r.digest.is_none().then(|| "latest".to_owned()));
        Some((r.registry, r.repository, r.digest.clone(), tag.filter(|_| r.digest.is_none())))
    };
    let wanted = full(asked);
    wanted.is_some() && image.repo_tags.iter().chain(&image.repo_digests).any(|name| full(name) == wanted)
}
