//! Slices of systemd, made and changed while it runs: the parent cgroups of services that somebody else starts in them.
//!
//! A slice made here is transient: gone when it is stopped, and not written anywhere. Every call has a deadline of its own, may be
//! repeated, and blocks.

use super::bus::{Bus, Error};
use super::wire::Value;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// systemd's manager; cheap, there is no connection between calls.
#[derive(Debug, Clone)]
pub struct Units {
    pub private: PathBuf,
    pub shared: PathBuf,
    pub patience: Duration,
}

impl Default for Units {
    /// At the places that systemd and the bus have on every host.
    fn default() -> Self {
        Units {
            private: "/run/systemd/private".into(),
            shared: "/run/dbus/system_bus_socket".into(),
            patience: Duration::from_secs(20),
        }
    }
}

impl Units {
    /// The number of systemd's release: 252.
    pub fn release(&self) -> Result<u32, Error> {
        let mut bus = self.bus()?;
        let answer = bus.systemd("org.freedesktop.DBus.Properties", "Get", "ss", |w| {
            w.text(super::bus::MANAGER);
            w.text("Version");
        })?;
        let text = answer.text_property()?;
        let digits: String = text.trim_start_matches('v').chars().take_while(char::is_ascii_digit).collect();
        // A build that has no number is a new one.
        Ok(digits.parse().unwrap_or(u32::MAX))
    }

    /// Makes a slice, or gives these properties to the one that is there.
    pub fn slice(&self, name: &str, description: &str, properties: &[(&str, Value)]) -> Result<(), Error> {
        let mut bus = self.bus()?;
        let mut all = vec![("Description", Value::Text(description.to_owned()))];
        if let Some(parent) = parent(name) {
            all.push(("Wants", Value::Texts(vec![parent])));
        }
        // systemd makes a cgroup only in the controllers that somebody accounts for.
        for accounting in ["MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"] {
            all.push((accounting, Value::Bool(true)));
        }
        all.push(("DefaultDependencies", Value::Bool(false)));
        all.extend_from_slice(properties);
        let made = bus.manager("StartTransientUnit", "ssa(sv)a(sa(sv))", |w| {
            w.text(name);
            w.text("replace");
            w.properties(&all);
            w.list(8, |_| {});
        });
        match made {
            Ok(answer) => ended(&mut bus, name, &answer.path()?),
            Err(error) if error.is(EXISTS) => {
                if properties.is_empty() {
                    return Ok(());
                }
                let set = bus.manager("SetUnitProperties", "sba(sv)", |w| {
                    w.text(name);
                    // Until it is stopped, not for ever.
                    w.bool(true);
                    w.properties(properties);
                });
                set.map(drop)
            }
            Err(error) => Err(error),
        }
    }

    /// Other properties for a unit of somebody else, until it is stopped.
    pub fn set(&self, name: &str, properties: &[(&str, Value)]) -> Result<(), Error> {
        let set = self.bus()?.manager("SetUnitProperties", "sba(sv)", |w| {
            w.text(name);
            w.bool(true);
            w.properties(properties);
        });
        set.map(drop)
    }

    /// Stops a unit and forgets that it may have failed. One that is not there has been stopped.
    pub fn stop(&self, name: &str) -> Result<(), Error> {
        let mut bus = self.bus()?;
        let stopping = bus.manager("StopUnit", "ss", |w| {
            w.text(name);
            w.text("replace");
        });
        match stopping {
            Ok(answer) => ended(&mut bus, name, &answer.path()?)?,
            Err(error) if error.is(NO_SUCH) => return Ok(()),
            Err(error) => return Err(error),
        }
        match bus.manager("ResetFailedUnit", "s", |w| w.text(name)) {
            Err(error) if !error.is(NO_SUCH) => Err(error),
            _ => Ok(()),
        }
    }

    fn bus(&self) -> Result<Bus, Error> {
        Bus::connect(&self.private, &self.shared, Instant::now() + self.patience)
    }
}

fn ended(bus: &mut Bus, unit: &str, job: &str) -> Result<(), Error> {
    match bus.job(job)?.as_str() {
        "done" => Ok(()),
        result => Err(Error::Job { unit: unit.to_owned(), result: result.to_owned() }),
    }
}

/// The slice that a slice lies in, by its name: of `a-b-c.slice` it is `a-b.slice`.
fn parent(slice: &str) -> Option<String> {
    let (above, _) = slice.strip_suffix(".slice")?.rsplit_once('-')?;
    (!above.is_empty()).then(|| format!("{above}.slice"))
}

#[cfg(test)]
mod tests;
