//! Keeps the builds of one process off each other's vmids and names.
//!
//! A hundred builds that start together all hear the same number from `nextid`; without this, ninety-nine of them would
//! find out from a refused create call, and ask again.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use proxmox_client::Vmid;

use crate::Error;

/// Claims in force: cluster and vmid, cluster and name.
static CLAIMED: Mutex<Claims> = Mutex::new(Claims {
    vmids: BTreeSet::new(),
    names: BTreeSet::new(),
});

struct Claims {
    vmids: BTreeSet<(String, Vmid)>,
    names: BTreeSet<(String, String)>,
}

fn claimed() -> MutexGuard<'static, Claims> {
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A vmid and a name on one cluster that no other build of this process uses; free again when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    cluster: String,
    name: String,
    vmid: Vmid,
}

impl Reservation {
    /// Claims this vmid.
    pub(crate) fn exactly(cluster: &str, name: &str, vmid: Vmid) -> Result<Self, Error> {
        Self::claim(&mut claimed(), cluster, name, vmid)
    }

    /// Claims the first vmid from `from` on that is neither in `taken` nor claimed.
    pub(crate) fn first_free(cluster: &str, name: &str, from: Vmid, taken: &BTreeSet<Vmid>) -> Result<Self, Error> {
        let mut claims = claimed();
        let vmid = next_free(&claims, cluster, from, taken)?;
        Self::claim(&mut claims, cluster, name, vmid)
    }

    /// Gives the vmid back and claims the next free one behind it: it turned out to be taken.
    pub(crate) fn move_on(&mut self, taken: &BTreeSet<Vmid>) -> Result<(), Error> {
        let mut claims = claimed();
        let vmid = next_free(&claims, &self.cluster, self.vmid, taken)?;
        claims.vmids.remove(&(self.cluster.clone(), self.vmid));
        claims.vmids.insert((self.cluster.clone(), vmid));
        self.vmid = vmid;
        Ok(())
    }

    pub(crate) fn vmid(&self) -> Vmid {
        self.vmid
    }

    fn claim(claims: &mut Claims, cluster: &str, name: &str, vmid: Vmid) -> Result<Self, Error> {
        let name_key = (cluster.to_owned(), name.to_owned());
        if claims.names.contains(&name_key) {
            return Err(Error::Taken {
                what: format!("the name {name}"),
                by: "another build of this process".to_owned(),
            });
        }
        if !claims.vmids.insert((cluster.to_owned(), vmid)) {
            return Err(Error::Taken {
                what: format!("vmid {vmid}"),
                by: "another build of this process".to_owned(),
            });
        }
        claims.names.insert(name_key);
        Ok(Self {
            cluster: cluster.to_owned(),
            name: name.to_owned(),
            vmid,
        })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut claims = claimed();
        claims.vmids.remove(&(self.cluster.clone(), self.vmid));
        claims.names.remove(&(self.cluster.clone(), self.name.clone()));
    }
}

fn next_free(claims: &Claims, cluster: &str, from: Vmid, taken: &BTreeSet<Vmid>) -> Result<Vmid, Error> {
    (from.get()..=Vmid::MAX.get())
        .filter_map(|number| Vmid::new(number).ok())
        .find(|vmid| !taken.contains(vmid) && !claims.vmids.contains(&(cluster.to_owned(), *vmid)))
        .ok_or_else(|| Error::Taken {
            what: format!("every vmid from {from} on"),
            by: "other guests".to_owned(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> Vmid {
        Vmid::new(number).unwrap()
    }

    #[test]
    fn builds_of_one_process_get_different_vmids_and_names() {
        let cluster = "https://reservation-test-1:8006";
        let taken = BTreeSet::from([id(101)]);
        let a = Reservation::first_free(cluster, "a", id(100), &taken).unwrap();
        let mut b = Reservation::first_free(cluster, "b", id(100), &taken).unwrap();
        assert_eq!((a.vmid(), b.vmid()), (id(100), id(102)));
        assert_eq!(
            Reservation::first_free(cluster, "a", id(100), &taken)
                .unwrap_err()
                .to_string(),
            "the name a is taken by another build of this process"
        );
        assert!(matches!(
            Reservation::exactly(cluster, "c", id(102)),
            Err(Error::Taken { .. })
        ));
        Reservation::exactly("https://another:8006", "a", id(102)).unwrap();
        b.move_on(&BTreeSet::from([id(102), id(103)])).unwrap();
        assert_eq!(b.vmid(), id(104));
        Reservation::exactly(cluster, "c", id(102)).unwrap();
        drop((a, b));
        Reservation::first_free(cluster, "a", id(100), &taken).unwrap();
    }
}
