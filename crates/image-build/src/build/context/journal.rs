//! The build's journal: what it says at first, who keeps it, and what each step adds.

use std::sync::Arc;

use proxmox_client::VolId;

use super::{Context, Resource};
use crate::Error;
use crate::communicator::BuildKeys;
use crate::journal::{Inputs, Journal, Keeper, lease_until};

/// The part of a build's state that its journal holds besides the step.
#[derive(Debug)]
pub(super) struct State {
    oemdrv: Option<VolId>,
    login: Option<String>,
}

impl State {
    pub(super) fn write(self, journal: &mut Journal) {
        journal.oemdrv = self.oemdrv;
        journal.login = self.login;
    }
}

impl Context {
    /// The journal as the create call is to carry it.
    pub(in crate::build) fn first_journal(&self) -> Result<Journal, Error> {
        let mut journal = Journal {
            build: self.build_id.clone(),
            run: self.run_uuid.clone(),
            image: self.resolved()?.name.clone(),
            vmid: self.vmid()?,
            step: "create".to_owned(),
            provisioned: 0,
            holder: self.holder.clone(),
            lease: lease_until(&self.client, self.lease),
            oemdrv: None,
            login: None,
            boots: None,
            replacing: self.replacing.clone(),
            inputs: Inputs::of(&self.spec),
        };
        self.state().write(&mut journal);
        Ok(journal)
    }

    /// From now on the journal on the VM is kept, and shows that this process lives.
    pub(in crate::build) fn keep(&mut self, keeper: Keeper) {
        let keeper = Arc::new(keeper);
        self.heartbeat = Some(keeper.beat(self.stop.clone()));
        self.keeper = Some(keeper);
    }

    /// The journal's keeper, once there is a VM.
    pub(in crate::build) fn keeper(&self) -> Result<&Arc<Keeper>, Error> {
        self.keeper.as_ref().ok_or(Error::Missing {
            what: "the build's journal",
        })
    }

    /// The journal has been closed: there is nothing left to keep.
    pub(in crate::build) fn closed(&mut self) {
        self.heartbeat = None;
        self.keeper = None;
    }

    /// What the journal holds of this process's state.
    pub(super) fn state(&self) -> State {
        State {
            oemdrv: self
                .media
                .as_ref()
                .and_then(|media| media.oemdrv.clone())
                .filter(|volid| {
                    self.made(&Resource::Volume {
                        node: self.spec.node.clone(),
                        volid: volid.clone(),
                    })
                }),
            login: self.keys.as_ref().and_then(BuildKeys::lasting_fingerprint),
        }
    }

    /// Asks once more whether another process has the build, where there is still a VM to ask: the volumes have no journal.
    ///
    /// # Errors
    /// [`Error::TakenOver`].
    pub(in crate::build) async fn still_ours(&self) -> Result<(), Error> {
        let vm_is_left = self.resources.iter().any(|left| matches!(left, Resource::Vm { .. }));
        let Some(keeper) = self.keeper.as_ref().filter(|_| vm_is_left) else {
            return Ok(());
        };
        match keeper.note(&self.cancel, |_| {}).await {
            Err(Error::TakenOver { build, found }) => Err(Error::TakenOver { build, found }),
            // What cannot be asked has not been taken over in the moment since it was looked at.
            Ok(()) | Err(_) => Ok(()),
        }
    }
}
