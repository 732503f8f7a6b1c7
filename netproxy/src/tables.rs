//! All services and slices of the cluster, as last told.
//!
//! Pure. Owns the objects and the index from a service to its slices; every change names the services it touches, and an
//! update that changes nothing names none.

use crate::model::{Key, Service, Slice};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tables {
    services: BTreeMap<Key, Service>,
    slices: BTreeMap<Key, Slice>,
    by_service: BTreeMap<Key, Vec<Key>>,
    /// In all slices. Kept, since it is asked for after every change.
    endpoints: usize,
}

/// Names of services whose rules may have changed.
pub type Touched = BTreeSet<Key>;

impl Tables {
    pub fn services(&self) -> impl Iterator<Item = (&Key, &Service)> {
        self.services.iter()
    }

    pub fn service(&self, key: &Key) -> Option<&Service> {
        self.services.get(key)
    }

    pub fn service_count(&self) -> usize {
        self.services.len()
    }

    pub fn endpoint_count(&self) -> usize {
        self.endpoints
    }

    pub fn slice(&self, key: &Key) -> Option<&Slice> {
        self.slices.get(key)
    }

    /// The slices of a service, by name.
    pub fn slices_of(&self, service: &Key) -> impl Iterator<Item = &Slice> {
        self.by_service.get(service).into_iter().flatten().filter_map(|k| self.slices.get(k))
    }

    pub fn set_service(&mut self, key: Key, new: Option<Service>, touched: &mut Touched) {
        if self.services.get(&key) == new.as_ref() {
            return;
        }
        match new {
            Some(s) => self.services.insert(key.clone(), s),
            None => self.services.remove(&key),
        };
        touched.insert(key);
    }

    pub fn set_slice(&mut self, key: Key, new: Option<Slice>, touched: &mut Touched) {
        if self.slices.get(&key) == new.as_ref() {
            return;
        }
        if let Some(old) = self.slices.remove(&key) {
            self.unlink(&old.service, &key);
            self.endpoints -= old.endpoints.len();
            touched.insert(old.service);
        }
        if let Some(slice) = new {
            let of = self.by_service.entry(slice.service.clone()).or_default();
            if let Err(at) = of.binary_search(&key) {
                of.insert(at, key.clone());
            }
            touched.insert(slice.service.clone());
            self.endpoints += slice.endpoints.len();
            self.slices.insert(key, slice);
        }
    }

    fn unlink(&mut self, service: &Key, slice: &Key) {
        if let Some(of) = self.by_service.get_mut(service) {
            of.retain(|k| k != slice);
            if of.is_empty() {
                self.by_service.remove(service);
            }
        }
    }

    /// The complete list of services: what is not in it is gone.
    pub fn replace_services(&mut self, all: BTreeMap<Key, Service>, touched: &mut Touched) {
        let gone: Vec<Key> = self.services.keys().filter(|k| !all.contains_key(*k)).cloned().collect();
        for key in gone {
            self.set_service(key, None, touched);
        }
        for (key, service) in all {
            self.set_service(key, Some(service), touched);
        }
    }

    /// The complete list of slices: what is not in it is gone.
    pub fn replace_slices(&mut self, all: BTreeMap<Key, Slice>, touched: &mut Touched) {
        let gone: Vec<Key> = self.slices.keys().filter(|k| !all.contains_key(*k)).cloned().collect();
        for key in gone {
            self.set_slice(key, None, touched);
        }
        for (key, slice) in all {
            self.set_slice(key, Some(slice), touched);
        }
    }
}

#[cfg(test)]
mod tests;
